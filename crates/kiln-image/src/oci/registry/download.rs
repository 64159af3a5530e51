//! Blobs that come.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::request::{Call, Scope, unexpected};
use super::retry::Trouble;
use super::{Registry, RegistryError};
use crate::checksum::Hasher;
use crate::oci::layer::MAX_UNPACKED_BYTES;
use crate::oci::reference::Reference;
use crate::store::Descriptor;

/// A file that a blob comes into.
struct Arriving<'a> {
    path: &'a Path,
    file: File,
    /// How many bytes are here, and what they sum to.
    have: u64,
    hasher: Hasher,
}

impl Arriving<'_> {
    fn io(&self, source: io::Error) -> Trouble {
        Trouble::Failed(RegistryError::Io { path: self.path.into(), source })
    }

    fn start_over(&mut self, arrived: &dyn Fn(i64)) -> Result<(), Trouble> {
        self.file.set_len(0).map_err(|source| self.io(source))?;
        arrived(-signed(self.have));
        self.have = 0;
        self.hasher = Hasher::default();
        Ok(())
    }
}

impl Registry {
    /// Fetches a blob into the file at `path`, going on behind what is there. The file is right in
    /// the end, or it is an error. `arrived` is told of each piece's length in bytes; a negative one
    /// takes back what has to come again.
    pub fn download(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        path: &Path,
        arrived: &dyn Fn(i64),
    ) -> Result<(), RegistryError> {
        let io = |source| RegistryError::Io { path: path.into(), source };
        let url = format!("{}/v2/{}/blobs/{}", reference.root(), reference.repository, blob.digest);
        if blob.size > MAX_UNPACKED_BYTES {
            return Err(RegistryError::TooLong { url, limit_bytes: MAX_UNPACKED_BYTES });
        }
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).open(path).map_err(io)?;
        let mut arriving = Arriving { path, file, have: 0, hasher: Hasher::default() };
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = (&arriving.file).read(&mut buffer).map_err(io)?;
            if count == 0 {
                break;
            }
            arriving.hasher.update(&buffer[..count]);
            arriving.have += count as u64;
        }
        arrived(signed(arriving.have));
        let mut resumed = arriving.have > 0;
        loop {
            self.fill(reference, &url, blob, &mut arriving, arrived)?;
            let (found, _) = std::mem::take(&mut arriving.hasher).finish();
            if found == blob.digest {
                return Ok(());
            }
            arriving.file.set_len(0).map_err(io)?;
            arrived(-signed(arriving.have));
            arriving.have = 0;
            // What an earlier run had left may have been damaged: once more, from the start.
            if !std::mem::take(&mut resumed) {
                return Err(RegistryError::Checksum { url, expected: blob.digest, found });
            }
        }
    }

    /// Continues until all bytes are here.
    fn fill(
        &self,
        reference: &Reference,
        url: &str,
        blob: &Descriptor,
        arriving: &mut Arriving<'_>,
        arrived: &dyn Fn(i64),
    ) -> Result<(), RegistryError> {
        let mut tries = self.tries(url);
        loop {
            let before = arriving.have;
            match self.append(reference, url, blob, arriving, arrived) {
                Ok(()) => return Ok(()),
                Err(trouble) => {
                    if arriving.have > before {
                        tries.progressed();
                    }
                    tries.pause(trouble)?;
                }
            }
        }
    }

    /// One request that continues the file.
    fn append(
        &self,
        reference: &Reference,
        url: &str,
        blob: &Descriptor,
        arriving: &mut Arriving<'_>,
        arrived: &dyn Fn(i64),
    ) -> Result<(), Trouble> {
        if arriving.have > blob.size {
            arriving.start_over(arrived)?;
        }
        if arriving.have == blob.size {
            return Ok(());
        }
        let scope = Scope::pull(reference);
        let mut call = Call::new("GET", url, &scope);
        if arriving.have > 0 {
            call = call.header("Range", format!("bytes={}-", arriving.have));
        }
        let response = self.send(&call)?;
        match response.status().as_u16() {
            206 if arriving.have > 0 => {}
            // The server starts over.
            200 => arriving.start_over(arrived)?,
            404 => {
                let what = reference.at(blob.digest).to_string();
                return Err(RegistryError::Absent { what }.into());
            }
            _ => return Err(unexpected(url, response).into()),
        }
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) if arriving.have == blob.size => return Ok(()),
                Ok(0) => {
                    return Err(Trouble::Again(
                        io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                    ));
                }
                Ok(count) => count,
                Err(error) => return Err(Trouble::Again(error.into())),
            };
            if arriving.have + count as u64 > blob.size {
                let (url, limit_bytes) = (url.to_owned(), blob.size);
                return Err(RegistryError::TooLong { url, limit_bytes }.into());
            }
            arriving.file.write_all(&buffer[..count]).map_err(|source| arriving.io(source))?;
            arriving.hasher.update(&buffer[..count]);
            arriving.have += count as u64;
            arrived(signed(count as u64));
        }
    }
}

pub(super) fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
