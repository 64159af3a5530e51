//! A netlink socket, which talks about the namespace in which it was made.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use kiln_netns::Namespace;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt,
};

use super::batch::{Batch, Message, messages};
use super::{Attributes, Refused, attributes, text};

/// Message types below the protocols' own.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Asks for all objects of a kind.
const DUMP: u16 = 0x300;
/// What is listed has changed meanwhile: the list may be torn.
const DUMP_INTERRUPTED: u16 = 0x10;
/// The answer holds no copy of the request, and attributes follow its header.
const CAPPED: u16 = 0x100;
const HAS_ATTRIBUTES: u16 = 0x200;
/// The attribute with the kernel's words.
const ERROR_TEXT: u16 = 1;
/// `SOL_NETLINK` and its options: no copy of the request in answers, and words in errors.
const SOL_NETLINK: libc::c_int = 270;
const CAP_ACK: libc::c_int = 10;
const EXT_ACK: libc::c_int = 11;

/// The largest batch: a map of services with some ten thousand entries.
const SEND_BUFFER_BYTES: usize = 4 << 20;
/// Answers are at most a page or 32 KiB, whichever is larger.
const RECEIVE_BYTES: usize = 32 << 10;
/// For how long a list that has changed while it was read is read again. One attempt takes well
/// below a millisecond, so it takes a storm of changes to tear every one of them.
const DUMP_PATIENCE: Duration = Duration::from_secs(5);

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Interfaces, addresses and routes.
    Route,
    /// Packet filters.
    Netfilter,
}

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open(protocol: Protocol) -> Result<Self, Refused> {
        let number = match protocol {
            // `NETLINK_ROUTE` is protocol 0, the default.
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
        };
        let fail = |source: rustix::io::Errno| Refused::new("open a netlink socket", source);
        let flags = SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, number).map_err(fail)?;
        for option in [CAP_ACK, EXT_ACK] {
            set_flag(&socket, option)
                .map_err(|source| Refused::new("set up a netlink socket", source))?;
        }
        if protocol == Protocol::Netfilter {
            sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER_BYTES).map_err(fail)?;
        }
        Ok(Self { socket, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Opens a socket in `namespace`.
    pub(crate) fn open_in(namespace: &Namespace, protocol: Protocol) -> Result<Self, Refused> {
        let entered = namespace.enter(|| Self::open(protocol));
        entered.map_err(|source| Refused::new("enter a network's namespace", into_io(source)))?
    }

    /// Opens a socket for interfaces and one for packet filters in `namespace`.
    pub(crate) fn both_in(namespace: &Namespace) -> Result<(Self, Self), Refused> {
        let entered = namespace
            .enter(|| Ok((Self::open(Protocol::Route)?, Self::open(Protocol::Netfilter)?)));
        entered.map_err(|source| Refused::new("enter a network's namespace", into_io(source)))?
    }

    /// Index of the interface of that name, in the socket's namespace.
    pub(crate) fn interface(&self, name: &str) -> Option<u32> {
        rustix::net::netdevice::name_to_index(&self.socket, name).ok()
    }

    /// Sends the batch and waits for all its acknowledgements. The first refusal is the error.
    pub(crate) fn execute(&mut self, batch: &Batch) -> Result<(), Refused> {
        let mut due = batch.acknowledgements();
        self.send(batch)?;
        let mut refused = None;
        while due > 0 && refused.is_none() {
            // The kernel has worked through the batch within `send`: all answers are there.
            let received = match recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(source) => {
                    let what = batch.whats.last().copied().unwrap_or("talk to the kernel");
                    return Err(Refused::new(what, source));
                }
            };
            for answer in messages(&self.buffer[..received]) {
                if answer.kind == ERROR {
                    due = due.saturating_sub(1);
                    let error = outcome(&answer, &batch.whats).err();
                    refused = refused.or(error);
                }
            }
        }
        if refused.is_some() {
            self.discard();
        }
        refused.map_or(Ok(()), Err)
    }

    /// Lists all objects of a kind, or those that the attributes from `fill` choose; `each` turns
    /// an answer's type and payload into an item, or skips it.
    pub(crate) fn dump<T>(
        &mut self,
        what: &'static str,
        kind: u16,
        header: &[u8],
        fill: impl Fn(&mut Attributes<'_>),
        each: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refused> {
        let begun = Instant::now();
        loop {
            let mut batch = Batch::default();
            batch.push(what, kind, DUMP, header, &fill);
            self.send(&batch)?;
            if let Some(list) = self.read_dump(&batch, &each)? {
                return Ok(list);
            }
            if begun.elapsed() > DUMP_PATIENCE {
                return Err(Refused::new(what, rustix::io::Errno::AGAIN));
            }
        }
    }

    /// Asks for one object and gives the answer's payload to `read`.
    pub(crate) fn get<T>(
        &mut self,
        what: &'static str,
        kind: u16,
        header: &[u8],
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Refused> {
        let mut batch = Batch::default();
        batch.push(what, kind, 0, header, |_| ());
        self.send(&batch)?;
        let received = rustix::io::retry_on_intr(|| {
            recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT)
        });
        let (length, _) = received.map_err(|source| Refused::new(what, source))?;
        match messages(&self.buffer[..length]).next() {
            Some(answer) if answer.kind == ERROR => {
                outcome(&answer, &batch.whats)?;
                Ok(None)
            }
            Some(answer) => Ok(read(answer.payload)),
            None => Ok(None),
        }
    }

    /// The list, or `None` when it has changed meanwhile.
    fn read_dump<T>(
        &mut self,
        batch: &Batch,
        each: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Refused> {
        let mut list = Vec::new();
        let mut whole = true;
        loop {
            let length = match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(source) => return Err(Refused::new(batch.whats[0], source)),
            };
            for answer in messages(&self.buffer[..length]) {
                whole &= answer.flags & DUMP_INTERRUPTED == 0;
                match answer.kind {
                    DONE => return Ok(whole.then_some(list)),
                    ERROR => outcome(&answer, &batch.whats)?,
                    kind => list.extend(each(kind, answer.payload)),
                }
            }
        }
    }

    fn send(&self, batch: &Batch) -> Result<(), Refused> {
        let what = batch.whats.first().copied().unwrap_or("talk to the kernel");
        rustix::io::retry_on_intr(|| send(&self.socket, &batch.bytes, SendFlags::empty()))
            .map(drop)
            .map_err(|source| Refused::new(what, source))
    }

    /// Drops the answers that are left after a refusal.
    fn discard(&mut self) {
        while recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT).is_ok() {}
    }
}

/// What an acknowledgement says.
fn outcome(answer: &Message<'_>, whats: &[&'static str]) -> Result<(), Refused> {
    let code = answer.payload.get(..4).and_then(|code| code.try_into().ok());
    let code = code.map_or(-libc::EBADMSG, i32::from_ne_bytes);
    if code == 0 {
        return Ok(());
    }
    let index = usize::try_from(answer.sequence).unwrap_or(usize::MAX);
    let what = whats.get(index).copied().unwrap_or("carry out a request");
    let detail = (answer.flags & HAS_ATTRIBUTES != 0).then(|| words(answer)).flatten();
    Err(Refused { what, detail, source: io::Error::from_raw_os_error(-code) })
}

/// The kernel's words, which follow its code and the (whole or capped) request.
fn words(answer: &Message<'_>) -> Option<String> {
    const CODE_BYTES: usize = 4;
    let request = answer.payload.get(CODE_BYTES..)?;
    let length = if answer.flags & CAPPED == 0 {
        usize::try_from(super::u32_host(request.get(..4)?)?).ok()?.next_multiple_of(4)
    } else {
        super::batch::HEADER_BYTES
    };
    let (_, value) = attributes(request.get(length..)?).find(|(kind, _)| *kind == ERROR_TEXT)?;
    Some(text(value))
}

fn set_flag(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).expect("four bytes");
    // SAFETY: the kernel reads `length` bytes of `on`, which outlives the call.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), SOL_NETLINK, option, (&raw const on).cast(), length)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn into_io(error: kiln_netns::Error) -> io::Error {
    io::Error::new(error.kind(), error)
}
