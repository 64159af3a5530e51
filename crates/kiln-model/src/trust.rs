//! What a stack demands of the images that it runs.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a stack demands of images before an instance is started from one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demands {
    /// Whose signatures admit an image; this root's own key alone where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<BTreeSet<Signer>>,
    /// The weakest way in which root filesystems may be kept from being altered while they run;
    /// any where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<Integrity>,
}

impl Demands {
    /// Whether nothing is demanded beyond what always is.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The signers whose signatures count.
    pub fn signers(&self) -> BTreeSet<Signer> {
        self.trust.clone().unwrap_or_else(|| BTreeSet::from([Signer::Own]))
    }
}

/// Somebody whose signature admits an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signer {
    /// This root, with whatever keys of its own are not revoked.
    Own,
    /// Who has the secret half of this key.
    Key(PublicKey),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signer::Own => f.write_str("own"),
            Signer::Key(key) => key.fmt(f),
        }
    }
}

impl FromStr for Signer {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        if text == "own" { Ok(Signer::Own) } else { text.parse().map(Signer::Key) }
    }
}

/// An Ed25519 public key, written `ed25519:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// A text that is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a public key: expected `ed25519:` and 64 hexadecimal digits")]
pub struct InvalidKey {
    /// The text.
    pub text: String,
}

const PREFIX: &str = "ed25519:";

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let invalid = || InvalidKey { text: text.to_owned() };
        let hex = text.strip_prefix(PREFIX).ok_or_else(invalid)?;
        let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() != 64 || !hex.bytes().all(plain) {
            return Err(invalid());
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(key))
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Signer);
as_text!(PublicKey);

/// In which way the root filesystem of a running instance is kept from being altered. A greater
/// one is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Integrity {
    /// Every byte is verified at the start, the file is held open, and writes to it are watched
    /// for.
    Watched,
    /// The kernel verifies each block that is read, by device-mapper.
    DmVerity,
    /// The kernel verifies each block of the file that is read, and the file can't be written to.
    FsVerity,
}

impl Integrity {
    /// All ways, from the weakest.
    pub const ALL: [Self; 3] = [Self::Watched, Self::DmVerity, Self::FsVerity];

    /// The word that stands in configuration and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watched => "watched",
            Self::DmVerity => "dm-verity",
            Self::FsVerity => "fs-verity",
        }
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_in_one_way() {
        let text = format!("ed25519:{}", "0a".repeat(32));
        let key: PublicKey = text.parse().unwrap();
        assert_eq!((key.0, key.to_string()), ([10; 32], text.clone()));
        assert_eq!("own".parse(), Ok(Signer::Own));
        assert_eq!(text.parse(), Ok(Signer::Key(key)));
        for wrong in ["", "ed25519:", "0a0a", &text.to_uppercase(), &text[..70], "rsa:0a"] {
            assert!(wrong.parse::<Signer>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_demanded_is_the_own_key_and_any_integrity() {
        assert_eq!(serde_json::to_string(&Demands::default()).unwrap(), "{}");
        assert_eq!(Demands::default().signers(), BTreeSet::from([Signer::Own]));
        assert!(Integrity::FsVerity > Integrity::DmVerity);
        assert!(Integrity::DmVerity > Integrity::Watched);
    }
}
