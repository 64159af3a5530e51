//! Who listens in a network namespace, read from the kernel (`proc_net_tcp` in the kernel's
//! Documentation/networking).

use std::fs;
use std::io;

/// The state of a socket that listens, `TCP_LISTEN` of `net/tcp_states.h`.
const LISTEN: &str = "0A";

/// Whether a socket listens at `port`, at any address, in the network of the process `pid`.
pub(super) fn listens(pid: i32, port: u16) -> io::Result<bool> {
    for table in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
            Ok(text) if listed(&text, port) => return Ok(true),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == "tcp6" => {}
            result => drop(result?),
        }
    }
    Ok(false)
}

fn listed(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1).and_then(|address| address.rsplit(':').next());
        let local = local.and_then(|port| u16::from_str_radix(port, 16).ok());
        local == Some(port) && fields.get(3) == Some(&LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn only_sockets_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   \
            1: 0100007F:0050 0100007F:C000 01 00000000:00000000\n";
        assert!(listed(table, 8080));
        assert!(!listed(table, 80) && !listed(table, 81));
        let six = "  sl  local_address\n 0: 00000000000000000000000000000000:0016 \
            00000000000000000000000000000000:0000 0A 0\n";
        assert!(listed(six, 22));
    }
}
