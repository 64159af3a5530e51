//! Attempts on processes, the network and what is shared with the host.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::files::path;
use super::{Attempt, Outcome, check, nothing};

pub(super) const ATTEMPTS: &[Attempt] = &[
    ("processes_of_the_host", processes_of_the_host),
    ("signal_the_host", signal_the_host),
    ("fork_bomb", fork_bomb),
    ("raw_socket", || socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    ("packet_socket", || socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    ("kernel_crypto_socket", || socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("vsock", || socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("bluetooth_socket", || socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 0)),
    ("add_an_address", add_an_address),
    ("drop_the_rules", drop_the_rules),
    ("metadata_service", || connect("169.254.169.254:80")),
    ("host_loopback", host_loopback),
    ("abstract_sockets_of_the_host", abstract_sockets),
    ("shared_memory_of_the_host", shared_memory),
    ("type_into_the_terminal", || {
        // SAFETY: TIOCSTI reads one byte, which is live.
        check(unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) }.into())?;
        Ok("a key was pressed".to_owned())
    }),
    ("more_open_files", more_open_files),
    ("lock_the_programs_file", lock_program),
];

/// Processes whose parent is not in sight, but for the main one.
fn processes_of_the_host() -> Outcome {
    let pids: BTreeSet<i32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for pid in pids.iter().filter(|pid| **pid != 1) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let parent: Option<i32> = parent.and_then(|text| text.trim().parse().ok());
        // It may have ended meanwhile.
        if parent.is_some_and(|parent| !pids.contains(&parent)) {
            return Ok(format!("process {pid} is not of this instance"));
        }
    }
    nothing("none in sight")
}

/// Whether any process besides those in sight can be signalled.
fn signal_the_host() -> Outcome {
    let mut last = io::Error::from_raw_os_error(libc::ESRCH);
    for pid in 2..4096 {
        if fs::metadata(format!("/proc/{pid}")).is_ok() {
            continue;
        }
        // SAFETY: signal 0 only asks.
        match check(unsafe { libc::kill(pid, 0) }.into()) {
            // One that was begun since the look is this instance's own.
            Ok(_) if fs::metadata(format!("/proc/{pid}")).is_ok() => {}
            Ok(_) => return Ok(format!("process {pid}")),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// As many processes as can be had, up to ten thousand.
fn fork_bomb() -> Outcome {
    let mut children = Vec::new();
    let refused = loop {
        if children.len() == 10_000 {
            break None;
        }
        // SAFETY: the child only waits to be ended.
        match unsafe { libc::fork() } {
            0 => unsafe {
                libc::pause();
                libc::_exit(0)
            },
            -1 => break Some(io::Error::last_os_error()),
            child => children.push(child),
        }
    };
    for child in &children {
        // SAFETY: both calls take the pid of a child that has not been waited for yet.
        unsafe {
            libc::kill(*child, libc::SIGKILL);
            libc::waitpid(*child, std::ptr::null_mut(), 0);
        }
    }
    refused.map_or_else(|| Ok(format!("{} processes", children.len())), Err)
}

fn socket(family: i32, kind: i32, protocol: i32) -> Outcome {
    // SAFETY: numbers only.
    check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }.into())?;
    Ok(format!("a socket of family {family}"))
}

/// Sends one netlink request; the error that the kernel answers with.
fn netlink(protocol: i32, request: &[u8]) -> io::Result<()> {
    // SAFETY: numbers only.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    check(fd.into())?;
    let mut answer = [0_u8; 4096];
    // SAFETY: both buffers are live and of the stated lengths.
    let received = unsafe {
        let flags = 0;
        check(libc::send(fd, request.as_ptr().cast(), request.len(), flags) as libc::c_long)?;
        check(libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), flags) as libc::c_long)?
    };
    // struct nlmsgerr behind the header of 16 bytes: the negated error, 0 where it was done.
    let error = answer.get(16..20).filter(|_| received >= 20);
    let error = error.and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-error)) }
}

/// A netlink message: its type and flags, and what is behind the header.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(0);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    // NLM_F_REQUEST | NLM_F_ACK
    bytes.extend((flags | 5).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// `RTM_NEWADDR` of 192.0.2.66/32 on interface 1.
fn add_an_address() -> Outcome {
    let mut body = vec![2, 32, 0, 0];
    body.extend(1_u32.to_ne_bytes());
    // An attribute of eight bytes: IFA_LOCAL.
    body.extend(8_u16.to_ne_bytes());
    body.extend(2_u16.to_ne_bytes());
    body.extend([192, 0, 2, 66]);
    netlink(libc::NETLINK_ROUTE, &message(20, 0x600, &body))?;
    Ok("an address".to_owned())
}

/// `NFT_MSG_DELTABLE` of every table, in a batch as `nf_tables` wants it.
fn drop_the_rules() -> Outcome {
    let subsystem = 10_u16 << 8;
    let begin = message(0x10, 0, &[0, 0, 0, 10]);
    let delete = message(subsystem | 2, 0, &[0, 0, 0, 0]);
    let end = message(0x11, 0, &[0, 0, 0, 10]);
    netlink(libc::NETLINK_NETFILTER, &[begin, delete, end].concat())?;
    Ok("no rules".to_owned())
}

fn connect(address: &str) -> Outcome {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    TcpStream::connect_timeout(&address, Duration::from_millis(300))?;
    Ok(format!("a connection to {address}"))
}

/// Services of the host: the ports that are often open there, at the network's first address.
fn host_loopback() -> Outcome {
    let routes = fs::read_to_string("/proc/net/route")?;
    let gateway = routes.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let gateway = u32::from_str_radix(words.get(2)?, 16).ok()?;
        (gateway != 0).then(|| std::net::Ipv4Addr::from(gateway.to_ne_bytes()))
    });
    let Some(gateway) = gateway else { return nothing("no way out") };
    let mut last = io::Error::from_raw_os_error(libc::ECONNREFUSED);
    for port in [22, 80, 443, 2375, 2376, 6443, 10250] {
        let address = SocketAddr::from((gateway, port));
        match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            Ok(_) => return Ok(format!("a connection to {address}")),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sockets without a path, which are shared with whoever has the same network.
fn abstract_sockets() -> Outcome {
    let sockets = fs::read_to_string("/proc/net/unix")?;
    let named = sockets.lines().find_map(|line| line.split_once(" @").map(|(_, name)| name));
    named.map_or_else(|| nothing("none in sight"), |name| Ok(format!("@{name}")))
}

/// Segments of System V shared memory that others have made.
fn shared_memory() -> Outcome {
    let segments = fs::read_to_string("/proc/sysvipc/shm")?;
    match segments.lines().nth(1) {
        None => nothing("none in sight"),
        Some(segment) => Ok(segment.trim().to_owned()),
    }
}

fn more_open_files() -> Outcome {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is live.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit).into())?;
        limit.rlim_max += 1;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit).into())?;
    }
    Ok("a higher limit".to_owned())
}

/// A mandatory hold on the file that runs, which others share.
fn lock_program() -> Outcome {
    let program = path("/kiln-probe");
    // SAFETY: the path is terminated.
    let fd = check(unsafe { libc::open(program.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) }.into())?;
    Ok(format!("descriptor {fd}"))
}
