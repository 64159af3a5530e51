//! Rings of trusted public keys.

use std::fmt::Write as _;

use ring::digest;
use ring::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::packet::{HashAlgorithm, Packet, Reader, Signature, SignatureValue, packets};

/// How far ahead of this machine's clock a signature may have been made: clocks differ.
pub(super) const CLOCK_SKEW_SECONDS: i64 = 3_600;

const PUBLIC_KEY: u8 = 6;
const PUBLIC_SUBKEY: u8 = 14;
const USER_ID: u8 = 13;
const SIGNATURE: u8 = 2;
// Kinds of signatures (RFC 4880, section 5.2.1).
const CERTIFICATIONS_FIRST: u8 = 0x10;
const CERTIFICATIONS_LAST: u8 = 0x13;
const SUBKEY_BINDING: u8 = 0x18;
const KEY_REVOCATION: u8 = 0x20;
const SUBKEY_REVOCATION: u8 = 0x28;
const ED25519_OID: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
/// The key flag (RFC 4880, section 5.2.3.21) of keys that may sign data.
const MAY_SIGN: u8 = 2;

/// A key file without a usable key.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no key in it that can verify signatures: version 4 keys with RSA (from 2048 bits) or Ed25519, certified with SHA-256, SHA-384 or SHA-512 and not revoked, were expected, binary or armoured"
)]
pub struct KeyringError;

/// Keys whose signatures count.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ed25519([u8; 32]),
}

/// One public key, primary or subordinate.
#[derive(Clone, Debug)]
pub(super) struct Key {
    public: PublicKey,
    fingerprint: [u8; 20],
    /// What signatures over this key hash: its packet's body with a short header.
    hashed: Vec<u8>,
    created: u32,
    /// Seconds after `created`, as the key's own signature says; 0 for never.
    expires_after: u32,
}

impl Keyring {
    /// Adds all keys of a key file, binary or armoured, that its own signatures allow to sign data.
    pub fn add(&mut self, file: &[u8]) -> Result<(), KeyringError> {
        let before = self.keys.len();
        let file = super::armour::unpack(file, "PUBLIC KEY BLOCK").ok_or(KeyringError)?;
        let mut packets = packets(&file).peekable();
        while let Some(packet) = packets.next() {
            if packet.tag != PUBLIC_KEY {
                continue;
            }
            let mut parts = Vec::new();
            while let Some(part) = packets.next_if(|next| next.tag != PUBLIC_KEY) {
                parts.push(part);
            }
            if let Some(certificate) = Certificate::read(packet.body, &parts) {
                self.keys.extend(certificate.into_signing_keys());
            }
        }
        if self.keys.len() == before { Err(KeyringError) } else { Ok(()) }
    }

    /// The key that a signature says it is made by.
    pub(super) fn find(&self, signature: &Signature) -> Option<&Key> {
        self.keys.iter().find(|key| signature.names(&key.fingerprint))
    }
}

/// A primary key with what its owner says about it and its subkeys.
struct Certificate<'a> {
    primary: Key,
    user_id: Option<&'a [u8]>,
    /// The owner's newest signature over a user id; it carries expiry and use of the primary key.
    certification: Option<Signature>,
    /// Each with the owner's newest signature over it: a binding, or a revocation.
    subkeys: Vec<(Key, Option<Signature>)>,
    revoked: bool,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate from the body of its primary key and the packets that follow.
    fn read(primary: &[u8], parts: &[Packet<'a>]) -> Option<Self> {
        let mut certificate = Self {
            primary: Key::parse(primary)?,
            user_id: None,
            certification: None,
            subkeys: Vec::new(),
            revoked: false,
        };
        for part in parts {
            match part.tag {
                USER_ID => certificate.user_id = Some(part.body),
                // A subkey that can't be read must not leave its signatures to the one before.
                PUBLIC_SUBKEY => match Key::parse(part.body) {
                    Some(key) => certificate.subkeys.push((key, None)),
                    None => break,
                },
                SIGNATURE => {
                    if let Some(signature) = Signature::parse(part.body) {
                        certificate.take(signature);
                    }
                }
                _ => {}
            }
        }
        Some(certificate)
    }

    /// Takes in a signature over the part that was read last, if it is the owner's and holds.
    fn take(&mut self, signature: Signature) {
        let primary = &self.primary;
        let (slot, data) = match (signature.kind, self.subkeys.last_mut(), self.user_id) {
            (KEY_REVOCATION, ..) => {
                self.revoked |= primary.verifies(&signature, &primary.hashed);
                return;
            }
            (CERTIFICATIONS_FIRST..=CERTIFICATIONS_LAST, None, Some(id)) => {
                (&mut self.certification, primary.with_user(id))
            }
            (SUBKEY_BINDING | SUBKEY_REVOCATION, Some((key, slot)), _) => {
                (slot, [&primary.hashed[..], &key.hashed].concat())
            }
            _ => return,
        };
        // A revocation stays, whatever comes after it.
        let counts = slot.as_ref().is_none_or(|old| {
            let newer = old.created <= signature.created || signature.kind == SUBKEY_REVOCATION;
            newer && old.kind != SUBKEY_REVOCATION
        });
        if counts && primary.verifies(&signature, &data) {
            *slot = Some(signature);
        }
    }

    /// The keys that may sign data, each with its end.
    fn into_signing_keys(mut self) -> Vec<Key> {
        let Some(certification) = self.certification.filter(|_| !self.revoked) else {
            return Vec::new();
        };
        self.primary.expires_after = certification.key_expires_after.unwrap_or(0);
        let end = self.primary.expires_at();
        let mut keys = Vec::new();
        if certification.key_flags.is_none_or(|flags| flags & MAY_SIGN != 0) {
            keys.push(self.primary);
        }
        for (mut key, binding) in self.subkeys {
            let binding = binding.filter(|binding| binding.kind == SUBKEY_BINDING);
            let Some(Signature { key_flags: Some(flags), key_expires_after, .. }) = binding else {
                continue;
            };
            if flags & MAY_SIGN != 0 {
                key.expires_after = key_expires_after.unwrap_or(0);
                key.limit_expiry(end);
                keys.push(key);
            }
        }
        keys
    }
}

