//! The data plane: listens, balances, drains.
//!
//! The gateway is a process of its own, so that stopping or upgrading the daemon never touches
//! traffic. It is told one [`kiln_model::route::RouteTable`] per stack and swaps it atomically.
//! On the host it listens for endpoints; inside each network it serves the stable addresses of
//! components and answers names. It ends by itself when its last table has become empty.
//!
//! | part | what it does |
//! | --- | --- |
//! | `process` | start, lock, signals, end |
//! | `control` | the socket on which the daemon sets tables, reads the status, watches |
//! | `switch` | from one table to the next: all or nothing |
//! | `handover` | from one process to the next, with traffic running |
//! | `table` | the snapshot that requests read |
//! | `listener`, `crowd`, `connection`, `sniff`, `worker` | from a listening socket to a proxy |
//! | `tls`, `certificate`, `client` | a client's stream, in the clear or through TLS |
//! | `http`, `tcp`, `udp` | the proxies |
//! | `postgres` | the gate of databases: sessions that outlive their instances |
//! | `route`, `gate` | the way of a request, and whether there is room on it |
//! | `balance`, `peer`, `pool`, `load` | choosing an instance, reaching it, draining it |
//! | `stats`, `access_log` | what is counted and noted |
//! | `resolver` | names inside networks |

mod access_log;
mod balance;
pub mod certificate;
mod client;
mod clock;
mod connection;
pub mod control;
mod crowd;
mod events;
mod gate;
mod handover;
mod http;
mod listener;
mod load;
mod peer;
mod pool;
mod postgres;
mod process;
mod resolver;
mod route;
mod sniff;
mod stats;
mod switch;
mod table;
mod tcp;
mod tls;
mod udp;
mod worker;

pub use control::{Gateway, GatewayError};
pub use process::{StartError, build_of, ensure_running, renew, run};
