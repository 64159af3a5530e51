//! Names to IPv4 addresses (RFC 1035): one A query over UDP to the resolvers of
//! `/etc/resolv.conf`.
//!
//! glibc's own resolver is no choice: statically linked it still loads shared libraries.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(1);
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const HEADER_LEN: usize = 12;

/// Why a name has no address.
#[derive(Debug)]
pub(crate) enum DnsError {
    /// `/etc/resolv.conf` is missing or names no resolver.
    NoResolver,
    /// The name can't be asked for.
    Name,
    /// The resolver could not be reached, or did not answer in time.
    Io(io::Error),
    /// The answer makes no sense.
    Malformed,
    /// The resolver refused, with its response code.
    Refused(u8),
    /// The name exists and has no address.
    Empty,
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoResolver => write!(f, "no resolver"),
            Self::Name => write!(f, "not a name"),
            Self::Io(error) if is_timeout(error) => write!(f, "timeout"),
            Self::Io(error) => write!(f, "{}", crate::errno::of(error)),
            Self::Malformed => write!(f, "malformed answer"),
            Self::Refused(2) => write!(f, "servfail"),
            Self::Refused(3) => write!(f, "nxdomain"),
            Self::Refused(5) => write!(f, "refused"),
            Self::Refused(code) => write!(f, "response code {code}"),
            Self::Empty => write!(f, "no address"),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The addresses of `name`, which may be an address itself.
pub(crate) fn resolve(name: &str) -> Result<Vec<Ipv4Addr>, DnsError> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    if name == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST]);
    }
    let mut last = DnsError::NoResolver;
    for resolver in resolvers() {
        match ask(resolver, name) {
            Err(error @ DnsError::Io(_)) => last = error,
            decided => return decided,
        }
    }
    Err(last)
}

fn resolvers() -> Vec<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next()?;
        words.next().filter(|_| keyword == "nameserver")?.parse::<IpAddr>().ok()
    });
    addresses.map(|address| SocketAddr::new(address, 53)).collect()
}

fn ask(resolver: SocketAddr, name: &str) -> Result<Vec<Ipv4Addr>, DnsError> {
    let any = if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(DnsError::Io)?;
    socket.connect(resolver).map_err(DnsError::Io)?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(DnsError::Io)?;
    // A connected socket on a fresh port hears its resolver only; the port tells queries apart.
    let id = socket.local_addr().map_err(DnsError::Io)?.port();
    let query = query(id, name)?;
    let mut answer = [0; 4096];
    let mut result = Err(DnsError::Malformed);
    for _ in 0..2 {
        socket.send(&query).map_err(DnsError::Io)?;
        match socket.recv(&mut answer) {
            Ok(length) => return addresses(id, &answer[..length]),
            Err(error) => result = Err(DnsError::Io(error)),
        }
    }
    result
}

/// A query for the A records of `name`.
fn query(id: u16, name: &str) -> Result<Vec<u8>, DnsError> {
    let mut query = Vec::with_capacity(HEADER_LEN + name.len() + 6);
    query.extend(id.to_be_bytes());
    // Recursion desired; one question; no records.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        query.push(length.ok_or(DnsError::Name)?);
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(TYPE_A.to_be_bytes());
    query.extend(CLASS_IN.to_be_bytes());
    if query.len() > HEADER_LEN + 255 + 4 { Err(DnsError::Name) } else { Ok(query) }
}

/// The A records of an answer.
fn addresses(id: u16, answer: &[u8]) -> Result<Vec<Ipv4Addr>, DnsError> {
    let mut reader = Reader { answer, at: 0 };
    let answered = reader.number()?;
    let flags = reader.number()?;
    if answered != id || flags & 0x8000 == 0 {
        return Err(DnsError::Malformed);
    }
    match flags & 0xF {
        0 => {}
        code => return Err(DnsError::Refused(u8::try_from(code).unwrap_or(u8::MAX))),
    }
    let (questions, records) = (reader.number()?, reader.number()?);
    reader.skip(4)?;
    for _ in 0..questions {
        reader.skip_name()?;
        reader.skip(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..records {
        reader.skip_name()?;
        let (kind, class) = (reader.number()?, reader.number()?);
        reader.skip(4)?;
        let length = usize::from(reader.number()?);
        let data = reader.skip(length)?;
        if let (TYPE_A, CLASS_IN, &[a, b, c, d]) = (kind, class, data) {
            found.push(Ipv4Addr::new(a, b, c, d));
        }
    }
    if found.is_empty() { Err(DnsError::Empty) } else { Ok(found) }
}

struct Reader<'a> {
    answer: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn skip(&mut self, length: usize) -> Result<&'a [u8], DnsError> {
        let bytes = self.answer.get(self.at..self.at + length).ok_or(DnsError::Malformed)?;
        self.at += length;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u16, DnsError> {
        self.skip(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Skips a name: labels up to an empty one, or up to a pointer to the rest.
    fn skip_name(&mut self) -> Result<(), DnsError> {
        loop {
            match self.skip(1)?[0] {
                0 => return Ok(()),
                length @ 1..=63 => self.skip(length.into())?,
                0xC0.. => return self.skip(1).map(|_| ()),
                _ => return Err(DnsError::Malformed),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer for `db` with an alias and two addresses.
    fn answer() -> Vec<u8> {
        let mut answer = query(7, "db").unwrap();
        answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 3]);
        answer.extend([0xC0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xC0, 12]);
        answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 5]);
        answer.extend([1, b'x', 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 6]);
        answer
    }

    #[test]
    fn addresses_are_found_behind_aliases_and_pointers() {
        let found = addresses(7, &answer()).unwrap();
        assert_eq!(found, [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 6)]);
    }

    #[test]
    fn a_resolver_is_asked_over_udp() {
        let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = resolver.local_addr().unwrap();
        let asked = std::thread::spawn(move || ask(address, "db"));
        let mut query = [0; 512];
        let (length, client) = resolver.recv_from(&mut query).unwrap();
        assert_eq!(&query[HEADER_LEN..length], b"\x02db\0\0\x01\0\x01");
        let mut reply = answer();
        reply[..2].copy_from_slice(&query[..2]);
        resolver.send_to(&reply, client).unwrap();
        assert_eq!(asked.join().unwrap().unwrap().len(), 2);
    }

    #[test]
    fn a_cut_or_foreign_answer_is_malformed() {
        let whole = answer();
        for length in 0..whole.len() {
            assert!(addresses(7, &whole[..length]).is_err(), "{length}");
        }
        assert!(matches!(addresses(8, &whole), Err(DnsError::Malformed)));
    }

    #[test]
    fn refusals_are_told_apart() {
        let mut refused = answer();
        for (code, text) in [(2, "servfail"), (3, "nxdomain"), (5, "refused")] {
            refused[3] = 0x80 | code;
            assert_eq!(addresses(7, &refused).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(query(1, "a.b.").unwrap()[12..], [1, b'a', 1, b'b', 0, 0, 1, 0, 1]);
        for name in ["", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
            assert!(matches!(query(1, name), Err(DnsError::Name)), "{name:?}");
        }
    }
}
