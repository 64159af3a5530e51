//! The sockets that the gateway, the resolver and health checks need.
//!
//! Every socket is close-on-exec and non-blocking.

use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{Error, Namespace};

impl Namespace {
    /// A TCP socket, neither bound nor connected.
    ///
    /// `TcpStream::from` turns it into what an asynchronous runtime's own socket takes over.
    pub fn tcp_socket(&self) -> Result<OwnedFd, Error> {
        self.socket(SocketType::STREAM, "TCP socket")
    }

    /// A TCP socket that has begun to connect to `address`; it turns writable when it has, or when
    /// it has failed (`TcpStream::take_error` tells).
    pub fn tcp_connecting(&self, address: SocketAddrV4) -> Result<TcpStream, Error> {
        let socket = self.tcp_socket()?;
        match net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
            Err(source) => Err(Error::Connect { address, source: source.into() }),
        }
    }

    /// A TCP connection to `address`, waited for at most `timeout`.
    pub fn tcp_connect(
        &self,
        address: SocketAddrV4,
        timeout: Duration,
    ) -> Result<TcpStream, Error> {
        let stream = self.tcp_connecting(address)?;
        let fail = |source| Error::Connect { address, source };
        if !wait_writable(&stream, timeout).map_err(|source| fail(source.into()))? {
            return Err(fail(std::io::ErrorKind::TimedOut.into()));
        }
        match stream.take_error() {
            Ok(None) => Ok(stream),
            Ok(Some(source)) | Err(source) => Err(fail(source)),
        }
    }

    /// A TCP listener at `address`; port 0 lets the kernel choose.
    pub fn tcp_listener(&self, address: SocketAddrV4, backlog: i32) -> Result<TcpListener, Error> {
        let socket = self.tcp_socket()?;
        let bind = |source: Errno| Error::Bind { address, source: source.into() };
        // Connections that linger from an earlier listener must not keep the address.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(bind)?;
        net::bind(&socket, &address).map_err(bind)?;
        net::listen(&socket, backlog).map_err(bind)?;
        Ok(TcpListener::from(socket))
    }

    /// A UDP socket bound to `address`; port 0 lets the kernel choose.
    pub fn udp_bound(&self, address: SocketAddrV4) -> Result<UdpSocket, Error> {
        let socket = self.socket(SocketType::DGRAM, "UDP socket")?;
        net::bind(&socket, &address)
            .map_err(|source| Error::Bind { address, source: source.into() })?;
        Ok(UdpSocket::from(socket))
    }

    fn socket(&self, kind: SocketType, what: &'static str) -> Result<OwnedFd, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        self.enter(|| net::socket_with(AddressFamily::INET, kind, flags, None))?
            .map_err(|source| Error::Socket { what, source: source.into() })
    }
}

/// Whether `stream` turned writable, or failed, before `timeout` had passed.
fn wait_writable(stream: &TcpStream, timeout: Duration) -> rustix::io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
