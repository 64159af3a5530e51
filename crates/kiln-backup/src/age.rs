//! The age format, version 1 (age-encryption.org/v1, C2SP `age.md`), with X25519 keys: what is
//! written here is read by `age -d -i FILE`.
//!
//! A file has a header with its random key, wrapped for the recipient, and then pieces of 64 KiB, each
//! sealed with its number and whether it is the last: a piece that is altered, missing or in another
//! place is found.

use std::fmt;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use curve25519_dalek::montgomery::MontgomeryPoint;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};

use crate::bech32;

const VERSION: &str = "age-encryption.org/v1";
const STANZA: &str = "-> X25519 ";
const WRAP: &[u8] = b"age-encryption.org/v1/X25519";
const MAC: &str = "---";
/// What a key begins with, before its checksummed part.
const PREFIX: &str = "age-secret-key-";
/// Plain bytes of a piece.
const PIECE: usize = 64 << 10;
/// What sealing adds to one.
const TAG: usize = 16;
/// The longest header that is read, in bytes.
const LONGEST: usize = 16 << 10;

type Key = [u8; 32];

/// A key that opens what is sealed for it.
#[derive(Clone)]
pub struct Identity {
    secret: Key,
    public: Key,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(sensitive)")
    }
}

/// A text that holds no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it holds no age identity: one is a line AGE-SECRET-KEY-1…, as `age-keygen` writes it")]
pub struct NoIdentity;

impl std::str::FromStr for Identity {
    type Err = NoIdentity;

    /// The first identity of a file as `age-keygen` writes it.
    fn from_str(text: &str) -> Result<Self, NoIdentity> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let mut found = lines.filter_map(|line| bech32::decode(line, PREFIX));
        let secret: Key = found.next().and_then(|bytes| bytes.try_into().ok()).ok_or(NoIdentity)?;
        let public = MontgomeryPoint::mul_base_clamped(secret).to_bytes();
        Ok(Self { secret, public })
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn derived(salt: &[u8], key: &[u8], info: &[u8]) -> io::Result<Key> {
    let mut derived = Key::default();
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(key)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut derived))
        .map_err(|_| invalid("no key can be derived"))?;
    Ok(derived)
}

fn cipher(key: &Key) -> io::Result<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| invalid("it is no key"))?;
    Ok(LessSafeKey::new(key))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The key that wraps a file's: agreed on between a key of one use and the recipient's.
fn wrapping(share: &Key, recipient: &Key, agreed: MontgomeryPoint) -> io::Result<Key> {
    let agreed = agreed.to_bytes();
    if agreed == Key::default() {
        return Err(invalid("its header holds no proper key"));
    }
    let salt = [share.as_slice(), recipient.as_slice()].concat();
    derived(&salt, &agreed, WRAP)
}

fn header_mac(file_key: &[u8; 16]) -> io::Result<hmac::Key> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &derived(b"", file_key, b"header")?))
}

/// Numbers pieces, and says of the last that it is.
#[derive(Default)]
struct Counter(u64);

impl Counter {
    fn next(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.0.to_be_bytes());
        nonce[11] = u8::from(last);
        self.0 += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what is written to it; only [`finish`](Sealer::finish) makes it whole.
pub struct Sealer<W> {
    to: W,
    cipher: LessSafeKey,
    counter: Counter,
    piece: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// Writes the header.
    pub fn new(identity: &Identity, mut to: W) -> io::Result<Self> {
        let (file_key, once) = (random::<16>()?, random::<32>()?);
        let share = MontgomeryPoint::mul_base_clamped(once).to_bytes();
        let agreed = MontgomeryPoint(identity.public).mul_clamped(once);
        let wrap = cipher(&wrapping(&share, &identity.public, agreed)?)?;
        let mut body = file_key.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        wrap.seal_in_place_append_tag(nonce, Aad::empty(), &mut body)
            .map_err(|_| invalid("its key cannot be wrapped"))?;
        let text = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        let header = format!("{VERSION}\n{STANZA}{}\n{}\n{MAC}", text(&share), text(&body));
        let mac = hmac::sign(&header_mac(&file_key)?, header.as_bytes());
        let nonce = random::<16>()?;
        to.write_all(format!("{header} {}\n", text(mac.as_ref())).as_bytes())?;
        to.write_all(&nonce)?;
        let cipher = cipher(&derived(&nonce, &file_key, b"payload")?)?;
        Ok(Self { to, cipher, counter: Counter::default(), piece: Vec::with_capacity(PIECE + TAG) })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        self.cipher
            .seal_in_place_append_tag(self.counter.next(last), Aad::empty(), &mut self.piece)
            .map_err(|_| invalid("it cannot be sealed"))?;
        self.to.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }

