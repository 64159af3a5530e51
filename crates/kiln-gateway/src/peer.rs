//! One instance at one port: how it is reached, and whether it lately could be.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use kiln_model::name::InstanceId;
use kiln_netns::Namespace;
use tokio::net::{TcpSocket, TcpStream};

use crate::clock::now_ms;
use crate::listener::socket;
use crate::load::Load;
use crate::pool::Pool;

/// How long a connection to an instance may take to be made. The kernel repeats a lost first
/// packet after one second; that one repetition is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long an instance is passed over after its first failed connection; doubled with
/// each further one.
const EJECTION_MS: u64 = 100;

/// The longest time for which an instance that takes no connections is passed over.
const EJECTION_LIMIT_MS: u64 = 5_000;

/// So many failures in a row, with no other answer between them, and an instance is passed
/// over. A failure is an answer of 500 to 599, or a connection that ended without an answer.
const FAULTS: u32 = 5;

/// For how long then, doubled each time until it has answered well.
const FAULTY_MS: u64 = 1_000;

/// The longest such time.
const FAULTY_LIMIT_MS: u64 = 30_000;

/// An instance at a port. It lives as long as a table names it or something is in flight to it.
#[derive(Debug)]
pub(crate) struct Peer {
    load: Arc<Load>,
    network: InstanceId,
    namespace: Arc<Namespace>,
    address: SocketAddrV4,
    failures: AtomicU32,
    /// Failed requests in a row.
    faults: AtomicU32,
    /// How often it was passed over for them in a row.
    suspensions: AtomicU32,
    /// By [`now_ms`]; 0 when it is not ejected.
    ejected_until: AtomicU64,
    pool: Pool,
}

impl Peer {
    /// With port 0 in `address`, each connection names its port.
    pub(crate) fn new(
        load: Arc<Load>,
        network: InstanceId,
        namespace: Arc<Namespace>,
        address: SocketAddrV4,
        workers: usize,
    ) -> Self {
        Self {
            load,
            network,
            namespace,
            address,
            failures: AtomicU32::new(0),
            faults: AtomicU32::new(0),
            suspensions: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            pool: Pool::new(workers),
        }
    }

    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// The network instance from which it is reached.
    pub(crate) fn network(&self) -> &InstanceId {
        &self.network
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A new connection to the instance, at `port` where its own address has none.
    pub(crate) async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let mut address = self.address;
        if address.port() == 0 {
            address.set_port(port);
        }
        let socket = self.namespace.tcp_socket().map_err(|e| io::Error::new(e.kind(), e))?;
        let stream = std::net::TcpStream::from(socket);
        let connecting = TcpSocket::from_std_stream(stream).connect(address.into());
        let connected = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(stream) => {
                if self.failures.swap(0, Relaxed) > 0 {
                    self.ejected_until.store(0, Relaxed);
                }
                socket::tune(&stream);
                Ok(stream)
            }
            Err(error) => {
                self.connect_failed(&error);
                Err(error)
            }
        }
    }

    /// Passes the instance over for a while and tells the daemon, once per ejection.
    pub(crate) fn connect_failed(&self, error: &io::Error) {
        let was_ejected = self.is_ejected();
        let failures = self.failures.fetch_add(1, Relaxed).min(16);
        let pause = (EJECTION_MS << failures).min(EJECTION_LIMIT_MS);
        self.ejected_until.store(now_ms() + pause, Relaxed);
        if !was_ejected {
            self.load.connect_failed(self.address, error);
        }
    }

    /// Notes how a request has gone.
    pub(crate) fn answered(&self, well: bool) {
        if well {
            // Looked at first: a store would take the word from other threads each time.
            if self.faults.load(Relaxed) > 0 {
                self.faults.store(0, Relaxed);
                self.suspensions.store(0, Relaxed);
            }
        } else if self.faults.fetch_add(1, Relaxed) + 1 >= FAULTS {
            self.faults.store(0, Relaxed);
            let times = self.suspensions.fetch_add(1, Relaxed).min(16);
            let pause = (FAULTY_MS << times).min(FAULTY_LIMIT_MS);
            self.ejected_until.store(now_ms() + pause, Relaxed);
            self.load.faulty(self.address, pause);
        }
    }

    /// A UDP socket that sends to the instance and hears it alone.
    pub(crate) fn datagrams(&self) -> io::Result<std::net::UdpSocket> {
        let any = SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);
        let socket = self.namespace.udp_bound(any).map_err(|e| io::Error::new(e.kind(), e))?;
        socket.connect(self.address)?;
        Ok(socket)
    }

    /// Whether it has failed a short time ago.
    pub(crate) fn is_ejected(&self) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until != 0 && now_ms() < until
    }
}

#[cfg(test)]
impl Peer {
    /// A peer in the namespace of the test itself.
    pub(crate) fn for_test(instance: &str) -> Self {
        let events = crate::events::Events::new();
        let load = Arc::new(Load::new(instance.parse().unwrap(), events));
        let namespace = Namespace::open("/proc/self/ns/net").unwrap();
        let network = "front-1".parse().unwrap();
        Self::new(load, network, Arc::new(namespace), "127.0.0.1:1".parse().unwrap(), 1)
    }
}
