//! Endpoints: listeners of the gateway.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

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
}