impl Key {
    /// Reads the body of a public key packet (RFC 4880, section 5.5.2).
    fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let (version, created, algorithm) = (reader.byte()?, reader.u32()?, reader.byte()?);
        let public = match (version, algorithm) {
            (4, 1 | 3) => {
                PublicKey::Rsa { n: reader.integer()?.to_vec(), e: reader.integer()?.to_vec() }
            }
            (4, 22) => {
                let length = usize::from(reader.byte()?);
                if reader.take(length)? != ED25519_OID {
                    return None;
                }
                // The first byte says that the point is written as EdDSA writes it.
                let (0x40, point) = reader.integer()?.split_first()? else { return None };
                PublicKey::Ed25519(point.try_into().ok()?)
            }
            (4, 27) => PublicKey::Ed25519(reader.take(32)?.try_into().ok()?),
            _ => return None,
        };
        let mut hashed = vec![0x99];
        hashed.extend(u16::try_from(body.len()).ok()?.to_be_bytes());
        hashed.extend(body);
        let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed);
        let fingerprint = sha1.as_ref().try_into().ok()?;
        Some(Self { public, fingerprint, hashed, created, expires_after: 0 })
    }

    /// What a certification of this key for a user id hashes.
    fn with_user(&self, user_id: &[u8]) -> Vec<u8> {
        let length = u32::try_from(user_id.len()).unwrap_or(u32::MAX);
        [&self.hashed[..], &[0xb4], &length.to_be_bytes(), user_id].concat()
    }

    /// Whether `signature` is this key's over `data`.
    pub(super) fn verifies(&self, signature: &Signature, data: &[u8]) -> bool {
        match (&self.public, &signature.value) {
            (PublicKey::Rsa { n, e }, SignatureValue::Rsa(value)) => {
                let parameters = match signature.hash {
                    HashAlgorithm::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                    HashAlgorithm::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
                    HashAlgorithm::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                };
                // The integer's leading zeros are not written; RSA wants the modulus's length.
                let mut padded = vec![0; n.len().saturating_sub(value.len())];
                padded.extend(value);
                let message = signature.message(data);
                RsaPublicKeyComponents { n, e }.verify(parameters, &message, &padded).is_ok()
            }
            (PublicKey::Ed25519(point), SignatureValue::Ed25519(value)) => {
                let digest = signature.digest(data);
                UnparsedPublicKey::new(&ED25519, point).verify(digest.as_ref(), value).is_ok()
            }
            _ => false,
        }
    }

    /// When the key ends, in seconds since 1970.
    fn expires_at(&self) -> Option<i64> {
        let after = i64::from(self.expires_after);
        (after != 0).then(|| i64::from(self.created) + after)
    }

    /// Ends the key no later than `limit`.
    fn limit_expiry(&mut self, limit: Option<i64>) {
        let Some(limit) = limit else { return };
        if self.expires_at().is_none_or(|own| own > limit) {
            let after = (limit - i64::from(self.created)).max(1);
            self.expires_after = u32::try_from(after).unwrap_or(u32::MAX);
        }
    }

    /// When the key has ended, in seconds since 1970.
    pub(super) fn end(&self, now_seconds: i64) -> Option<i64> {
        self.expires_at().filter(|end| *end <= now_seconds)
    }

    /// Whether the key exists and has not ended.
    pub(super) fn is_valid_at(&self, now_seconds: i64) -> bool {
        i64::from(self.created) <= now_seconds + CLOCK_SKEW_SECONDS
            && self.expires_at().is_none_or(|end| now_seconds < end)
    }

    /// The fingerprint, for messages.
    pub(super) fn fingerprint_hex(&self) -> String {
        hex(&self.fingerprint)
    }
}

/// Upper-case hexadecimal digits, as PGP tools write fingerprints.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}
