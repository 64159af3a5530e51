//! Who listens on a port, read from `/proc`, for the message that says so.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp` (`TCP_LISTEN`, `net/tcp_states.h`).
const LISTEN: &str = "0A";

/// The process that listens on `wanted` or on all addresses at its port, such as
/// `nginx (process 4711)`. `None` when it cannot be found out, for example because the
/// process is in another pid namespace.
pub(crate) fn holder_of(wanted: SocketAddr) -> Option<String> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let inode = tables.into_iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| listening_inode(line, wanted))
    })?;
    process_with_socket(&inode)
}

/// The socket's inode, if the line is that of a listener that conflicts with `wanted`. The
/// format is that of the kernel's `Documentation/networking/proc_net_tcp.rst`.
fn listening_inode(line: &str, wanted: SocketAddr) -> Option<String> {
    let mut fields = line.split_ascii_whitespace();
    let local = parse_address(fields.nth(1)?)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let overlaps =
        local.ip() == wanted.ip() || local.ip().is_unspecified() || wanted.ip().is_unspecified();
    (state == LISTEN && local.port() == wanted.port() && overlaps).then(|| inode.to_owned())
}

/// An address as the kernel prints it: 32-bit words in the machine's order, in hexadecimal.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |n: usize| {
        let digits = address.get(n * 8..n * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn process_with_socket(inode: &str) -> Option<String> {
    let link = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if has_link(&entry.path().join("fd"), &link) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", name.trim()));
        }
    }
    None
}

fn has_link(directory: &Path, link: &str) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        let v4 = parse_address("0100007F:1F90").unwrap();
        assert_eq!(v4, "127.0.0.1:8080".parse().unwrap());
        let v6 = parse_address("00000000000000000000000001000000:0016").unwrap();
        assert_eq!(v6, "[::1]:22".parse().unwrap());
        assert_eq!(parse_address("xyz:0016"), None);
    }

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder_of(listener.local_addr().unwrap()).unwrap();
        assert!(holder.ends_with(&format!("(process {})", std::process::id())), "{holder}");
    }
}
