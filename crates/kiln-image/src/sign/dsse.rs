//! DSSE envelopes (<https://github.com/secure-systems-lab/dsse>, version 1): a payload, what it
//! is, and signatures over both.
//!
//! Envelopes that Kiln writes have one form: members in a fixed order, no white space, and the
//! signing key itself as key id. [`Envelope::read_own`] takes no other, so that each byte of an
//! own file counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use kiln_model::trust::PublicKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SecretKey;

/// A signed payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// What the payload is, as a media type.
    pub payload_type: String,
    /// The payload.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub payload: Vec<u8>,
    /// Whose signatures it has.
    pub signatures: Vec<Signed>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Which key made it: for Kiln's own the public key, for others a hint of any form.
    #[serde(default)]
    pub keyid: String,
    /// The signature.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub sig: Vec<u8>,
}

/// What is signed: the pre-authentication encoding of type and payload.
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// A payload signed by one key.
    pub fn sign(key: &SecretKey, payload_type: &str, payload: Vec<u8>) -> Self {
        let sig = key.sign(&pre_authentication(payload_type, &payload));
        let signed = Signed { keyid: key.public().to_string(), sig: sig.to_vec() };
        Self { payload_type: payload_type.to_owned(), payload, signatures: vec![signed] }
    }

    /// Reads an envelope in whatever form.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Reads an envelope that Kiln wrote for itself and whose one signature holds; nothing else
    /// is taken. The key that signed it comes with it.
    pub fn read_own(bytes: &[u8], payload_type: &str) -> Option<(Self, PublicKey)> {
        let envelope = Self::read(bytes)?;
        let own = envelope.payload_type == payload_type
            && envelope.signatures.len() == 1
            && envelope.to_bytes() == bytes;
        let key = envelope.signers().first().copied().filter(|_| own)?;
        Some((envelope, key))
    }

    /// The keys whose signatures hold, of those that are named by their ids.
    pub fn signers(&self) -> Vec<PublicKey> {
        let signed = pre_authentication(&self.payload_type, &self.payload);
        let holds = |one: &Signed| {
            let key: PublicKey = one.keyid.parse().ok()?;
            let signature = Signature::from_slice(&one.sig).ok()?;
            let verifying = VerifyingKey::from_bytes(&key.0).ok()?;
            verifying.verify_strict(&signed, &signature).is_ok().then_some(key)
        };
        self.signatures.iter().filter_map(holds).collect()
    }

    /// The envelope as Kiln writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings can be written as JSON")
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[7; 32])
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The example of DSSE's protocol document.
        let encoded = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_signature_holds_for_its_payload_type_and_key_only() {
        let envelope = Envelope::sign(&key(), "a/b", b"payload".to_vec());
        assert_eq!(envelope.signers(), [key().public()]);
        let mut other = envelope.clone();
        other.payload_type = "a/c".to_owned();
        assert!(other.signers().is_empty());
        let mut other = envelope.clone();
        other.payload.push(b'!');
        assert!(other.signers().is_empty());
        let mut other = envelope;
        other.signatures[0].keyid = SecretKey::from_bytes(&[8; 32]).public().to_string();
        assert!(other.signers().is_empty());
    }

    #[test]
    fn each_byte_of_an_own_envelope_counts() {
        let bytes = Envelope::sign(&key(), "a/b", b"payload".to_vec()).to_bytes();
        assert!(Envelope::read_own(&bytes, "a/b").is_some());
        assert!(Envelope::read_own(&bytes, "a/c").is_none());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Envelope::read_own(&flipped, "a/b").is_none(), "byte {at}, bit {bit}");
            }
        }
    }
}
