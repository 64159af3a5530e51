//! Who asks: the process at the other end of the socket, as the kernel knows it.

use std::fs;
use std::io;

use kiln_engine::actor::Peer;
use tokio::net::UnixStream;

/// The login of a process that nobody has logged in for, as the kernel writes it.
const NO_LOGIN: u32 = u32::MAX;

/// The process that has connected. Its user and id are those of the moment when it did; what
/// `/proc` says of it is read now.
pub(super) fn of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    let pid = credentials.pid().unwrap_or(0);
    let proc = |name: &str| format!("/proc/{pid}/{name}");
    let program = fs::read_link(proc("exe")).unwrap_or_default();
    let login = fs::read_to_string(proc("loginuid")).ok();
    let login = login.and_then(|text| text.trim_end().parse().ok());
    Ok(Peer {
        uid: credentials.uid(),
        pid,
        program: program.to_string_lossy().into_owned(),
        login: login.filter(|login| *login != NO_LOGIN),
        terminal: fs::read_to_string(proc("stat")).ok().and_then(|stat| terminal(&stat)),
        follows: None,
    })
}

/// The terminal of a process, of its `stat` (proc(5)): the seventh field, a device number.
fn terminal(stat: &str) -> Option<String> {
    // The second field is a name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let device: u32 = rest.split_ascii_whitespace().nth(4)?.parse().ok()?;
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        0 => None,
        136..=143 => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        4 => Some(format!("tty{minor}")),
        _ => Some(format!("device {major}:{minor}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_named() {
        let stat = |device| format!("7 (a) b) c) S 1 7 7 {device} 9 0");
        assert_eq!(terminal(&stat(0)), None);
        assert_eq!(terminal(&stat(136 << 8 | 3)).as_deref(), Some("pts/3"));
        assert_eq!(terminal(&stat(4 << 8 | 1)).as_deref(), Some("tty1"));
    }
}
