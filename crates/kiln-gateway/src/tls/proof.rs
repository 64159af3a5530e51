//! Proofs for a certificate authority that a host is ours: tls-alpn-01 (RFC 8737).
//!
//! The authority connects to the endpoint and offers the protocol `acme-tls/1` alone; it is shown
//! a certificate that the daemon has made for the question, and the connection ends. Other clients
//! never see it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::sign::SingleCertAndKey;

use crate::control::Proof;
use crate::tls::keypair::{Texts, certified};

/// The protocol by which a proof is asked for.
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// What is shown at present, by host in lower case.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    by_host: ArcSwap<HashMap<String, Arc<ServerConfig>>>,
}

impl Proofs {
    /// Shows these and no others from now on.
    pub(crate) fn set(&self, proofs: &[Proof]) -> Result<(), String> {
        let mut by_host = HashMap::with_capacity(proofs.len());
        for proof in proofs {
            let config = side(proof).map_err(|error| format!("{}: {error}", proof.name))?;
            by_host.insert(proof.name.to_ascii_lowercase(), Arc::new(config));
        }
        self.by_host.store(Arc::new(by_host));
        Ok(())
    }

    /// What is shown for a host, if anything is.
    pub(super) fn of(&self, host: Option<&str>) -> io::Result<Arc<ServerConfig>> {
        let host = host.unwrap_or_default().to_ascii_lowercase();
        let found = self.by_host.load().get(&host).cloned();
        found.ok_or_else(|| io::Error::other("no proof is to be shown for this host"))
    }
}

fn side(proof: &Proof) -> Result<ServerConfig, String> {
    let texts = Texts { certificate: proof.certificate.clone(), key: proof.key.clone() };
    let certified = certified(&texts)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(config)
}
