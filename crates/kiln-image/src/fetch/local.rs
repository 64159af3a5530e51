//! Files of this machine, which archives of one's own may be: `file:///srv/apt`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::FetchError;
use super::cache::Partial;

/// The file that an address names, if it names one of this machine.
pub(super) fn path_of(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://")?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// Reads a file, up to `limit_bytes`.
pub(super) fn read(url: &str, path: &Path, limit_bytes: u64) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let read = open(url, path)?.take(limit_bytes + 1).read_to_end(&mut bytes);
    read.map_err(|source| FetchError::Local { url: url.to_owned(), source })?;
    if bytes.len() as u64 > limit_bytes {
        return Err(FetchError::TooLong { url: url.to_owned(), limit_bytes });
    }
    Ok(bytes)
}

/// Makes a partial file a copy of one that must have `size_bytes` bytes.
pub(super) fn copy(
    url: &str,
    path: &Path,
    size_bytes: u64,
    partial: &mut Partial,
    arrived: &dyn Fn(i64),
) -> Result<(), FetchError> {
    let kept = partial.path.clone();
    let broken = |source| FetchError::Cache { path: kept.clone(), source };
    let failed = |source| FetchError::Local { url: url.to_owned(), source };
    let mut file = open(url, path)?;
    let found_bytes = file.metadata().map_err(failed)?.len();
    if found_bytes != size_bytes {
        let (url, expected_bytes) = (url.to_owned(), size_bytes);
        return Err(FetchError::Length { url, expected_bytes, found_bytes });
    }
    let stale = partial.file.metadata().map_err(broken)?.len();
    partial.file.set_len(0).map_err(broken)?;
    arrived(-i64::try_from(stale).unwrap_or(i64::MAX));
    // Read and written apart, so that a full disk is not taken for an unreadable archive.
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            count => {
                partial.file.write_all(&buffer[..count]).map_err(broken)?;
                arrived(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}

fn open(url: &str, path: &Path) -> Result<File, FetchError> {
    File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            FetchError::Absent { url: url.to_owned(), status: 404 }
        }
        _ => FetchError::Local { url: url.to_owned(), source },
    })
}
