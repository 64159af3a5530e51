//! How the daemon talks to the gateway: `ROOT/run/gateway.sock`.
//!
//! A connection carries one request and its reply, each one line of JSON with the version of
//! the protocol; after a `watch` request, events follow, one per line. Only the user who runs
//! the gateway (root) may connect.

mod client;
mod message;
pub(crate) mod server;

pub use client::{Gateway, GatewayError, Watch};
pub use message::{
    Applied, Bound, CertificateStatus, DatabaseStatus, EndpointCounters, EndpointStatus, Event,
    InstanceTraffic, Keys, PROTOCOL, Proof, Refusal, RouteStatus, ServerTraffic, Status, Traffic,
};
pub(crate) use message::{Envelope, Reply, Request};

use std::path::{Path, PathBuf};

/// The longest message that is read, bytes: room for a table of some hundred thousand routes.
pub(crate) const MESSAGE_LIMIT: u64 = 64 << 20;

/// The control socket of the gateway of a root.
pub fn socket_path(root: &Path) -> PathBuf {
    root.join("run/gateway.sock")
}
