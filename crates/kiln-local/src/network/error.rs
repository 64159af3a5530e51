//! What can go wrong with a network.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use super::netlink::Refused;

/// Why a network could not be made, changed, measured or destroyed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The specification can't be carried out by any machine.
    #[error("network {network} cannot be made: {reason}")]
    Spec {
        /// The network instance's id.
        network: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a network instance of this id.
    #[error("network {network} exists already at {}; destroy it first", path.display())]
    Exists {
        /// The network instance's id.
        network: String,
        /// Where it is pinned.
        path: PathBuf,
    },
    /// The host itself reaches something else at the network's addresses.
    #[error(
        "network {network} with egress has the range {cidr}, which overlaps the host's route to \
         {route}; give the network another `cidr`"
    )]
    Overlap {
        /// The network instance's id.
        network: String,
        /// The network's range.
        cidr: Ipv4Net,
        /// The host's route, as `RANGE dev NAME`.
        route: String,
    },
    /// All link ranges are taken on the host.
    #[error(
        "no free link range is left in {range} for the egress of network {network}; free a route \
         of the host in it"
    )]
    NoLink {
        /// The network instance's id.
        network: String,
        /// Where link ranges are taken from.
        range: Ipv4Net,
    },
    /// Another process holds the host's forwarding for too long.
    #[error("another kiln process has been changing the host's forwarding for {seconds} s")]
    Busy {
        /// How long it was waited for.
        seconds: u64,
    },
    /// An instance's address is not one that an instance may have.
    #[error(
        "instance {instance} cannot have the address {address}: instances belong to the upper \
         half of {cidr}"
    )]
    Address {
        /// The instance's id.
        instance: String,
        /// Its address.
        address: Ipv4Addr,
        /// The network's range.
        cidr: Ipv4Net,
    },
    /// A file of the pinned namespaces can't be made, mounted or removed.
    #[error("cannot {what} {}", path.display())]
    Pin {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A setting of the kernel can't be written.
    #[error("cannot set {setting} of network {network} to {value}")]
    Setting {
        /// The network instance's id.
        network: String,
        /// The setting, as `sysctl` names it.
        setting: String,
        /// What it was to be.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A namespace can't be made or entered.
    #[error("cannot use the namespace of network {network}")]
    Namespace {
        /// The network instance's id.
        network: String,
        /// Why.
        source: kiln_netns::Error,
    },
    /// The kernel has refused a change or a question about interfaces, addresses, routes or rules.
    #[error("the kernel refuses a request for {subject}")]
    Kernel {
        /// The network or instance that it was about.
        subject: String,
        /// Which request, and why.
        source: Refused,
    },
}

/// Says which network or instance a refusal was about.
pub(super) trait About<T> {
    fn about(self, subject: &str) -> Result<T, Error>;
}

impl<T> About<T> for Result<T, Refused> {
    fn about(self, subject: &str) -> Result<T, Error> {
        self.map_err(|source| Error::Kernel { subject: subject.to_owned(), source })
    }
}

impl<T> About<T> for Result<T, kiln_netns::Error> {
    fn about(self, subject: &str) -> Result<T, Error> {
        self.map_err(|source| Error::Namespace { network: subject.to_owned(), source })
    }
}
