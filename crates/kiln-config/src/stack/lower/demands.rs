//! `trust` and `require_integrity` of the `stack` block: what the stack demands of images.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_model::trust::{Demands, Integrity, PublicKey, Signer};

use super::Reported;
use crate::diagnostic::nearest;
use crate::stack::decode::Field;
use crate::stack::schema::attribute;
use crate::stack::scope::Site;
use crate::stack::world::World;

/// The DER encoding before the 32 bytes of an Ed25519 public key (RFC 8410, section 4).
const SUBJECT_PUBLIC_KEY_INFO: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What the `stack` block demands; `None` where it is wrong, which has been reported.
pub(in crate::stack) fn demands(world: &World<'_>) -> Option<Demands> {
    // Both are read, so that what is wrong with either is told.
    let trust = read(world, "trust", signers);
    let integrity = read(world, "require_integrity", integrity);
    Some(Demands { trust: trust.ok()?, integrity: integrity.ok()? })
}

/// What `read` makes of an attribute of the `stack` block; `None` where it is not set, or null.
pub(super) fn read<T>(
    world: &World<'_>,
    name: &'static str,
    read: impl FnOnce(&Field<'_>) -> Option<T>,
) -> Result<Option<T>, Reported> {
    let block = world.program.stack.as_ref();
    let Some(attribute) = block.and_then(|block| attribute(&block.body, name)) else {
        return Ok(None);
    };
    let value = world.evaluate(&attribute.expr, &Site::of_stack(world)).ok_or(Reported)?;
    if value.is_null() {
        return Ok(None);
    }
    read(&Field::new(name, &value, &attribute.expr, world.sink)).map(Some).ok_or(Reported)
}

fn signers(field: &Field<'_>) -> Option<BTreeSet<Signer>> {
    let elements = field.elements()?;
    if elements.is_empty() {
        return field.refuse("at least one signer, such as [\"own\"]: else nothing could start");
    }
    let read: Vec<Option<Signer>> = elements.iter().map(signer).collect();
    read.into_iter().collect()
}

fn signer(field: &Field<'_>) -> Option<Signer> {
    let text = field.string()?;
    if let Some(signer) = text.trim().parse().ok().or_else(|| pem(&text)) {
        return Some(signer);
    }
    let refusal = field.refusal("\"own\", \"ed25519:…\" or an Ed25519 public key in PEM");
    field.report(refusal.with_help("a key may stand in a file: file(\"keys/ci.pub\")"));
    None
}

/// An Ed25519 public key as OpenSSL and cosign write it: a PEM text of a `SubjectPublicKeyInfo`.
fn pem(text: &str) -> Option<Signer> {
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(body).ok()?;
    let key = der.strip_prefix(&SUBJECT_PUBLIC_KEY_INFO)?;
    Some(Signer::Key(PublicKey(key.try_into().ok()?)))
}

fn integrity(field: &Field<'_>) -> Option<Integrity> {
    let text = field.string()?;
    if let Some(found) = Integrity::ALL.into_iter().find(|way| way.as_str() == text) {
        return Some(found);
    }
    let refusal = field.refusal("\"watched\", \"dm-verity\" or \"fs-verity\"");
    field.report(match nearest(&text, Integrity::ALL.map(Integrity::as_str)) {
        Some(near) => refusal.with_help(format!("did you mean {near:?}?")),
        None => refusal,
    });
    None
}
