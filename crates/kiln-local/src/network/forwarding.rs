//! Whether the host passes packets on between its interfaces.
//!
//! Egress needs it. Where it is off, Kiln turns it on, and leaves a table of rules whose presence
//! says so: it keeps the interfaces that the host had then as separate as they were before. When
//! the last network with egress goes, of any root, both are taken back.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use kiln_netns::Namespace;

use super::attach::unless_absent;
use super::error::{About, Error};
use super::name::{FORWARDING_TABLE, HOST_PREFIX};
use super::netlink::{Protocol, Socket};
use super::nft::{self, Family, Transaction};
use super::rtnl::link;
use super::{rules, sysctl};

/// How long another process may hold the lock.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);
/// What errors name: the host is nobody's network.
const SUBJECT: &str = "the host's forwarding";

/// The right to change links and forwarding of the host, against other processes of any root.
///
/// It is an abstract socket in the host's namespace: the kernel frees it with its holder.
pub(super) struct HostLock {
    _socket: UnixDatagram,
}

impl HostLock {
    pub(super) fn take(host: &Namespace) -> Result<Self, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let bound = host.enter(|| {
                SocketAddr::from_abstract_name(FORWARDING_TABLE)
                    .and_then(|name| UnixDatagram::bind_addr(&name))
            });
            match bound.about(SUBJECT)? {
                Ok(socket) => return Ok(Self { _socket: socket }),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(setting(error));
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(Error::Busy { seconds: PATIENCE.as_secs() });
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// Turns forwarding on where it is off. Says whether it was.
pub(super) fn turn_on(host: &Namespace, _lock: &HostLock) -> Result<bool, Error> {
    if host.enter(|| sysctl::read(sysctl::FORWARD)).about(SUBJECT)?.as_deref() == Some("1") {
        return Ok(false);
    }
    let mut route = Socket::open_in(host, Protocol::Route).about(SUBJECT)?;
    let links = link::links(&mut route).about(SUBJECT)?;
    let table = rules::forwarding_table(links.iter().map(|link| link.name.as_str()));
    let mut filter = Socket::open_in(host, Protocol::Netfilter).about(SUBJECT)?;
    // A table that is left although forwarding is off is stale: somebody else turned it off.
    delete_table(&mut filter)?;
    Transaction::new().add_table(&table).commit(&mut filter).about(SUBJECT)?;
    host.enter(|| sysctl::write(sysctl::FORWARD, "1")).about(SUBJECT)?.map_err(setting)?;
    Ok(true)
}

/// Turns forwarding off where Kiln has turned it on and no network needs it any more.
pub(super) fn restore(host: &Namespace, _lock: &HostLock) -> Result<(), Error> {
    let mut filter = Socket::open_in(host, Protocol::Netfilter).about(SUBJECT)?;
    let names = nft::list::names(&mut filter).about(SUBJECT)?;
    let ours = |name: &&String| name.starts_with(&format!("{HOST_PREFIX}-"));
    let ours: Vec<&String> = names.iter().map(|(_, name)| name).filter(ours).collect();
    if ours != [FORWARDING_TABLE] {
        return Ok(());
    }
    host.enter(|| sysctl::write(sysctl::FORWARD, "0")).about(SUBJECT)?.map_err(setting)?;
    delete_table(&mut filter)
}

fn delete_table(filter: &mut Socket) -> Result<(), Error> {
    let delete = Transaction::new().delete_table(Family::Ip, FORWARDING_TABLE);
    unless_absent(delete.commit(filter)).about(SUBJECT)
}

fn setting(source: io::Error) -> Error {
    Error::Setting {
        network: "the host".to_owned(),
        setting: "net.ipv4.ip_forward".to_owned(),
        value: "1 (or back)".to_owned(),
        source,
    }
}
