//! Which certificate a client gets: the one for the host that it names.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::keeper::Kept;

/// The certificates of one endpoint, in the order in which it names them.
#[derive(Debug)]
pub(super) struct ByName {
    list: Vec<Arc<Kept>>,
}

impl ByName {
    pub(super) fn new(list: Vec<Arc<Kept>>) -> Self {
        Self { list }
    }

    /// The certificate that names the host exactly, else one with a wildcard, else the first.
    fn find(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let host = host.map(str::to_ascii_lowercase);
        let above = host.as_deref().and_then(|host| host.split_once('.')).map(|(_, rest)| rest);
        let mut wild = None;
        for kept in &self.list {
            let Some(host) = host.as_deref() else { break };
            let pair = kept.pair();
            if pair.names.iter().any(|name| name == host) {
                return Some(Arc::clone(&pair.certified));
            }
            let covers = |name: &String| name.strip_prefix("*.").is_some_and(|n| Some(n) == above);
            if wild.is_none() && pair.names.iter().any(covers) {
                wild = Some(Arc::clone(&pair.certified));
            }
        }
        wild.or_else(|| self.list.first().map(|kept| Arc::clone(&kept.pair().certified)))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}