    /// Writes the last piece, and gives back where all went.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE && !bytes.is_empty() {
            self.seal(false)?;
        }
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens what was sealed; what is not as it was sealed is an error of the kind `InvalidData`.
pub struct Opener<R> {
    from: R,
    cipher: LessSafeKey,
    counter: Counter,
    /// Sealed bytes that have been read ahead.
    ahead: Vec<u8>,
    plain: Vec<u8>,
    given: usize,
    over: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the header.
    pub fn new(identity: &Identity, mut from: R) -> io::Result<Self> {
        let (mut signed, mut file_key, mut read) = (String::new(), None, 0);
        let mut line = || -> io::Result<String> {
            let line = line(&mut from)?;
            read += line.len() + 1;
            if read > LONGEST { Err(invalid("its header is too long")) } else { Ok(line) }
        };
        if line()? != VERSION {
            return Err(invalid("it is not in the age format"));
        }
        signed.push_str(VERSION);
        let mac = loop {
            signed.push('\n');
            let text = line()?;
            if let Some(mac) = text.strip_prefix("--- ") {
                signed.push_str(MAC);
                break mac.to_owned();
            }
            signed.push_str(&text);
            if let Some(share) = text.strip_prefix(STANZA) {
                let body = line()?;
                signed.push('\n');
                signed.push_str(&body);
                file_key = file_key.or(unwrapped(identity, share, &body)?);
            }
        };
        let file_key = file_key.ok_or_else(|| invalid("it is sealed for another identity"))?;
        let mac = STANDARD_NO_PAD.decode(mac).map_err(|_| invalid("its header is damaged"))?;
        hmac::verify(&header_mac(&file_key)?, signed.as_bytes(), &mac)
            .map_err(|_| invalid("its header is damaged"))?;
        let mut nonce = [0; 16];
        from.read_exact(&mut nonce).map_err(|_| invalid("it is cut off"))?;
        let cipher = cipher(&derived(&nonce, &file_key, b"payload")?)?;
        let (ahead, plain, counter) = Default::default();
        Ok(Self { from, cipher, counter, ahead, plain, given: 0, over: false })
    }

