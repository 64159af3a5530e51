//! The messages on the control socket.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use kiln_model::analysis::Answers;
use kiln_model::certificate::SecretKey;
use kiln_model::data::ObservedGate;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::route::RouteTable;
use serde::{Deserialize, Serialize};

use crate::handover::Estate;

/// The version of the protocol. Both sides must have the same one.
pub const PROTOCOL: u32 = 1;

/// A message with the version of the protocol that it is written in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) protocol: u32,
    #[serde(flatten)]
    pub(crate) message: T,
}

/// What the daemon asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Replace the table of one stack.
    SetTable {
        table: RouteTable,
        #[serde(default)]
        keys: Keys,
    },
    /// Show certificate authorities these proofs and no others.
    SetProofs { proofs: Vec<Proof> },
    /// Tell everything.
    Status,
    /// Tell what is asked of servers and what their instances answer, and nothing else.
    Traffic,
    /// End all that is in flight to an instance.
    Sever { instance: InstanceId },
    /// Send events until the connection is closed.
    Watch,
    /// Hand everything over to the process that asks, which speaks this version of the
    /// hand-over (see [`crate::handover`]).
    HandOver { version: u32 },
}

/// What the gateway answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    Applied(Applied),
    Status(Box<Status>),
    Traffic(Box<Traffic>),
    /// What was in flight to the severed instance has ended, or had `left` units left when the
    /// wait for that was given up.
    Severed {
        left: u32,
    },
    Watching,
    /// Certificate authorities are shown what was given.
    Proving,
    /// What is handed over; descriptors follow.
    Estate(Box<Estate>),
    Refused {
        refusal: Refusal,
    },
}

/// Private keys that no file holds, by the version of the secret whose value each is. They come
/// beside a table, never in it: they are kept in memory, handed over from process to process, and
/// told to nobody.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Keys(BTreeMap<String, String>);

impl Keys {
    /// The value of a secret that a table names.
    pub(crate) fn of(&self, key: &SecretKey) -> Option<&str> {
        self.0.get(key.version.as_ref()?).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Keys {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// What proves to a certificate authority that a host is ours (RFC 8737).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The host.
    pub name: String,
    /// A certificate for it that holds the answer, in PEM.
    pub certificate: String,
    /// Its private key, in PEM.
    pub key: String,
}

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Proof").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A table is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Where each of the stack's endpoints listens, in the order of the table.
    pub bound: Vec<Bound>,
    /// Instances of any stack that are in no table and still have something in flight, with
    /// how much. Each is followed by [`Event::Drained`].
    pub draining: BTreeMap<InstanceId, u32>,
}

/// An endpoint's listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The endpoint.
    pub component: ComponentId,
    /// The address in the table.
    pub listen: SocketAddr,
    /// The address in use; differs where the port in the table is 0.
    pub address: SocketAddr,
}

/// Everything that the gateway knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of Kiln.
    pub version: String,
    /// What tells its program from others (see [`crate::build_of`]).
    #[serde(default)]
    pub build: String,
    /// The gateway's process.
    pub pid: u32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Connections of clients that are open now, idle ones included.
    pub client_connections: usize,
    /// The tables in force, in the order of their stacks.
    pub tables: Vec<RouteTable>,
    /// Endpoints of all stacks, in the order of stack and component.
    pub endpoints: Vec<EndpointStatus>,
    /// Every instance that is in a table or has something in flight, in the order of ids.
    pub instances: Vec<InstanceTraffic>,
    /// Gates of databases, in the order of stack and component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabaseStatus>,
}

/// The gate of one database. Instants are those of this machine's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// The stack.
    pub stack: StackName,
    /// The epoch of the table that it follows.
    pub epoch: u64,
    /// How it is, sessions in processes before this one included.
    #[serde(flatten)]
    pub gate: ObservedGate,
}

/// What is asked of servers and what their instances answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// What comes for each server, in the order of stack and component.
    pub servers: Vec<ServerTraffic>,
    /// What instances do, as in [`Status::instances`].
    pub instances: Vec<InstanceTraffic>,
}

