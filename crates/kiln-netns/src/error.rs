//! What can go wrong between a thread and a namespace.

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;

/// Why a namespace could not be opened or entered, or a socket not made in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The namespace file can't be opened: the network is gone, or the caller is not root.
    #[error("cannot open the network namespace {}", path.display())]
    Open {
        /// The file that was asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is there and is no network namespace: nothing is mounted on it any more.
    #[error("{} is not a network namespace; its network is gone", path.display())]
    NotANamespace {
        /// The file that was asked for.
        path: PathBuf,
    },
    /// `unshare(2)` refused, mostly for want of `CAP_SYS_ADMIN`.
    #[error("cannot make a network namespace (are you root?)")]
    Create {
        /// What the kernel said.
        source: io::Error,
    },
    /// `setns(2)` refused, mostly for want of `CAP_SYS_ADMIN`.
    #[error("cannot enter the network namespace (are you root?)")]
    Enter {
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket could not be made or configured.
    #[error("cannot make a {what} in the network namespace")]
    Socket {
        /// Which kind of socket.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address can't be bound: taken, or not an address of this namespace.
    #[error("cannot bind {address} in the network namespace")]
    Bind {
        /// The address that was asked for.
        address: SocketAddrV4,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody answers at the address, or the deadline has passed (`TimedOut`).
    #[error("cannot connect to {address} in the network namespace")]
    Connect {
        /// The address that was asked for.
        address: SocketAddrV4,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// The kind of the kernel's answer; `NotFound` where there is no namespace.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::NotANamespace { .. } => io::ErrorKind::NotFound,
            Self::Open { source, .. }
            | Self::Create { source }
            | Self::Enter { source }
            | Self::Socket { source, .. }
            | Self::Bind { source, .. }
            | Self::Connect { source, .. } => source.kind(),
        }
    }
}
