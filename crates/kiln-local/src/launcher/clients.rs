//! The launcher's connections: framing, bounded buffers, no waiting.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::protocol::{MAX_MESSAGE_BYTES, Message};

/// How much may wait for a client that does not read, in bytes; then it is cut off.
const MAX_BACKLOG_BYTES: usize = 8 << 20;
/// Length of the frame's head, in bytes.
const HEAD_BYTES: usize = 4;

/// One connection.
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    pub(super) subscribed: bool,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// A connection that has ended, or has to.
#[derive(Debug)]
pub(super) struct Gone;

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, subscribed: false, input: Vec::new(), output: Vec::new() }
    }

    /// Takes in what has arrived; gives the whole messages.
    pub(super) fn receive(&mut self) -> Result<Vec<Vec<u8>>, Gone> {
        let mut buffer = [0; 16 << 10];
        match rustix::net::recv(self.socket.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(Gone),
            Ok((_, count)) => self.input.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Vec::new()),
            Err(_) => return Err(Gone),
        }
        // Requests may hold secrets, which are not to lie about in memory.
        buffer.fill(0);
        let mut messages = Vec::new();
        while let Some(message) = self.next_message()? {
            messages.push(message);
        }
        Ok(messages)
    }

    fn next_message(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        let Some(length) = frame_length(&self.input) else { return Ok(None) };
        if length > MAX_MESSAGE_BYTES {
            return Err(Gone);
        }
        if self.input.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let rest = self.input.split_off(HEAD_BYTES + length);
        let mut message = std::mem::replace(&mut self.input, rest);
        message.drain(..HEAD_BYTES);
        Ok(Some(message))
    }

    /// Sends a message, or as much as fits for now.
    pub(super) fn send(&mut self, message: &Message) -> Result<(), Gone> {
        let frame = frame(message).map_err(|_| Gone)?;
        self.output.extend_from_slice(&frame);
        self.flush()
    }

    /// Sends what is waiting, as far as the client takes it.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        let mut sent = 0;
        while sent < self.output.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(self.socket.as_fd(), &self.output[sent..], flags) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Gone),
            }
        }
        self.output.drain(..sent);
        if self.output.len() > MAX_BACKLOG_BYTES { Err(Gone) } else { Ok(()) }
    }

    /// Whether something waits to be sent.
    pub(super) fn is_behind(&self) -> bool {
        !self.output.is_empty()
    }
}

/// All connections, by number.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) all: HashMap<u32, Client>,
    next: u32,
}

impl Clients {
    pub(super) fn add(&mut self, client: Client) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.all.insert(number, client);
        number
    }
}

/// `message` as it travels.
pub(crate) fn frame<T: serde::Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - HEAD_BYTES;
    let head = u32::try_from(length).ok().filter(|_| length <= MAX_MESSAGE_BYTES);
    let head = head.ok_or_else(|| {
        let text = format!("a message of {length} bytes is longer than {MAX_MESSAGE_BYTES}");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    bytes[..HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
    Ok(bytes)
}

/// The length of the first message in `bytes`, when its head is there.
pub(crate) fn frame_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    usize::try_from(u32::from_le_bytes(*head)).ok()
}
