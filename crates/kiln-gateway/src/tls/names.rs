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

    /// The certificate that names the host exactly, else one with a wildcard, else the first
    /// that there is. Nothing for a host whose own certificate is still awaited: another one
    /// would teach people to go on in spite of a warning.
    fn find(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let host = host.map(str::to_ascii_lowercase);
        let above = host.as_deref().and_then(|host| host.split_once('.')).map(|(_, rest)| rest);
        let mut wild = None;
        for kept in &self.list {
            let Some(host) = host.as_deref() else { break };
            let Some(pair) = kept.pair() else { continue };
            if pair.names.iter().any(|name| name == host) {
                return Some(Arc::clone(&pair.certified));
            }
            let covers = |name: &String| name.strip_prefix("*.").is_some_and(|n| Some(n) == above);
            if wild.is_none() && pair.names.iter().any(covers) {
                wild = Some(Arc::clone(&pair.certified));
            }
        }
        let awaited = |host: &str| self.list.iter().any(|kept| kept.is_awaited_for(host));
        if wild.is_some() || host.as_deref().is_some_and(awaited) {
            return wild;
        }
        self.list.iter().find_map(|kept| Some(Arc::clone(&kept.pair()?.certified)))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}
