//! The process connector: the kernel tells of programs that are executed and of processes that are
//! traced, anywhere on the machine. See `linux/cn_proc.h` and `linux/connector.h`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send,
    socket_with,
};

/// The connector's channel for processes: `CN_IDX_PROC` and `CN_VAL_PROC`.
const CHANNEL: [u32; 2] = [1, 1];
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// Kinds of events (`enum proc_cn_event`).
const EXEC: u32 = 0x2;
const PTRACE: u32 = 0x100;
/// Bytes of `struct nlmsghdr` and of `struct cn_msg`.
const NETLINK_HEADER: usize = 16;
const MESSAGE_HEADER: usize = 20;
/// `NLMSG_DONE`, which the connector's messages have for a type.
const DONE: u16 = 3;
/// Where an event's own part begins, behind its kind, processor and time.
const EVENT_HEADER: usize = 16;
/// How long the kernel may take to acknowledge.
const ANSWER: Duration = Duration::from_millis(200);

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// It has executed a program.
    Executed(i32),
    /// Another has begun to trace it.
    Traced { process: i32, tracer: i32 },
}

/// A subscription.
#[derive(Debug)]
pub(super) struct Connector {
    socket: OwnedFd,
}

impl Connector {
    /// Subscribes, where the kernel permits it.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::CONNECTOR);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, CHANNEL[0]))?;
        let connector = Self { socket };
        // Since Linux 6.6 the kinds can be chosen; before, a message of this length is passed over.
        for words in [&[LISTEN, EXEC | PTRACE][..], &[LISTEN]] {
            send(&connector.socket, &request(words), SendFlags::empty())?;
            if connector.is_acknowledged()? {
                return Ok(connector);
            }
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel does not answer"))
    }

    /// Whether the kernel has answered: any event will do.
    fn is_acknowledged(&self) -> io::Result<bool> {
        let limit = Timespec::try_from(ANSWER).unwrap_or_default();
        Ok(poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&limit))? > 0)
    }

    /// What has happened since this was last asked, and whether some of it got lost.
    pub(super) fn hear(&self) -> (Vec<Happening>, bool) {
        let (mut heard, mut lost) = (Vec::new(), false);
        let mut buffer = [0; 1024];
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => heard.extend(parse(&buffer[..length.min(buffer.len())])),
                Err(Errno::NOBUFS) => lost = true,
                Err(Errno::INTR) => {}
                Err(_) => return (heard, lost),
            }
        }
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn request(words: &[u32]) -> Vec<u8> {
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = NETLINK_HEADER + MESSAGE_HEADER + body.len();
    let mut bytes = u32::try_from(length).unwrap_or(0).to_ne_bytes().to_vec();
    bytes.extend(DONE.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(CHANNEL.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend([0; 8]);
    bytes.extend(u16::try_from(body.len()).unwrap_or(0).to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(body);
    bytes
}

/// One message holds one event.
fn parse(message: &[u8]) -> Option<Happening> {
    let event = message.get(NETLINK_HEADER + MESSAGE_HEADER..)?;
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(event.get(at..at + 4)?.try_into().ok()?))
    };
    let pid = |at: usize| i32::try_from(number(EVENT_HEADER + at)?).ok();
    match number(0)? {
        // Task and process.
        EXEC => Some(Happening::Executed(pid(4)?)),
        // Task and process, tracing task and process: 0 when the tracing ends.
        PTRACE => {
            let (process, tracer) = (pid(4)?, pid(12)?);
            (tracer != 0).then_some(Happening::Traced { process, tracer })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, words: [u32; 4]) -> Vec<u8> {
        let mut bytes = vec![0; NETLINK_HEADER + MESSAGE_HEADER];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; EVENT_HEADER - 4]);
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn events_are_told_apart() {
        assert_eq!(parse(&event(EXEC, [8, 7, 0, 0])), Some(Happening::Executed(7)));
        let traced = Happening::Traced { process: 7, tracer: 9 };
        assert_eq!(parse(&event(PTRACE, [8, 7, 10, 9])), Some(traced));
        assert_eq!(parse(&event(PTRACE, [8, 7, 0, 0])), None);
        assert_eq!(parse(&event(1, [8, 7, 9, 9])), None);
        assert_eq!(parse(&[0; 20]), None);
    }

    #[test]
    fn a_program_that_is_executed_is_heard_of() {
        let connector = match Connector::open() {
            Ok(connector) => connector,
            Err(error) => {
                println!("skipped: a_program_that_is_executed_is_heard_of: {error}");
                return;
            }
        };
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !connector.hear().0.contains(&Happening::Executed(pid)) {
            assert!(std::time::Instant::now() < deadline, "not heard of");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
