//! The header of the PROXY protocol, version 2: who a connection comes from (`HAProxy`
//! Technologies, "The PROXY protocol", section 2.2).

use std::net::SocketAddr;

/// What each header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, on behalf of a client.
const PROXY: u8 = 0x21;

/// TCP over IPv4 and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection from `client` that was accepted at `local`.
pub(super) fn header(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (family, addresses) = match (canonical(client), canonical(local)) {
        (SocketAddr::V4(client), SocketAddr::V4(local)) => {
            (TCP4, [client.ip().octets(), local.ip().octets()].concat())
        }
        (client, local) => {
            let octets = |address: SocketAddr| match address {
                SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
                SocketAddr::V6(address) => address.ip().octets(),
            };
            (TCP6, [octets(client), octets(local)].concat())
        }
    };
    // Two addresses and two ports: at most 36 bytes.
    let length = u16::try_from(addresses.len() + 4).unwrap_or(u16::MAX);
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXY, family]);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header.extend(client.port().to_be_bytes());
    header.extend(local.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_written() {
        let v4 = header("10.0.0.7:1000".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        expected.extend([10, 0, 0, 7, 10, 0, 0, 1, 3, 0xe8, 0, 80]);
        assert_eq!(v4, expected);
        let v6 = header("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:80".parse().unwrap());
        assert_eq!((v6.len(), v6[13], v6[15]), (16 + 36, 0x21, 36));
        let mapped =
            header("[::ffff:10.0.0.7]:1000".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
        assert_eq!(mapped, v4);
    }
}
