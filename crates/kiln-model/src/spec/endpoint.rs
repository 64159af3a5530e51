//! Endpoints: listeners of the gateway.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::handling::Handling;
use crate::name::ComponentId;
use crate::route::Protocol;

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its listener.
    pub identity: EndpointIdentity,
    /// Where its traffic goes.
    pub policy: EndpointPolicy,
}

/// What an endpoint is. It has no instance: its listener is kept as long as this is equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointIdentity {
    /// Where the gateway listens.
    pub listen: SocketAddr,
}

/// Where an endpoint's traffic goes. Any change is one atomic route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPolicy {
    /// The server (or database) that answers.
    pub to: ComponentId,
    /// The port on which its instances listen.
    pub port: u16,
    /// How connections are understood.
    pub protocol: Protocol,
    /// Requests that go elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// How its traffic is handled.
    #[serde(flatten)]
    pub handling: Handling,
}

/// Requests for a host or below a path, and who answers them. The host that is named most
/// exactly decides, then the longest path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The host in lower case, or `*.` and the end of one; none stands for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What the path begins with, in whole segments and without a slash at the end; empty for
    /// any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The server that answers.
    pub to: ComponentId,
    /// The port on which its instances listen.
    pub port: u16,
}

impl EndpointPolicy {
    /// Every component that answers, with its port: first that of the endpoint itself.
    pub fn answering(&self) -> impl Iterator<Item = (&ComponentId, u16)> {
        let routes = self.routes.iter().map(|route| (&route.to, route.port));
        std::iter::once((&self.to, self.port)).chain(routes)
    }

    /// The secrets that hold keys of its certificates.
    pub fn secrets(&self) -> impl Iterator<Item = &ComponentId> {
        self.handling.tls.iter().filter_map(|certificate| Some(&certificate.secret()?.secret))
    }
}
