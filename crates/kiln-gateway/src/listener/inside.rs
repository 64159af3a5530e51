//! What the gateway listens on inside a network: one port for all services, and names.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use kiln_model::name::InstanceId;
use kiln_model::route::SERVICE_PORT;
use kiln_netns::Namespace;
use tokio::sync::watch;

use crate::connection::{self, Door, Shared};
use crate::control::Refusal;
use crate::handover::{Inherited, SocketName};
use crate::listener::{Listener, Phase, socket};
use crate::resolver;
use crate::table::Network;

/// The port of the domain name system (RFC 1035, section 4.2).
const NAMES_PORT: u16 = 53;

/// The sockets of one network, bound and not yet used.
#[derive(Debug)]
pub(crate) struct BoundInside {
    services: TcpListener,
    names_tcp: TcpListener,
    names_udp: UdpSocket,
    namespace: Arc<Namespace>,
}

/// The running listeners of one network.
#[derive(Debug)]
pub(crate) struct Inside {
    services: Listener,
    names_tcp: Listener,
    names_udp: resolver::Datagrams,
    /// Kept open as long as the network is listed, for connections to its instances.
    _namespace: Arc<Namespace>,
}

impl BoundInside {
    /// The three sockets that another process had; `None` unless all are there.
    pub(crate) fn inherit(
        network: &Network,
        namespace: &Arc<Namespace>,
        inherited: &mut Inherited,
    ) -> Option<Self> {
        let id = || network.id.clone();
        Some(Self {
            services: inherited.tcp(&SocketName::Services(id()))?,
            names_tcp: inherited.tcp(&SocketName::NamesTcp(id()))?,
            names_udp: inherited.udp(&SocketName::NamesUdp(id()))?,
            namespace: Arc::clone(namespace),
        })
    }

    /// Binds all three sockets or none.
    pub(crate) fn bind(network: &Network, namespace: Arc<Namespace>) -> Result<Self, Refusal> {
        let services = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVICE_PORT);
        let names = SocketAddrV4::new(network.resolver, NAMES_PORT);
        let refused = |address: SocketAddrV4| {
            let network = network.id.clone();
            move |error: kiln_netns::Error| Refusal::CannotListenInside {
                network,
                address: address.into(),
                error: reason(&error),
            }
        };
        let tcp =
            |address| namespace.tcp_listener(address, socket::BACKLOG).map_err(refused(address));
        Ok(Self {
            services: tcp(services)?,
            names_tcp: tcp(names)?,
            names_udp: namespace.udp_bound(names).map_err(refused(names))?,
            namespace,
        })
    }

    /// Starts to accept and to answer.
    pub(crate) fn start(self, id: &InstanceId, shared: &Arc<Shared>) -> io::Result<Inside> {
        let runtime = shared.workers.first();
        let door = Door::Inside(id.clone());
        let for_services = Arc::clone(shared);
        let services = Listener::start(self.services, runtime, move |stream, remote, phase| {
            connection::accept(&for_services, &door, stream, remote, phase);
        })?;
        let names_tcp = Listener::start(self.names_tcp, runtime, {
            let (shared, network) = (Arc::clone(shared), id.clone());
            move |stream, remote, phase| {
                resolver::accept(&shared, &network, stream, remote, phase);
            }
        })?;
        let names_udp = resolver::Datagrams::start(self.names_udp, shared, id)?;
        Ok(Inside { services, names_tcp, names_udp, _namespace: self.namespace })
    }
}

impl Inside {
    /// Stops at once to accept and to answer; connections have until `bound` from now.
    pub(crate) fn close(self, bound: Duration) {
        self.services.close(bound);
        self.names_tcp.close(Duration::ZERO);
        self.names_udp.close();
    }

    /// Leaves the sockets to others. Returns what ends the connections earlier.
    pub(crate) fn leave(self, bound: Duration) -> [watch::Sender<Phase>; 2] {
        self.names_udp.leave();
        [self.services.leave(bound), self.names_tcp.leave(bound)]
    }

    /// Its sockets with what they are.
    pub(crate) fn sockets(&self, id: &InstanceId) -> io::Result<[(SocketName, OwnedFd); 3]> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
        Ok([
            (SocketName::Services(id.clone()), copy(self.services.socket().as_fd())?),
            (SocketName::NamesTcp(id.clone()), copy(self.names_tcp.socket().as_fd())?),
            (SocketName::NamesUdp(id.clone()), copy(self.names_udp.socket().as_fd())?),
        ])
    }
}

/// The kernel's reason, since the refusal names address and namespace itself.
fn reason(error: &kiln_netns::Error) -> String {
    let error: &dyn std::error::Error = error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
