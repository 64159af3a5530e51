//! Verifying the PGP signatures of Debian archives.
//!
//! This is the part of the standard (RFC 4880, and RFC 9580 where it restates it) that archives use:
//! cleartext and detached signatures, version 4 keys and signatures, RSA from 2048 bits and Ed25519
//! with SHA-256, SHA-384 or SHA-512. Whatever else is met is passed over as a signature that does not count,
//! never accepted. The arithmetic is ring's. A whole PGP implementation would bring over a
//! hundred crates for algorithms that no archive uses.

mod armour;
mod cleartext;
mod key;
mod packet;

use crate::debian::date::show_day;

use packet::Signature;

pub(crate) use armour::decode_base64;

pub use cleartext::{CleartextError, SignedText};
pub use key::{Keyring, KeyringError};

/// A document that no key of the ring vouches for.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not a cleartext-signed document.
    #[error("it is not signed: {0}")]
    Form(#[from] CleartextError),
    /// None of the signatures was made by a key of the ring.
    #[error("it is signed by {}, none of which is a trusted key", .0.join(", "))]
    UnknownKey(
        /// The key ids that the signatures name.
        Vec<String>,
    ),
    /// The keys that signed it, or the signatures, are not valid at this time.
    #[error("it is signed by {}", .0.join(", "))]
    KeyNotValid(
        /// Fingerprints, each with what is wrong.
        Vec<String>,
    ),
    /// A trusted key's signature does not fit the document.
    #[error("the signature by {} does not fit: the document was altered", .0.join(", "))]
    Altered(
        /// Fingerprints.
        Vec<String>,
    ),
    /// There is no signature that could be read.
    #[error(
        "it carries no signature of a kind that is supported: version 4 with RSA or Ed25519 over SHA-256, SHA-384 or SHA-512"
    )]
    Unsupported,
}

/// Verifies a cleartext-signed document at `now` (seconds since 1970) and returns the text that is
/// signed. One valid signature by a key of the ring is enough, as archives sign with the keys of
/// several releases.
pub fn verify<'a>(
    document: &'a [u8],
    keyring: &Keyring,
    now_seconds: i64,
) -> Result<SignedText<'a>, VerifyError> {
    let signed = SignedText::parse(document)?;
    judge(&signed.signatures(), &signed.canonical(), keyring, now_seconds)?;
    Ok(signed)
}

/// Verifies the detached signature of a document, binary or armoured, at `now` (seconds since
/// 1970). One valid signature by a key of the ring is enough.
pub fn verify_detached(
    document: &[u8],
    signature: &[u8],
    keyring: &Keyring,
    now_seconds: i64,
) -> Result<(), VerifyError> {
    let packed = armour::unpack(signature, "SIGNATURE").ok_or(CleartextError::Armour)?;
    // Text signatures would have other line ends hashed; archives make binary ones.
    let signatures: Vec<Signature> =
        cleartext::signatures_in(&packed).filter(|signature| signature.kind == 0x00).collect();
    judge(&signatures, document, keyring, now_seconds)
}

/// Whether one of the signatures over `data` counts.
fn judge(
    signatures: &[Signature],
    data: &[u8],
    keyring: &Keyring,
    now_seconds: i64,
) -> Result<(), VerifyError> {
    let mut unknown = Vec::new();
    let mut not_valid = Vec::new();
    let mut altered = Vec::new();
    for signature in signatures {
        let Some(key) = keyring.find(signature) else {
            unknown.push(signature.issuer());
            continue;
        };
        let fingerprint = key.fingerprint_hex();
        if let Some(end) = key.end(now_seconds) {
            not_valid.push(format!("{fingerprint}, a key that expired on {}", show_day(end)));
        } else if let Some(end) = signature.end(now_seconds) {
            let end = show_day(end);
            not_valid.push(format!("{fingerprint}, in a signature that expired on {end}"));
        } else if !key.is_valid_at(now_seconds) || !signature.is_valid_at(now_seconds) {
            not_valid.push(format!("{fingerprint}, in a signature or by a key of after now"));
        } else if key.verifies(signature, data) {
            return Ok(());
        } else {
            altered.push(fingerprint);
        }
    }
    Err(if !altered.is_empty() {
        VerifyError::Altered(altered)
    } else if !not_valid.is_empty() {
        VerifyError::KeyNotValid(not_valid)
    } else if !unknown.is_empty() {
        VerifyError::UnknownKey(unknown)
    } else {
        VerifyError::Unsupported
    })
}
