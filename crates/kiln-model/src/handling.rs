//! How the gateway handles the traffic of an endpoint: what an endpoint says and a table carries.

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::quantity::{Bytes, Millis};

/// Everything about an endpoint's traffic but where it goes. What is not said is as the gateway
/// has it by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// Certificates; with any, the endpoint speaks TLS and nothing else. The first one is for
    /// clients that name no host or one that none is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<Certificate>,
    /// How an instance is chosen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// Bounds on what clients may ask.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// Whether instances of a TCP endpoint are told the client's address by the PROXY protocol,
    /// version 2.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy_protocol: bool,
    /// Whether each request is noted in a log.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access_log: bool,
}

/// How an instance is chosen for a request or connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The less loaded of two that are drawn.
    #[default]
    PowerOfTwo,
    /// The least loaded of all.
    LeastConnections,
    /// The same one for the same client, as long as it is there.
    Hash(HashKey),
}

/// By what clients are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The client's IP address.
    Address,
    /// A header field; where there is none, the address.
    Header(String),
    /// A cookie; where there is none, the address.
    Cookie(String),
}

/// Bounds on what clients may ask of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests that one instance is given at a time. Further ones wait, or are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Requests that may wait for an instance, for each route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// How long they wait; then they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Millis>,
    /// How long requests wait for the first instance of a server that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Millis>,
    /// How long a client may take for the head of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Millis>,
    /// How long a client's connection is kept without a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Millis>,
    /// How long an instance may take until its response begins, and either side may pause
    /// within a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Millis>,
    /// The largest body of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Bytes>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
