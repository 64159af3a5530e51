//! What the gateway is told: one immutable table per stack, replaced whole.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::certificate::SecretKey;
use crate::handling::Handling;
use crate::name::{ComponentId, InstanceId, StackName};
use crate::spec::database::Engine;

/// The port on which the gateway listens inside every network, and to which the network's
/// rules redirect connections to stable addresses.
pub const SERVICE_PORT: u16 = 15001;

/// All that the gateway does for one stack. It is swapped atomically: a request is served
/// wholly by one table, and a table of a lower epoch than the present one is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// The stack.
    pub stack: StackName,
    /// Greater than that of every table before it.
    pub epoch: u64,
    /// Listeners on the host, in the order of their components.
    pub endpoints: Vec<EndpointRoute>,
    /// Networks in which the gateway listens and answers names, in the order of their ids.
    pub networks: Vec<NetworkRoute>,
    /// Components of which some instances get a share of the traffic and no more, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<Split>,
    /// Databases, in the order of their components.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabaseRoute>,
}

/// Who answers for a database, and who may ask. Clients reach it where an endpoint's or service's
/// component is this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRoute {
    /// The database.
    pub component: ComponentId,
    /// Whose protocol its clients speak.
    pub engine: Engine,
    /// The one instance that answers. Without one all that is asked is held: nothing is under way
    /// at any instance once such a table is in force.
    pub primary: Option<InstanceId>,
    /// Whether clients are held between their transactions, as for a moment in which writes go
    /// over to another instance.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds: bool,
    /// The user as whom clients log in.
    pub user: String,
    /// The database's name in the protocol.
    pub database: String,
    /// The password: each of these versions of a secret is accepted. The values come beside the
    /// table.
    pub passwords: Vec<SecretKey>,
}

/// Instances of a component that get a share of its requests (of its connections, where they
/// are not HTTP), whoever asks; its other instances get the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The component.
    pub component: ComponentId,
    /// Those instances, in the order of their ids.
    pub instances: Vec<InstanceId>,
    /// Their share together, of a thousand.
    pub permille: u16,
}

/// How the bytes of a connection are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2 in the clear, told apart by the connection preface.
    Http,
    /// A database's own.
    Database,
    /// Bytes, passed on as they come.
    Tcp,
    /// HTTP where the client's first bytes look like it, else TCP.
    Auto,
    /// HTTP as above, and HTTP/2 in the clear to instances, as gRPC wants it.
    H2c,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Whether clients speak HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::H2c)
    }
}

/// A listener on the host and where its traffic goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRoute {
    /// The endpoint's component.
    pub component: ComponentId,
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// How connections are understood.
    pub protocol: Protocol,
    /// The component that serves it at present.
    pub to: ComponentId,
    /// Instances in rotation, in the order of their ids. Empty: requests are answered 503,
    /// connections are closed.
    pub backends: Vec<Backend>,
    /// Whether it has no instance while nobody asks for it: what comes then waits for the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sleeps: bool,
    /// Requests that go elsewhere, in the order of hosts and paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// How its traffic is handled.
    #[serde(flatten)]
    pub handling: Handling,
}

/// Requests for a host or below a path, and where they go (see
/// [`crate::spec::endpoint::Route`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The host in lower case, or `*.` and the end of one; none stands for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What the path begins with, in whole segments; empty for any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The component that serves it at present.
    pub to: ComponentId,
    /// Instances in rotation, in the order of their ids.
    pub backends: Vec<Backend>,
    /// Whether it has no instance while nobody asks for it: what comes then waits for the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sleeps: bool,
}

impl EndpointRoute {
    /// All backends, those of rules included.
    pub fn all_backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().chain(self.rules.iter().flat_map(|rule| &rule.backends))
    }
}

/// An instance in rotation, at one port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// The instance.
    pub instance: InstanceId,
    /// The network instance from whose namespace it is reached.
    pub network: InstanceId,
    /// Its address and port there.
    pub address: SocketAddrV4,
    /// Its share of the traffic relative to the other backends, 1 to 1000.
    pub weight: u16,
}

/// What the gateway does inside one network instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRoute {
    /// The network instance; its namespace is `ROOT/run/net/<id>`.
    pub network: InstanceId,
    /// The network's first address, where names are answered (UDP and TCP port 53).
    pub resolver: Ipv4Addr,
    /// Stable addresses that are reachable from inside.
    pub services: Vec<Service>,
    /// What each client's names mean, by the client's address. Others are refused.
    pub clients: BTreeMap<Ipv4Addr, Client>,
    /// Whether other names are asked of the host's resolvers (the network has egress).
    pub forward_names: bool,
}

/// What one client may resolve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Lower-case names without the final dot, and their addresses.
    pub names: BTreeMap<String, Ipv4Addr>,
}

/// One component, reached at its stable address from inside a client's network. Connections
/// arrive at [`SERVICE_PORT`]; their original destination says which service and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The component that is reached.
    pub component: ComponentId,
    /// Its stable address, as these clients know it.
    pub address: Ipv4Addr,
    /// The addresses that may connect, in order.
    pub clients: Vec<Ipv4Addr>,
    /// Ports that are known to speak HTTP (a health check or an endpoint says so).
    pub http_ports: Vec<u16>,
    /// Instances in rotation, in the order of their ids; the port is the client's.
    pub backends: Vec<ServiceBackend>,
    /// Whether it has no instance while nobody asks for it: what comes then waits for the first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sleeps: bool,
}

/// An instance behind a stable address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceBackend {
    /// The instance.
    pub instance: InstanceId,
    /// The network instance from whose namespace it is reached.
    pub network: InstanceId,
    /// Its address there.
    pub address: Ipv4Addr,
}

impl RouteTable {
    /// A table that routes nothing, older than all others.
    pub fn empty(stack: StackName) -> Self {
        let (endpoints, networks, splits, databases) = Default::default();
        Self { stack, epoch: 0, endpoints, networks, splits, databases }
    }

    /// Whether it gives the gateway nothing to do.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.networks.is_empty() && self.databases.is_empty()
    }

    /// Whether `other` routes the same, whatever its epoch.
    pub fn routes_as(&self, other: &Self) -> bool {
        self.stack == other.stack
            && self.endpoints == other.endpoints
            && self.networks == other.networks
            && self.splits == other.splits
            && self.databases == other.databases
    }

    /// The instances that may receive new traffic.
    pub fn in_rotation(&self) -> impl Iterator<Item = &InstanceId> {
        let endpoints = self.endpoints.iter().flat_map(EndpointRoute::all_backends);
        let endpoints = endpoints.map(|b| &b.instance);
        let services = self.networks.iter().flat_map(|n| &n.services);
        let services = services.flat_map(|s| &s.backends).map(|b| &b.instance);
        let databases = self.databases.iter().filter_map(|database| database.primary.as_ref());
        endpoints.chain(services).chain(databases)
    }
}
