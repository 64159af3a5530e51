//! Sockets made in another namespace, on the running kernel.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use kiln_netns::{Error, Namespace};

/// A fresh namespace with its loopback up, or `None` (and a line) where that is not permitted.
fn fresh(test: &str) -> Option<Namespace> {
    match Namespace::create() {
        Ok(namespace) => {
            namespace.enter(bring_loopback_up).unwrap().unwrap();
            Some(namespace)
        }
        Err(error) => {
            println!("skipped: {test}: {error}");
            None
        }
    }
}

fn bring_loopback_up() -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid, and the name fits with its terminator.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = libc::c_char::try_from(b'l').unwrap();
    request.ifr_name[1] = libc::c_char::try_from(b'o').unwrap();
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap();
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let answer = unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SIOCSIFFLAGS,
            &raw const request,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn any_port() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)
}

fn local(listener: &std::net::TcpListener) -> SocketAddrV4 {
    match listener.local_addr().unwrap() {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(_) => unreachable!("an IPv4 listener"),
    }
}

#[test]
fn a_connection_stays_inside_its_namespace() {
    let Some(inside) = fresh("a_connection_stays_inside_its_namespace") else { return };
    let listener = inside.tcp_listener(any_port(), 16).unwrap();
    listener.set_nonblocking(false).unwrap();
    let address = local(&listener);
    let mut client = inside.tcp_connect(address, Duration::from_secs(2)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.set_nonblocking(false).unwrap();
    server.set_nonblocking(false).unwrap();
    client.write_all(b"clay").unwrap();
    let mut word = [0; 4];
    server.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"clay");
    // The same address and port is still free at home: it is another loopback.
    let home = Namespace::of_process(std::process::id()).unwrap();
    home.tcp_listener(address, 1).unwrap();
}

#[test]
fn the_same_port_is_free_in_each_namespace_and_taken_in_one() {
    let name = "the_same_port_is_free_in_each_namespace_and_taken_in_one";
    let (Some(one), Some(other)) = (fresh(name), fresh(name)) else { return };
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53);
    let _held = one.udp_bound(address).unwrap();
    let _also = other.udp_bound(address).unwrap();
    let refused = one.clone().udp_bound(address).unwrap_err();
    assert!(matches!(refused, Error::Bind { .. }));
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn a_refused_connection_says_so() {
    let Some(inside) = fresh("a_refused_connection_says_so") else { return };
    let nobody = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
    let refused = inside.tcp_connect(nobody, Duration::from_secs(2)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn the_thread_comes_home_also_when_the_work_panics() {
    let Some(inside) = fresh("the_thread_comes_home_also_when_the_work_panics") else { return };
    let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let within = inside.enter(|| std::fs::read_link("/proc/thread-self/ns/net")).unwrap().unwrap();
    assert_ne!(before, within);
    let work = std::panic::AssertUnwindSafe(|| inside.enter(|| panic!("of the work inside")));
    assert!(std::panic::catch_unwind(work).is_err());
    assert_eq!(before, std::fs::read_link("/proc/thread-self/ns/net").unwrap());
}

#[test]
fn entering_nests_and_making_one_leaves_the_thread_where_it_was() {
    let name = "entering_nests_and_making_one_leaves_the_thread_where_it_was";
    let (Some(one), Some(other)) = (fresh(name), fresh(name)) else { return };
    let here = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let home = here();
    one.enter(|| {
        let outer = here();
        other.enter(|| assert_ne!(here(), outer)).unwrap();
        assert_eq!(here(), outer);
        Namespace::create().unwrap().enter(|| assert_ne!(here(), outer)).unwrap();
        assert_eq!(here(), outer);
    })
    .unwrap();
    assert_eq!(here(), home);
}

#[test]
fn what_is_no_namespace_is_refused() {
    let error = Namespace::open("/proc/self/status").unwrap_err();
    assert!(matches!(error, Error::NotANamespace { .. }));
    let error = Namespace::open("/nowhere/at/all").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn making_a_socket_is_cheap() {
    let Some(inside) = fresh("making_a_socket_is_cheap") else { return };
    let rounds = 2_000_u32;
    let start = Instant::now();
    for _ in 0..rounds {
        drop(inside.tcp_socket().unwrap());
    }
    let each = start.elapsed() / rounds;
    println!("a socket in a namespace, made and closed: {each:?}");
    assert!(each < Duration::from_millis(1), "{each:?}");
}
