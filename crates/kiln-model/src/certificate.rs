//! Certificates of endpoints, by where they come from.

use serde::{Deserialize, Serialize};

use crate::name::{ComponentId, StackName};

/// A certificate of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Certificate {
    /// Obtained and renewed by ACME (RFC 8555).
    Acme {
        /// For whom, and from whom.
        acme: Acme,
    },
    /// Given, with its key.
    Pair(CertificatePair),
}

impl Certificate {
    /// The secret that holds its key.
    pub fn secret(&self) -> Option<&SecretKey> {
        match self {
            Certificate::Pair(CertificatePair { key: Key::Secret(secret), .. }) => Some(secret),
            Certificate::Pair(_) | Certificate::Acme { .. } => None,
        }
    }
}

impl From<CertificatePair> for Certificate {
    fn from(pair: CertificatePair) -> Self {
        Certificate::Pair(pair)
    }
}

/// How text in PEM begins (RFC 7468).
const PEM: &str = "-----BEGIN ";

/// A certificate with its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CertificatePair {
    /// The certificate, followed by those that vouch for it: an absolute path that the gateway
    /// reads, or the text itself.
    pub certificate: String,
    /// Its private key.
    pub key: Key,
}

impl CertificatePair {
    /// The path of the certificate's file; `None` where the text itself stands there.
    pub fn file(&self) -> Option<&str> {
        (!is_pem(&self.certificate)).then_some(&*self.certificate)
    }

    /// The certificate as messages name it.
    pub fn title(&self) -> &str {
        self.file().unwrap_or("in the configuration")
    }
}

/// Whether this is a text in PEM and not a path.
pub fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with(PEM)
}

/// Where a private key is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Key {
    /// In a file that the gateway reads; an absolute path.
    File(String),
    /// In a secret, whose value the gateway is told beside its table and keeps in memory.
    Secret(SecretKey),
}

/// A secret that is a private key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretKey {
    /// The secret.
    pub secret: ComponentId,
    /// Its version; in tables only, where the generation's is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Certificates that are obtained from a certificate authority, one for each name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Acme {
    /// The URL of the authority's directory.
    pub directory: String,
    /// The host names, in lower case.
    pub names: Vec<String>,
    /// Whom the authority writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// A file with the certificates by which the directory is trusted, in PEM; an absolute path.
    /// Without it the system's are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
}

/// Where below a root the certificate of a name is kept, its key with it in the same file.
pub fn issued_file(stack: &StackName, name: &str) -> String {
    format!("acme/{stack}/{name}.pem")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_read_back_as_what_it_was() {
        let pair = |key| CertificatePair { certificate: "/etc/a.pem".to_owned(), key };
        let secret = SecretKey { secret: "secret.key".parse().unwrap(), version: None };
        let acme = Acme {
            directory: "https://ca.example/directory".to_owned(),
            names: vec!["shop.example".to_owned()],
            email: None,
            roots: None,
        };
        let all = [
            (
                Certificate::Pair(pair(Key::File("/etc/a.key".to_owned()))),
                r#"{"certificate":"/etc/a.pem","key":"/etc/a.key"}"#,
            ),
            (
                Certificate::Pair(pair(Key::Secret(secret))),
                r#"{"certificate":"/etc/a.pem","key":{"secret":"secret.key"}}"#,
            ),
            (
                Certificate::Acme { acme },
                r#"{"acme":{"directory":"https://ca.example/directory","names":["shop.example"]}}"#,
            ),
        ];
        for (certificate, text) in all {
            assert_eq!(serde_json::to_string(&certificate).unwrap(), text);
            assert_eq!(serde_json::from_str::<Certificate>(text).unwrap(), certificate);
        }
    }
}
