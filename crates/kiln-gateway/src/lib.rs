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
//! | `table` | the snapshot that requests read |
//! | `listener`, `connection`, `sniff`, `worker` | from a listening socket to a proxy |
//! | `http`, `tcp` | the proxies |
//! | `balance`, `peer`, `pool`, `load` | choosing an instance, reaching it, draining it |
//! | `resolver` | names inside networks |

mod balance;
mod clock;
mod connection;
pub mod control;
mod events;
mod http;
mod listener;
mod load;
mod peer;
mod pool;
mod process;
mod resolver;
mod sniff;
mod stats;
mod switch;
mod table;
mod tcp;
mod worker;

pub use control::{Gateway, GatewayError};
pub use process::{StartError, ensure_running, run};
