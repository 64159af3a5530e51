//! What the kernel tells by itself of a namespace: that interfaces, addresses, routes or packet
//! filters have changed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_netns::Namespace;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
};

/// Groups of `NETLINK_ROUTE`, as bits (`linux/rtnetlink.h`): interfaces, hardware addresses bound
/// to ports, IPv4 addresses and routes.
const ROUTE_GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40;
/// The group of `NETLINK_NETFILTER` for packet filters (`NFNLGRP_NFTABLES`, 7), as a bit.
const FILTER_GROUP: u32 = 1 << 6;

/// Hears of changes in one namespace. It keeps the namespace for as long as it is there.
#[derive(Debug)]
pub(crate) struct Listener {
    route: OwnedFd,
    filter: OwnedFd,
}

impl Listener {
    /// Listens in `namespace` from now on.
    pub(crate) fn new(namespace: &Namespace) -> io::Result<Self> {
        namespace
            .enter(|| Ok(Self { route: open(None)?, filter: open(Some(netlink::NETFILTER))? }))
            .map_err(io::Error::other)?
    }

    /// What is to be waited on.
    pub(crate) fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.route.as_fd(), self.filter.as_fd()]
    }

    /// Takes what was told, however much; whether it was anything. What got lost, because it came
    /// too fast, was something too.
    pub(crate) fn hear(&self) -> bool {
        let mut heard = false;
        let mut buffer = [0; 256];
        for socket in self.sockets() {
            // A flood is left for the next time.
            for _ in 0..4096 {
                match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                    Ok(_) | Err(Errno::NOBUFS) => heard = true,
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        heard
    }
}

fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<OwnedFd> {
    let groups = if protocol.is_some() { FILTER_GROUP } else { ROUTE_GROUPS };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}
