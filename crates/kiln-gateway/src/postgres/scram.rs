//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side.
//!
//! Passwords are taken as they are: that is what SASLprep (RFC 4013) makes of ASCII, and Kiln
//! generates no others. One with other characters works with clients that prepare it to the same
//! bytes, as most do. Channel binding is not offered.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};

/// How often the hash is taken: PostgreSQL's own number.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// The length of a salt and of a nonce, bytes.
const SALT: usize = 16;
const NONCE: usize = 18;

const SHA256: usize = digest::SHA256_OUTPUT_LEN;

/// What proves a password without holding it.
#[derive(Clone)]
pub(super) struct Verifier {
    stored: [u8; SHA256],
    server: [u8; SHA256],
}

/// The same in a message.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    stored: [u8; SHA256],
    server: [u8; SHA256],
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Verifier").finish_non_exhaustive()
    }
}

/// The salt of all passwords of one database: a client is told it before it is known which of
/// them it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Salt([u8; SALT]);

impl Salt {
    pub(super) fn random() -> Self {
        Self(random())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl Verifier {
    pub(super) fn new(password: &str, salt: Salt) -> Self {
        let mut salted = [0; SHA256];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ITERATIONS,
            &salt.0,
            password.as_bytes(),
            &mut salted,
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client = hmac::sign(&key, b"Client Key");
        let mut server = [0; SHA256];
        server.copy_from_slice(hmac::sign(&key, b"Server Key").as_ref());
        Self { stored: sha256(client.as_ref()), server }
    }

    pub(super) fn keep(&self) -> Kept {
        Kept { stored: self.stored, server: self.server }
    }

    pub(super) fn of(kept: &Kept) -> Self {
        Self { stored: kept.stored, server: kept.server }
    }
}

/// An exchange after the client's first message.
#[derive(Debug)]
pub(super) struct Exchange {
    /// How the client's last message has to begin.
    binding: String,
    nonce: String,
    /// The client's first message without its head, and ours.
    said: String,
}

/// Why an exchange failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// What came is no such message.
    Malformed(&'static str),
    /// The password is another one.
    Password,
}

const MALFORMED: Failure = Failure::Malformed("malformed SCRAM message");

impl Exchange {
    /// Takes the client's first message; returns the answer to it.
    pub(super) fn begin(first: &[u8], salt: Salt) -> Result<(Self, String), Failure> {
        Self::with_nonce(first, salt, &STANDARD.encode(random::<NONCE>()))
    }

    fn with_nonce(first: &[u8], salt: Salt, ours: &str) -> Result<(Self, String), Failure> {
        let first = std::str::from_utf8(first).map_err(|_| MALFORMED)?;
        let (flag, rest) = first.split_once(',').ok_or(MALFORMED)?;
        if flag != "n" && flag != "y" {
            let reason = "channel binding was asked for and is not offered";
            return Err(Failure::Malformed(reason));
        }
        let (identity, bare) = rest.split_once(',').ok_or(MALFORMED)?;
        if !identity.is_empty() {
            return Err(Failure::Malformed("another identity was asked for"));
        }
        // The name in it is not looked at: that of the startup message counts.
        let (name, rest) = bare.split_once(',').ok_or(MALFORMED)?;
        let theirs = rest.split(',').next().and_then(|nonce| nonce.strip_prefix("r="));
        let theirs = theirs
            .filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic()));
        let (true, Some(theirs)) = (name.starts_with("n="), theirs) else { return Err(MALFORMED) };
        let nonce = format!("{theirs}{ours}");
        let answer = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(salt.0));
        let binding = format!("c={},r={nonce}", STANDARD.encode(format!("{flag},,")));
        Ok((Self { binding, nonce, said: format!("{bare},{answer}") }, answer))
    }

    /// Takes the client's last message; returns the answer when it proves one of the passwords.
    pub(super) fn end(&self, last: &[u8], verifiers: &[Verifier]) -> Result<String, Failure> {
        let last = std::str::from_utf8(last).map_err(|_| MALFORMED)?;
        let (without, proof) = last.rsplit_once(",p=").ok_or(MALFORMED)?;
        let proof = STANDARD.decode(proof).map_err(|_| MALFORMED)?;
        let proof: [u8; SHA256] = proof.try_into().map_err(|_| MALFORMED)?;
        if without != self.binding {
            let ours = without.ends_with(&format!("r={}", self.nonce));
            let reason = if ours { "another channel binding than before" } else { "wrong nonce" };
            return Err(Failure::Malformed(reason));
        }
        let said = format!("{},{without}", self.said);
        let mut answer = Err(Failure::Password);
        for verifier in verifiers {
            let stored = hmac::Key::new(hmac::HMAC_SHA256, &verifier.stored);
            let signature = hmac::sign(&stored, said.as_bytes());
            let mut key = proof;
            key.iter_mut().zip(signature.as_ref()).for_each(|(byte, other)| *byte ^= other);
            if equal(&sha256(&key), &verifier.stored) {
                let server = hmac::Key::new(hmac::HMAC_SHA256, &verifier.server);
                let signature = hmac::sign(&server, said.as_bytes());
                answer = Ok(format!("v={}", STANDARD.encode(signature)));
            }
        }
        answer
    }
}

/// Compares without telling by its time where a difference is.
fn equal(one: &[u8; SHA256], other: &[u8; SHA256]) -> bool {
    let differ = one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b));
    std::hint::black_box(differ) == 0
}

fn sha256(bytes: &[u8]) -> [u8; SHA256] {
    let mut sum = [0; SHA256];
    sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sum
}

/// Random bytes. A kernel that has none leaves nothing that could be kept secret.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    assert!(SystemRandom::new().fill(&mut bytes).is_ok(), "the kernel gives no random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_exchange_of_the_standard_comes_out() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salt = Salt(salt.try_into().unwrap());
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let ours = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let (exchange, answer) = Exchange::with_nonce(first, salt, ours).unwrap();
        assert_eq!(
            answer,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let right = Verifier::new("pencil", salt);
        let wrong = Verifier::new("pen", salt);
        let answer = exchange.end(last, &[wrong.clone(), right]);
        assert_eq!(answer.as_deref(), Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert_eq!(exchange.end(last, &[wrong]), Err(Failure::Password));
        assert_eq!(exchange.end(last, &[]), Err(Failure::Password));
    }

    #[test]
    fn what_is_no_exchange_is_refused() {
        let salt = Salt::random();
        for first in [
            &b""[..],
            b"n",
            b"n,,",
            b"n,,n=,r=",
            b"n,,m=x,n=,r=abc",
            b"n,a=root,n=,r=abc",
            b"p=tls-server-end-point,,n=,r=abc",
            b"n,,n=,x=abc",
            b"\xff,,n=,r=abc",
        ] {
            assert!(Exchange::begin(first, salt).is_err(), "{}", String::from_utf8_lossy(first));
        }
        let (exchange, _) = Exchange::begin(b"y,,n=,r=abc", salt).unwrap();
        for last in [&b""[..], b"c=eSws", b"c=eSws,r=abc,p=", b"c=eSws,r=abcd,p=AAAA"] {
            assert!(exchange.end(last, &[]).is_err());
        }
        let proof = STANDARD.encode([0; 32]);
        for binding in ["biws", "eSws"] {
            let nonce = "abc";
            let last = format!("c={binding},r={nonce},p={proof}");
            let refused = exchange.end(last.as_bytes(), &[]);
            assert_eq!(refused, Err(Failure::Malformed("wrong nonce")), "{binding}");
        }
    }
}
