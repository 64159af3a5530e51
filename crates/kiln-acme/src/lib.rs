//! Certificates by ACME (RFC 8555): obtained, kept and renewed for endpoints of the gateway.
//!
//! The daemon runs this, so that the gateway, which meets the world, has no account with a
//! certificate authority. What is wanted is read from the gateway's tables; what is there, from
//! the files below `ROOT/acme`; nothing else is remembered but failures, so that a daemon that is
//! started again and again asks no authority more often. Each name has a certificate of its own:
//! a name that is added or fails disturbs no other.
//!
//! | part | what it does |
//! | --- | --- |
//! | `due` | when a certificate is to be obtained: a pure function |
//! | `store` | certificates, accounts and failures as files |
//! | `order` | obtains one certificate |
//! | `http` | how authorities are spoken to |
//! | `issuer` | the loop |

mod due;
mod http;
mod issuer;
mod order;
mod store;

pub use issuer::{Issuer, Log};
