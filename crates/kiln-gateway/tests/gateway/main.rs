//! The gateway as a real process, with real sockets in real network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what supports a test fails it by panicking, as the test itself does"
)]

mod backend;
mod client;
mod http;
mod http2;
mod limits;
mod load;
mod networks;
mod postgres;
mod process;
mod replacement;
mod retry;
mod routes;
mod sleeping;
mod tables;
mod tcp;
mod tls;
mod upgrade;
mod world;
