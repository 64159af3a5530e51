//! Descriptors over a unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors in one message: the kernel takes at most 253 (`SCM_MAX_FD`).
const BATCH: usize = 200;

/// What goes with each message, since descriptors do not travel alone.
const BYTE: [u8; 1] = *b"d";

/// Sends all of them, in order.
pub(super) fn send(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in descriptors.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        sendmsg(stream, &[IoSlice::new(&BYTE)], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives `count` of them.
pub(super) fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::with_capacity(count);
    while received.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                received.extend(descriptors);
            }
        }
    }
    if received.len() > count {
        return Err(io::Error::other("more descriptors than were announced"));
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn more_than_fit_into_one_message_arrive_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let pipes: Vec<_> = (0..450).map(|_| rustix::pipe::pipe().unwrap()).collect();
        let ends: Vec<_> = pipes.iter().map(|(read, _)| read.as_fd()).collect();
        let sender = std::thread::scope(|scope| {
            let received = scope.spawn(|| receive(&theirs, 450).unwrap());
            send(&ours, &ends).unwrap();
            received.join().unwrap()
        });
        for (index, ((_, write), read)) in pipes.iter().zip(sender).enumerate() {
            rustix::io::write(write, &u32::try_from(index).unwrap().to_ne_bytes()).unwrap();
            let mut bytes = [0; 4];
            rustix::io::read(&read, &mut bytes).unwrap();
            assert_eq!(u32::from_ne_bytes(bytes), u32::try_from(index).unwrap());
        }
    }
}
