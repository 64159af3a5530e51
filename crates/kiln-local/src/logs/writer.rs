//! The writing side: appends records to the current segment and turns segments over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::time::rfc3339;
use super::{SEGMENT_BYTES, Stream, segments};

/// How much output becomes records at a time: were it nothing but line ends, their records would
/// still fit into a segment.
const PIECE_BYTES: usize = 8 << 10;

/// Writes the log of one instance. Its memory does not depend on what is written.
#[derive(Debug)]
pub struct LogWriter {
    directory: PathBuf,
    segment_bytes: u64,
    current: Option<(File, u64)>,
    failing: bool,
}

impl LogWriter {
    /// A writer to `directory`, which is made when there is something to write.
    pub fn new(directory: &Path) -> Self {
        Self::with_segments_of(directory, SEGMENT_BYTES)
    }

    /// As [`LogWriter::new`], with segments of another length.
    pub fn with_segments_of(directory: &Path, segment_bytes: u64) -> Self {
        Self { directory: directory.to_path_buf(), segment_bytes, current: None, failing: false }
    }

    /// Appends `bytes`, as they came out of `stream` at `time`. What cannot be written is lost;
    /// of failures in a row only the first is reported.
    pub fn write(&mut self, stream: Stream, time: SystemTime, bytes: &[u8]) -> io::Result<()> {
        let result = self.write_pieces(stream, time, bytes);
        let reported = std::mem::replace(&mut self.failing, result.is_err());
        if reported { Ok(()) } else { result }
    }

    fn write_pieces(&mut self, stream: Stream, time: SystemTime, bytes: &[u8]) -> io::Result<()> {
        let head = format!("{} {} ", rfc3339(time), stream.name());
        for piece in bytes.chunks(PIECE_BYTES) {
            self.write_piece(&head, piece)?;
        }
        Ok(())
    }

    fn write_piece(&mut self, head: &str, bytes: &[u8]) -> io::Result<()> {
        let mut records = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 64);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, tag) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, "F "),
                None => (piece, "P "),
            };
            records.extend_from_slice(head.as_bytes());
            records.extend_from_slice(tag.as_bytes());
            records.extend_from_slice(text);
            records.push(b'\n');
        }
        self.append(&records)
    }

    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        let length = records.len() as u64;
        let (mut file, written) = match self.current.take() {
            Some((file, written)) if written + length <= self.segment_bytes => (file, written),
            Some(_) => self.turn_over()?,
            None => {
                let (file, written) = self.open()?;
                if written + length <= self.segment_bytes {
                    (file, written)
                } else {
                    self.turn_over()?
                }
            }
        };
        file.write_all(records)?;
        self.current = Some((file, written + length));
        Ok(())
    }

    fn open(&self) -> io::Result<(File, u64)> {
        fs::create_dir_all(&self.directory)?;
        let [_, current] = segments(&self.directory);
        let file = OpenOptions::new().create(true).append(true).open(current)?;
        let written = file.metadata()?.len();
        Ok((file, written))
    }

    fn turn_over(&self) -> io::Result<(File, u64)> {
        let [older, current] = segments(&self.directory);
        match fs::rename(current, older) {
            // Somebody has deleted it; there is nothing to keep.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.open()
    }
}
