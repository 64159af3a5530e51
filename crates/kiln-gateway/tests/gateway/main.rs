//! The gateway as a real process, with real sockets in real network namespaces.

mod backend;
mod client;
mod http;
mod networks;
mod process;
mod replacement;
mod tables;
mod tcp;
mod world;
