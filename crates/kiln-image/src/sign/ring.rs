//! The ring: which keys are the root's own, which of them signs, and what is revoked.

use std::collections::BTreeSet;
use std::fmt;

use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;
use kiln_model::trust::{PublicKey, Signer};
use serde::{Deserialize, Serialize};

use super::{Envelope, SecretKey};

/// What the signed payload is.
const PAYLOAD_TYPE: &str = "application/vnd.kiln.ring.v1+json";

/// The root's keys and revocations at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// One more than before, with each change.
    pub counter: u64,
    /// The key that signs.
    pub current: PublicKey,
    /// All keys that are or were the root's own, revoked ones too.
    pub own: BTreeSet<PublicKey>,
    /// What is revoked, oldest first.
    pub revoked: Vec<Revocation>,
}

/// Something that does not count any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What.
    pub what: What,
    /// Why, in the words of who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When, in milliseconds since 1970.
    pub at: Timestamp,
}

/// What can be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Every signature of a key.
    Key(PublicKey),
    /// An image, by its manifest's digest.
    Image(Digest),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Image(digest) => digest.fmt(f),
        }
    }
}

impl Ring {
    /// That of a root with its first key.
    pub(super) fn first(key: PublicKey) -> Self {
        Self { counter: 1, current: key, own: BTreeSet::from([key]), revoked: Vec::new() }
    }

    /// Reads a ring that is as the key that it names as current has signed it; otherwise how it
    /// shows that it is not.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let (envelope, key) = Envelope::read_own(bytes, PAYLOAD_TYPE)
            .ok_or("it is not an envelope whose signature holds")?;
        let ring: Self = serde_json::from_slice(&envelope.payload)
            .map_err(|_| "what is signed is not a ring of this version")?;
        if ring.current != key || !ring.is_own(&key) {
            return Err("it is not signed by a key of this root");
        }
        Ok(ring)
    }

    /// The ring's file, signed by its current key.
    pub(super) fn to_bytes(&self, key: &SecretKey) -> Vec<u8> {
        debug_assert_eq!(key.public(), self.current, "the current key signs");
        let payload = serde_json::to_vec(self).expect("keys, numbers and texts are JSON");
        Envelope::sign(key, PAYLOAD_TYPE, payload).to_bytes()
    }

    /// The revocation of a key or an image.
    pub fn revocation(&self, what: What) -> Option<&Revocation> {
        self.revoked.iter().find(|revocation| revocation.what == what)
    }

    /// Whether a key is the root's own and not revoked.
    pub fn is_own(&self, key: &PublicKey) -> bool {
        self.own.contains(key) && self.revocation(What::Key(*key)).is_none()
    }

    /// Whether a signer, as a stack names it, has this key; revoked ones too.
    pub fn is_of(&self, signer: &Signer, key: &PublicKey) -> bool {
        match signer {
            Signer::Own => self.own.contains(key),
            Signer::Key(named) => named == key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_signed_by_its_current_key() {
        let (first, second) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let mut ring = Ring::first(first.public());
        assert_eq!(Ring::read(&ring.to_bytes(&first)), Ok(ring.clone()));
        ring.own.insert(second.public());
        let what = What::Key(first.public());
        ring.revoked.push(Revocation { what, reason: Some("lost".into()), at: Timestamp(5) });
        let bytes = {
            let payload = serde_json::to_vec(&ring).unwrap();
            Envelope::sign(&first, PAYLOAD_TYPE, payload).to_bytes()
        };
        assert_eq!(Ring::read(&bytes), Err("it is not signed by a key of this root"));
        ring.current = second.public();
        let read = Ring::read(&ring.to_bytes(&second)).unwrap();
        assert!(!read.is_own(&first.public()) && read.is_own(&second.public()));
        assert!(read.is_of(&Signer::Own, &first.public()), "own, though revoked");
    }
}