    fn open(&mut self) -> io::Result<()> {
        // One byte more than a piece tells whether it is the last.
        let wanted = PIECE + TAG + 1;
        let missing = (wanted - self.ahead.len()) as u64;
        (&mut self.from).take(missing).read_to_end(&mut self.ahead)?;
        let last = self.ahead.len() < wanted;
        let rest = if last { Vec::new() } else { self.ahead.split_off(PIECE + TAG) };
        let mut piece = std::mem::replace(&mut self.ahead, rest);
        let opened = self
            .cipher
            .open_in_place(self.counter.next(last), Aad::empty(), &mut piece)
            .map_err(|_| invalid("it is damaged or cut off"))?
            .len();
        if opened == 0 && self.counter.0 > 1 {
            return Err(invalid("its end is damaged"));
        }
        piece.truncate(opened);
        (self.plain, self.given, self.over) = (piece, 0, last);
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.plain.len() && !self.over {
            self.open()?;
        }
        let rest = &self.plain[self.given..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

/// The file's key, where it is wrapped for this identity.
fn unwrapped(identity: &Identity, share: &str, body: &str) -> io::Result<Option<[u8; 16]>> {
    let bytes =
        |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| invalid("its header is damaged"));
    let share: Key = bytes(share)?.try_into().map_err(|_| invalid("its header is damaged"))?;
    let mut body = bytes(body)?;
    let agreed = MontgomeryPoint(share).mul_clamped(identity.secret);
    let wrap = cipher(&wrapping(&share, &identity.public, agreed)?)?;
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let opened = wrap.open_in_place(nonce, Aad::empty(), &mut body).ok();
    Ok(opened.and_then(|key| <[u8; 16]>::try_from(&*key).ok()))
}

/// A line without its end. The header is short, so it is read byte by byte.
fn line(from: &mut impl Read) -> io::Result<String> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while text.len() < LONGEST {
        if from.read(&mut byte)? == 0 {
            return Err(invalid("its header is cut off"));
        }
        if byte[0] == b'\n' {
            return String::from_utf8(text).map_err(|_| invalid("it is not in the age format"));
        }
        text.push(byte[0]);
    }
    Err(invalid("it is not in the age format"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// Of the tests of age itself ("X25519" of C2SP's testkit).
    const IDENTITY: &str =
        "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6";
    const OTHER: &str =
        "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(&IDENTITY.parse().unwrap(), Vec::new()).unwrap();
        sealer.write_all(plain).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(bytes: &[u8], identity: &str) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Opener::new(&identity.parse().unwrap(), bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_is_sealed_is_opened_at_every_length() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 5] {
            let plain: Vec<u8> = (0..=250).cycle().take(length).collect();
            let bytes = sealed(&plain);
            assert_eq!(opened(&bytes, IDENTITY).unwrap(), plain, "{length}");
            assert!(opened(&bytes[..bytes.len() - 1], IDENTITY).is_err(), "{length}");
            assert!(opened(&[&bytes[..], b"x"].concat(), IDENTITY).is_err(), "{length}");
        }
        assert!(opened(&sealed(b"x"), OTHER).is_err());
        assert!("AGE-SECRET-KEY-1XMWWC".parse::<Identity>().is_err());
    }

    #[test]
    fn pieces_cannot_be_left_out_or_swapped() {
        let plain = vec![7; 3 * PIECE];
        let bytes = sealed(&plain);
        let begin = bytes.len() - 3 * (PIECE + TAG);
        let piece = |n: usize| &bytes[begin + n * (PIECE + TAG)..begin + (n + 1) * (PIECE + TAG)];
        let head = &bytes[..begin];
        assert!(opened(&[head, piece(1), piece(0), piece(2)].concat(), IDENTITY).is_err());
        assert!(opened(&[head, piece(0), piece(2)].concat(), IDENTITY).is_err());
        assert!(opened(&[head, piece(0), piece(1)].concat(), IDENTITY).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_flipped_bit_is_found(at in 0_usize..300, bit in 0_u8..8) {
            let mut bytes = sealed(&[9; 100]);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(opened(&bytes, IDENTITY).is_err());
        }
    }

    #[test]
    fn the_program_age_reads_and_writes_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (key, file) = (directory.path().join("key"), directory.path().join("file.age"));
        std::fs::write(&key, format!("# created by hand\n{IDENTITY}\n")).unwrap();
        let plain: Vec<u8> = (0..=252).cycle().take(3 * PIECE + 17).collect();
        std::fs::write(&file, sealed(&plain)).unwrap();
        let age = |arguments: &[&str]| {
            let mut command = Command::new("age");
            command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output()
        };
        let (key, path) = (key.to_str().unwrap(), file.to_str().unwrap());
        let output = match age(&["-d", "-i", key, path]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                println!(
                    "skipped: the_program_age_reads_and_writes_the_same: age is not installed"
                );
                return;
            }
            output => output.unwrap(),
        };
        assert!(output.status.success() && output.stdout == plain);
        let source = directory.path().join("plain");
        std::fs::write(&source, &plain).unwrap();
        let output = age(&["-e", "-i", key, source.to_str().unwrap()]).unwrap();
        assert!(output.status.success());
        let read = std::fs::read_to_string(key).unwrap();
        assert_eq!(opened(&output.stdout, &read).unwrap(), plain);
    }
}
