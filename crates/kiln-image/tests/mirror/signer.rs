//! Makes PGP keys and signs releases with them, as far as archives need it (RFC 9580).

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// The time at which all test archives live, in seconds since 1970: 2026-01-01.
pub(crate) const NOW: i64 = 1_767_225_600;
/// Keys are made a year before.
const CREATED: u32 = 1_735_689_600;

/// The use of a key: certifying and signing.
pub(crate) const SIGNS: u8 = 3;
/// The use of a key: encryption.
pub(crate) const ENCRYPTS: u8 = 0x0c;

/// An Ed25519 key of version 4 with one user id.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    body: Vec<u8>,
    fingerprint: Vec<u8>,
    expires_after: u32,
}

impl Signer {
    pub(crate) fn new() -> Self {
        let secret = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
        let pair = Ed25519KeyPair::from_pkcs8(secret.as_ref()).expect("a key just made is valid");
        let mut body = vec![4];
        body.extend(CREATED.to_be_bytes());
        body.extend([22, 9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1]);
        let point = [&[0x40], pair.public_key().as_ref()].concat();
        body.extend(integer(&point));
        let hashed = [&[0x99][..], &length16(&body), &body].concat();
        let fingerprint = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed);
        Self { pair, body, fingerprint: fingerprint.as_ref().to_vec(), expires_after: 0 }
    }

    /// The same, ending so many seconds after it was made.
    pub(crate) fn expiring_after(mut self, seconds: u32) -> Self {
        self.expires_after = seconds;
        self
    }

    /// The public key as a binary key file.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        let user = b"Test Archive";
        let mut certified = self.hashed();
        certified.push(0xb4);
        certified.extend(u32::try_from(user.len()).expect("short").to_be_bytes());
        certified.extend(user);
        let certification = self.signature(0x13, &certified, SIGNS);
        [packet(6, &self.body), packet(13, user), packet(2, &certification)].concat()
    }

    /// A cleartext-signed document.
    pub(crate) fn sign(&self, text: &str) -> String {
        let canonical = text.trim_end_matches('\n').replace('\n', "\r\n");
        let signature = packet(2, &self.signature(0x01, canonical.as_bytes(), SIGNS));
        format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{text}-----BEGIN PGP SIGNATURE-----\n\n\
             {}\n-----END PGP SIGNATURE-----\n",
            base64(&signature)
        )
    }

    /// The detached signature of a document, binary.
    pub(crate) fn sign_detached(&self, document: &[u8]) -> Vec<u8> {
        packet(2, &self.signature(0x00, document, SIGNS))
    }

    /// The public key as text.
    pub(crate) fn armoured(&self) -> String {
        armoured("PUBLIC KEY BLOCK", &self.public_key())
    }

    /// Another key as a subkey, without any signature.
    pub(crate) fn as_subkey(&self) -> Vec<u8> {
        packet(14, &self.body)
    }

    /// This key's signature that a subkey is its own, for a use, or (0x28) no longer.
    pub(crate) fn binding(&self, kind: u8, subkey: &Signer, flags: u8) -> Vec<u8> {
        let data = [self.hashed(), subkey.hashed()].concat();
        packet(2, &self.signature(kind, &data, flags))
    }

    /// This key's word that it must not be used any more.
    pub(crate) fn revocation(&self) -> Vec<u8> {
        packet(2, &self.signature(0x20, &self.hashed(), SIGNS))
    }

    fn hashed(&self) -> Vec<u8> {
        [&[0x99][..], &length16(&self.body), &self.body].concat()
    }

    fn signature(&self, kind: u8, data: &[u8], flags: u8) -> Vec<u8> {
        let mut hashed = vec![5, 2];
        hashed.extend(CREATED.to_be_bytes());
        hashed.extend([2, 27, flags]);
        if self.expires_after > 0 && kind == 0x13 {
            hashed.extend([5, 9]);
            hashed.extend(self.expires_after.to_be_bytes());
        }
        hashed.extend([22, 33, 4]);
        hashed.extend(&self.fingerprint);
        let mut fields = vec![4, kind, 22, 8];
        fields.extend(length16(&hashed));
        fields.extend(hashed);
        let mut message = [data, &fields].concat();
        message.extend([4, 0xff]);
        message.extend(u32::try_from(fields.len()).expect("short").to_be_bytes());
        let digest = ring::digest::digest(&ring::digest::SHA256, &message);
        let value = self.pair.sign(digest.as_ref());
        let (r, s) = value.as_ref().split_at(32);
        // No unhashed fields; then the start of the digest, which nobody has to look at.
        fields.extend([0, 0]);
        fields.extend(&digest.as_ref()[..2]);
        [fields, integer(r), integer(s)].concat()
    }
}

/// Packets as text.
pub(crate) fn armoured(kind: &str, packets: &[u8]) -> String {
    let body = base64(packets);
    format!("-----BEGIN PGP {kind}-----\n\n{body}\n-----END PGP {kind}-----\n")
}

fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[0xc0 | tag, 0xff], &length[..], body].concat()
}

fn length16(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("short").to_be_bytes()
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros..];
    let bits = bytes.len() * 8 - bytes.first().map_or(0, |first| first.leading_zeros() as usize);
    [&u16::try_from(bits).expect("short").to_be_bytes()[..], bytes].concat()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let shown = digit <= chunk.len();
            let value = DIGITS[bits >> (18 - 6 * digit) & 63];
            text.push(if shown { char::from(value) } else { '=' });
        }
    }
    text
}
