//! What is handed over.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::route::RouteTable;
use serde::{Deserialize, Serialize};

use crate::control::Proof;
use crate::postgres::HeldLogin;
use crate::table::ListenKey;
use crate::tls::{Source, Texts};

/// Everything but the sockets themselves. Keys of certificates are in it: it never leaves the
/// control socket, which belongs to root, and no file is made of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Estate {
    /// The tables in force.
    pub(crate) tables: Vec<RouteTable>,
    /// The sockets, in the order in which they follow.
    pub(crate) sockets: Vec<SocketName>,
    /// The certificates in use.
    pub(crate) certificates: Vec<HeldCertificate>,
    /// What certificate authorities are shown.
    #[serde(default)]
    pub(crate) proofs: Vec<Proof>,
    /// Gates of databases.
    #[serde(default)]
    pub(crate) gates: Vec<HeldGate>,
    /// Whether it can be asked afterwards how its gates are.
    #[serde(default)]
    pub(crate) tells_gates: bool,
}

/// Who may log in to a database.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HeldGate {
    pub(crate) stack: StackName,
    pub(crate) component: ComponentId,
    pub(crate) login: HeldLogin,
}

/// What one descriptor is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SocketName {
    /// The lock of the root.
    Lock,
    /// The control socket.
    Control,
    /// The listener of an endpoint, for connections or datagrams.
    Endpoint(ListenKey),
    /// Inside a network: the listener for all services.
    Services(InstanceId),
    /// The same for names over TCP.
    NamesTcp(InstanceId),
    /// The same for names over UDP.
    NamesUdp(InstanceId),
}

/// A certificate as it is used.
#[derive(Serialize, Deserialize)]
pub(crate) struct HeldCertificate {
    #[serde(rename = "files")]
    pub(crate) source: Source,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for HeldCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("HeldCertificate")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl HeldCertificate {
    pub(crate) fn texts(&self) -> Texts {
        Texts { certificate: self.certificate.clone(), key: self.key.clone() }
    }
}

/// Sockets that another process had, by what they are. What is not taken out is closed.
#[derive(Debug, Default)]
pub(crate) struct Inherited(BTreeMap<SocketName, OwnedFd>);

impl Inherited {
    pub(super) fn new(names: Vec<SocketName>, descriptors: Vec<OwnedFd>) -> Self {
        Self(names.into_iter().zip(descriptors).collect())
    }

    pub(crate) fn take(&mut self, name: &SocketName) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    /// A listener for connections.
    pub(crate) fn tcp(&mut self, name: &SocketName) -> Option<TcpListener> {
        self.take(name).map(TcpListener::from)
    }

    /// A socket for datagrams.
    pub(crate) fn udp(&mut self, name: &SocketName) -> Option<UdpSocket> {
        self.take(name).map(UdpSocket::from)
    }
}