/// What has come for a server, by endpoints and by its stable address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTraffic {
    /// The stack.
    pub stack: StackName,
    /// The server.
    pub component: ComponentId,
    /// Requests (connections, where they are not HTTP), answered or not. It only grows.
    pub arrived: u64,
    /// Those that no instance answered. It only grows.
    pub refused: u64,
    /// Those that wait for an instance now.
    pub waiting: u64,
}

/// One endpoint, its listener and counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// The stack.
    pub stack: StackName,
    /// The endpoint's listener.
    #[serde(flatten)]
    pub bound: Bound,
    /// What it has done.
    #[serde(flatten)]
    pub counters: EndpointCounters,
    /// The same for each of its routes, its own first.
    #[serde(default)]
    pub routes: Vec<RouteStatus>,
    /// Its certificates, in the order of the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
}

/// A certificate of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its file, or the name that it is issued for.
    pub title: String,
    /// When the one in use ends, in seconds since 1970-01-01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    /// Whether there is none yet: clients that ask for its name are refused.
    #[serde(default)]
    pub awaited: bool,
    /// Why what is there now is not used; the one before, if there is one, stays in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// One route of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The host that requests are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What their path begins with; empty for the endpoint's own route.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The component that serves them.
    pub to: ComponentId,
    /// What it has done.
    #[serde(flatten)]
    pub counters: EndpointCounters,
}

/// What an endpoint has done since the gateway started or the endpoint was made. Each number
/// only grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounters {
    /// HTTP requests received.
    pub requests: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Responses by class, 1xx to 5xx, the gateway's own included.
    pub responses: [u64; 5],
    /// Requests and TCP connections that no instance answered.
    pub errors: u64,
    /// Requests and connections that are going on now. Unlike the others it falls as well.
    #[serde(default)]
    pub in_flight: u64,
    /// Requests and connections that wait for an instance now. It falls as well.
    #[serde(default)]
    pub waiting: u64,
    /// HTTP requests by the time until the response's head: bucket `n` counts those below
    /// 2^n microseconds and not in a lower bucket; the last one has no upper end.
    pub latency_us_log2: Vec<u64>,
    /// The sum of these times, microseconds.
    #[serde(default)]
    pub latency_us: u64,
}

/// What one instance has in flight, from endpoints and services together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTraffic {
    /// The instance.
    pub instance: InstanceId,
    /// HTTP requests.
    pub requests: u32,
    /// TCP connections and upgraded HTTP connections.
    pub connections: u32,
    /// Whether it is in no table any more.
    pub draining: bool,
    /// What it has answered to HTTP requests since it was first named by a table; `requests`
    /// above is what is in flight.
    #[serde(default)]
    pub answers: Answers,
}

/// Something happened. Events start with the subscription: read the status after subscribing
/// to know what was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An instance that is in no table has nothing in flight any more.
    Drained {
        /// The instance.
        instance: InstanceId,
    },
    /// An instance in a table did not take a connection; it is passed over for a short time.
    ConnectFailed {
        /// The instance.
        instance: InstanceId,
        /// Where it was tried; port 0 stands for a port that the client named.
        address: SocketAddrV4,
        /// The reason.
        error: String,
    },
    /// An instance failed several requests in a row; it is passed over for this time.
    Faulty {
        /// The instance.
        instance: InstanceId,
        /// Where it was asked.
        address: SocketAddrV4,
        /// For how long, milliseconds.
        pause_ms: u64,
    },
    /// The table of a stack was set, by whomever.
    Routed {
        /// The stack.
        stack: StackName,
        /// The table's epoch.
        epoch: u64,
    },
    /// Something waits for the first instance of a server that has none.
    Asked {
        /// The stack.
        stack: StackName,
        /// The server.
        component: ComponentId,
    },
    /// Clients of a database are held and nothing that they asked is under way any more.
    Settled {
        /// The stack.
        stack: StackName,
        /// The database.
        component: ComponentId,
    },
    /// An instance of a database has closed a client's connection without having been told to.
    Lost {
        /// The stack.
        stack: StackName,
        /// The database.
        component: ComponentId,
        /// The instance.
        instance: InstanceId,
    },
    /// All clients of a database that had been held ask an instance again.
    Released {
        /// The stack.
        stack: StackName,
        /// The database.
        component: ComponentId,
        /// The instance.
        instance: InstanceId,
    },
    /// The reader was too slow and has missed this many events; the status tells the truth.
    Missed {
        /// How many.
        events: u64,
    },
}

