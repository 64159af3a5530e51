//! A certificate with its key, read from text in PEM.

use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use crate::certificate::{Validity, validity};

/// The largest file that is read for one, bytes.
pub(super) const LARGEST: u64 = 1 << 20;

/// A certificate that can be used.
#[derive(Debug)]
pub(super) struct Keypair {
    pub(super) certified: Arc<CertifiedKey>,
    /// The hosts that it is for, in lower case; `*.` stands for one label.
    pub(super) names: Vec<String>,
    pub(super) validity: Validity,
}

/// The text of both files, as it was read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Texts {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for Texts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Texts").finish_non_exhaustive()
    }
}

impl Keypair {
    /// Reads both texts; the message says what is wrong with which.
    pub(super) fn parse(texts: &Texts) -> Result<Self, String> {
        let certified = certified(texts)?;
        let Some(first) = certified.cert.first() else {
            return Err("the certificate's file holds no certificate".to_owned());
        };
        let names = EndEntityCert::try_from(first)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect();
        let validity =
            validity(first).ok_or_else(|| "the certificate's dates cannot be read".to_owned())?;
        certified.keys_match().map_err(|_| "the key is not that of the certificate".to_owned())?;
        Ok(Self { certified: Arc::new(certified), names, validity })
    }
}

/// A chain and its key, which may be another one's.
pub(super) fn certified(texts: &Texts) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(texts.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificate is not in PEM: {error}"))?;
    if chain.is_empty() {
        return Err("the certificate's file holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(texts.key.as_bytes())
        .map_err(|error| format!("the key is not in PEM: {error}"))?;
    let key = any_supported_type(&key).map_err(|_| "the key is of no known type".to_owned())?;
    Ok(CertifiedKey::new(chain, key))
}
