//! What instances write to standard output and error, in bounded files.
//!
//! Lines are kept as Kubernetes' container runtimes keep them (the CRI logging format):
//! `2026-01-31T12:00:00.123456789Z stdout F text`, where `F` ends a line and `P` is a part of one
//! that goes on in the next record of the same stream. An instance has two segments,
//! `ROOT/logs/<instance>/log` and the older `log.1`; when the first is full it takes the place of
//! the second. So an instance keeps between one and two segments of its latest output.

mod reader;
mod time;
mod writer;

pub use reader::{Follow, Line, tail};
pub use writer::LogWriter;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How long a segment grows, in bytes.
pub const SEGMENT_BYTES: u64 = 512 << 10;

/// Which of its two outputs an instance wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Stdout, Self::Stderr].into_iter().find(|stream| stream.name() == name)
    }
}

/// Where the logs of `instance` are.
pub fn directory(root: &Path, instance: &str) -> PathBuf {
    root.join("logs").join(instance)
}

/// Removes the logs of `instance`, if there are any.
pub fn remove(root: &Path, instance: &str) -> io::Result<()> {
    match fs::remove_dir_all(directory(root, instance)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn segments(directory: &Path) -> [PathBuf; 2] {
    [directory.join("log.1"), directory.join("log")]
}