/// Why the gateway does not do what it was asked. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// Somebody else listens there.
    #[error(
        "{component} cannot listen on {listen}: taken by {}; stop it or choose another `listen`",
        holder.as_deref().unwrap_or("a process that cannot be told")
    )]
    PortTaken {
        /// The endpoint.
        component: ComponentId,
        /// The address.
        listen: SocketAddr,
        /// Who holds it: an endpoint of a stack, or a process with its id.
        holder: Option<String>,
    },
    /// The address is not one of this machine's.
    #[error(
        "{component} cannot listen on {listen}: the machine has no such address; \
         see `ip address` for those that it has"
    )]
    AddressNotAvailable {
        /// The endpoint.
        component: ComponentId,
        /// The address.
        listen: SocketAddr,
    },
    /// The endpoint's socket could not be made for another reason.
    #[error("{component} cannot listen on {listen}: {error}")]
    CannotListen {
        /// The endpoint.
        component: ComponentId,
        /// The address.
        listen: SocketAddr,
        /// The kernel's reason.
        error: String,
    },
    /// The stack has a newer table.
    #[error(
        "table {offered} of stack {stack} is older than table {present} that is in force; \
         another daemon has set it"
    )]
    EpochTooOld {
        /// The stack.
        stack: StackName,
        /// The epoch in force.
        present: u64,
        /// The epoch that was refused.
        offered: u64,
    },
    /// The stack has another table of the same epoch.
    #[error("stack {stack} has another table with epoch {epoch} in force")]
    EpochTaken {
        /// The stack.
        stack: StackName,
        /// The epoch.
        epoch: u64,
    },
    /// A network instance's namespace cannot be opened.
    #[error(
        "the namespace of network {network} at {} cannot be opened: {error}; \
         the network has to be replaced", path.display()
    )]
    NamespaceMissing {
        /// The network instance.
        network: InstanceId,
        /// Where its namespace should be pinned.
        path: PathBuf,
        /// The kernel's reason.
        error: String,
    },
    /// A socket inside a network could not be made.
    #[error("cannot listen on {address} inside network {network}: {error}")]
    CannotListenInside {
        /// The network instance.
        network: InstanceId,
        /// The address there.
        address: SocketAddr,
        /// The kernel's reason.
        error: String,
    },
    /// A certificate or key cannot be used.
    #[error(
        "{component} cannot use the certificate {certificate}: {error}; the files must be \
         readable by the gateway and belong together"
    )]
    Certificate {
        /// The endpoint.
        component: ComponentId,
        /// The certificate's file.
        certificate: String,
        /// What is wrong.
        error: String,
    },
    /// The value of a database's password was never told.
    #[error(
        "{component} cannot accept the password {secret}: its value did not come with the table \
         and none before had it; send the table with its keys"
    )]
    Password {
        /// The database.
        component: ComponentId,
        /// The secret.
        secret: ComponentId,
    },
    /// Another process has taken over and answers at the same socket.
    #[error("another process of the gateway has taken over; ask again")]
    HandedOver,
    /// The process that wants to take over speaks another version of the hand-over.
    #[error("the gateway hands over by version {ours}, not {theirs}; stop it to replace it")]
    HandOverVersion {
        /// The gateway's version.
        ours: u32,
        /// The other process's version.
        theirs: u32,
    },
    /// The gateway has decided to end; another one is to be started.
    #[error("the gateway is shutting down; start another one")]
    Ending,
    /// The other side speaks another version.
    #[error("the gateway speaks version {ours} of its protocol, not {theirs}; upgrade the older")]
    Version {
        /// The gateway's version.
        ours: u32,
        /// The client's version.
        theirs: u32,
    },
    /// The message cannot be understood.
    #[error("the message cannot be understood: {error}")]
    Malformed {
        /// What is wrong with it.
        error: String,
    },
}
