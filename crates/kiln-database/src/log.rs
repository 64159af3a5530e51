//! The log of a data directory, seen from outside while an instance writes to it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::quantity::Timestamp;
use rustix::fs::{Mode, OFlags};

use crate::file;

/// The longest file of a log, in bytes.
const LONGEST: u64 = 64 << 20;

/// The files of a log that are whole, and wait to be archived.
#[derive(Debug)]
pub struct Log {
    directory: OwnedFd,
    /// Their names, in order.
    pub waiting: Vec<String>,
}

impl Log {
    /// Those in `directory` for which there is a file in `state`, called after them with `suffix`.
    pub(crate) fn of(directory: &OwnedFd, state: &CStr, suffix: &str) -> io::Result<Self> {
        let state = file::open_in(directory, state)?;
        let mut waiting = Vec::new();
        for entry in rustix::fs::Dir::read_from(&state)? {
            let entry = entry?;
            let name = entry.file_name().to_str().ok().and_then(|name| name.strip_suffix(suffix));
            waiting.extend(name.map(str::to_owned));
        }
        waiting.sort();
        Ok(Self { directory: directory.try_clone()?, waiting })
    }

    /// The content of a file, and when it was written last. None where it is gone, or no file.
    pub fn read(&self, name: &str) -> io::Result<Option<(Vec<u8>, Timestamp)>> {
        let name = CString::new(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, &name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(None),
            file => File::from(file?),
        };
        let about = file.metadata()?;
        if !about.is_file() || about.len() > LONGEST {
            return Ok(None);
        }
        let mut content = Vec::new();
        file.take(LONGEST).read_to_end(&mut content)?;
        let since = about.modified().unwrap_or(SystemTime::UNIX_EPOCH).duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_millis();
        Ok(Some((content, Timestamp(u64::try_from(since).unwrap_or(u64::MAX)))))
    }
}
