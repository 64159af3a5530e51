//! Secrets: a value that is known by the id of its version, and shown nowhere.

use serde::{Deserialize, Serialize};

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Which version of the value it is.
    pub identity: SecretIdentity,
    /// Where its value comes from.
    pub source: SecretSource,
}

/// What a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretIdentity {
    /// The version; equal values of one secret have one version.
    pub version: SecretVersion,
}

impl SecretIdentity {
    /// The id of the version, where it is known.
    pub fn known(&self) -> Option<String> {
        match &self.version {
            SecretVersion::Known(version) => Some(version.clone()),
            SecretVersion::ToBeGenerated => None,
        }
    }
}

/// What is known of a secret's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretVersion {
    /// The id of a version that the root keeps, encrypted: 32 hex digits, an HMAC of the value
    /// under the root's key, or random for a generated one.
    Known(String),
    /// The value is not known yet: `apply` generates it.
    ToBeGenerated,
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// So many random bytes, as hexadecimal digits.
    Generate(u32),
    /// Given in the configuration (as a variable), a file or the environment.
    Given,
}
