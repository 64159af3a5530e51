//! The stream that an image is written to: buffered, counting, in order.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Bytes that are gathered before they go to the sink; also the unit of copying.
const BUFFER: usize = 256 * 1024;

/// Which side of a copy failed.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// A sink with a buffer before it.
#[derive(Debug)]
pub(super) struct Output<'a, W> {
    sink: &'a mut W,
    buffer: Vec<u8>,
    flushed: u64,
}

impl<'a, W: Write> Output<'a, W> {
    pub(super) fn new(sink: &'a mut W) -> Self {
        Self { sink, buffer: Vec::with_capacity(2 * BUFFER), flushed: 0 }
    }

    /// How many bytes were put in so far.
    pub(super) fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// What has not gone to the sink yet, to be changed or appended to.
    pub(super) fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Fills with zeros up to `position`, which is not behind the present one.
    pub(super) fn pad_to(&mut self, position: u64) {
        let len = usize::try_from(position - self.flushed).unwrap_or(usize::MAX);
        debug_assert!(len >= self.buffer.len(), "the layout goes forward only");
        self.buffer.resize(len, 0);
    }

    /// Sends what is pending to the sink, if that is much.
    pub(super) fn flush_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Sends what is pending to the sink.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.sink.write_all(&self.buffer)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Puts in bytes that are at hand.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(BUFFER) {
            self.buffer.extend_from_slice(chunk);
            self.flush_full()?;
        }
        Ok(())
    }

    /// Copies the `length` bytes from `offset` on of `file`.
    pub(super) fn copy(&mut self, file: &File, offset: u64, length: u64) -> Result<(), CopyError> {
        let mut done = 0;
        while done < length {
            let chunk = usize::try_from(length - done).unwrap_or(BUFFER).min(BUFFER);
            let start = self.buffer.len();
            self.buffer.resize(start + chunk, 0);
            let read = file.read_exact_at(&mut self.buffer[start..], offset + done);
            read.map_err(CopyError::Read)?;
            done += chunk as u64;
            self.flush_full().map_err(CopyError::Write)?;
        }
        Ok(())
    }
}
