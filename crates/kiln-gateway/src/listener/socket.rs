//! Socket options, in one place.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// Dead peers are noticed after this time of silence plus six probes of ten seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

/// How long sent bytes may go unacknowledged or unread, in milliseconds.
const UNREAD_MS: u32 = 300_000;

/// A TCP socket in the process's own namespace.
pub(crate) fn host_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// A UDP socket at an address of the host.
pub(crate) fn host_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds a socket and listens. `SO_REUSEADDR` lets it take a port on which old connections
/// still linger, never one on which somebody listens.
pub(crate) fn listen(socket: OwnedFd, address: SocketAddr) -> io::Result<TcpListener> {
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Listens on a port that `holder`, a socket of this process, has at an overlapping address
/// (`0.0.0.0` and `127.0.0.1`, say). Both may share it only for the moment of binding.
pub(crate) fn listen_beside(
    holder: &TcpListener,
    socket: OwnedFd,
    address: SocketAddr,
) -> io::Result<TcpListener> {
    sockopt::set_socket_reuseport(holder, true)?;
    let bound = sockopt::set_socket_reuseport(&socket, true)
        .map_err(io::Error::from)
        .and_then(|()| listen(socket, address));
    sockopt::set_socket_reuseport(holder, false)?;
    let listener = bound?;
    sockopt::set_socket_reuseport(&listener, false)?;
    Ok(listener)
}

/// What every proxied connection wants: no delay of small packets, and dead peers noticed.
/// A connection that is already broken says so at its next read.
pub(crate) fn tune(stream: &impl AsFd) {
    let _ = sockopt::set_tcp_nodelay(stream, true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
}

/// Ends a connection whose client takes nothing of what is sent for five minutes.
pub(crate) fn limit_unread(stream: &impl AsFd) {
    let _ = sockopt::set_tcp_user_timeout(stream, UNREAD_MS);
}

/// Makes the coming close of the connection a reset, so that the client sees a failure and not
/// the orderly end of a short answer.
pub(crate) fn reset_on_close(stream: &impl AsFd) {
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Where the client wanted to go before a rule redirected the connection.
///
/// Without a rule the kernel knows of none; then the client connected straight to the
/// listener's own address, and that is the destination.
pub(crate) fn original_destination(stream: &std::net::TcpStream) -> io::Result<SocketAddrV4> {
    if let Ok(original) = sockopt::ip_original_dst(stream) {
        return Ok(original);
    }
    match stream.local_addr()? {
        SocketAddr::V4(local) => Ok(local),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}
