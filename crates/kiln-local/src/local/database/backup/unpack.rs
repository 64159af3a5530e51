//! Laying out the files of a copy as a data directory, while each is held against the copy's manifest.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Component, Path};

use kiln_backup::age::Identity;
use kiln_backup::archive::{AGE, opened};
use kiln_backup::catalogue::Base;
use kiln_backup::segment::Segment;
use kiln_backup::store::{Store, StoreError, measure};
use kiln_model::digest::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Trouble;
use super::base::LONGEST_MANIFEST;

/// Compressed bytes are read in pieces of this size.
const PIECE: usize = 256 << 10;

/// A copy in its store.
pub(super) struct Stored<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) seal: Option<&'a Identity>,
    pub(super) line: &'a str,
    pub(super) base: &'a Base,
}

/// What a manifest says of the files of a data directory.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "Files")]
    files: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

/// SHA-256 and length of what passes.
#[derive(Default)]
struct Sum {
    hash: Sha256,
    size: u64,
}

impl Sum {
    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn end(self) -> (u64, Digest) {
        (self.size, Digest::from_bytes(self.hash.finalize().into()))
    }
}

/// Sums what is read through it.
struct Summed<R> {
    from: R,
    hash: Sum,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.hash.take(&into[..count]);
        Ok(count)
    }
}

impl Stored<'_> {
    /// Lays the copy out in `data`, whose owner all of it gets. What is not as it was stored, or not as
    /// its manifest says, is told, each with its name.
    pub(super) fn lay_out(&self, data: &Path) -> Result<(), Trouble> {
        let manifest = self.manifest(data)?;
        let mut faults = Vec::new();
        let mut found = BTreeMap::new();
        self.each(super::base::FILES[0].1, |archive| unpack(archive, data, &mut found))?;
        for listed in &manifest.files {
            let Some(path) = &listed.path else { continue };
            match found.remove(path) {
                None => faults.push(format!("{path} is missing in {}", self.name("data.tar.gz"))),
                Some((size, digest)) => {
                    let other = listed.checksum.as_ref().is_some_and(|sum| *sum != digest.hex());
                    if size != listed.size || other {
                        let name = self.name("data.tar.gz");
                        faults.push(format!("{path} in {name} is not what the manifest says"));
                    }
                }
            }
        }
        if !faults.is_empty() {
            return Err(Trouble::Damaged(faults));
        }
        let (log, name) = (data.join("pg_wal"), super::base::FILES[1].1);
        let mut found = BTreeMap::new();
        self.each(name, |archive| unpack(archive, &log, &mut found))?;
        let Base { timeline, start, stop, .. } = self.base;
        let needed = start.segment()..=stop.last_segment();
        let needed = needed.map(|number| Segment { timeline: *timeline, number }.to_string());
        let lacks = needed.filter(|segment| !found.contains_key(segment));
        // As many as anybody reads: what the manifest says is not trusted.
        let faults: Vec<String> = lacks
            .take(20)
            .map(|segment| format!("{segment} is missing in {}", self.name(name)))
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(Trouble::Damaged(faults)) }
    }

    fn name(&self, file: &str) -> String {
        format!("{}/base/{}/{file}", self.line, self.base.id)
    }

    fn manifest(&self, data: &Path) -> Result<Manifest, Trouble> {
        let name = super::base::FILES[2].1;
        let mut bytes = Vec::new();
        self.each(name, |reader| reader.take(LONGEST_MANIFEST).read_to_end(&mut bytes).map(drop))?;
        write(&data.join("backup_manifest"), &bytes, data)
            .map_err(|error| Trouble::failed("lay out the manifest", &error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Trouble::Damaged(vec![format!("{}: {error}", self.name(name))]))
    }

    /// Reads one file to its end, and holds it against what was stored.
    fn each(
        &self,
        file: &str,
        mut take: impl FnMut(Box<dyn Read + '_>) -> io::Result<()>,
    ) -> Result<(), Trouble> {
        let sealed = format!("{file}{AGE}");
        let found = self.base.files.get_key_value(file);
        let found = found.or_else(|| self.base.files.get_key_value(&sealed));
        let Some((short, stored)) = found else {
            return Err(Trouble::Damaged(vec![format!("{} is not listed", self.name(file))]));
        };
        let name = self.name(short);
        let damaged = |why: &str| Trouble::Damaged(vec![format!("{name}: {why}")]);
        let reader = match self.store.get(&name) {
            Err(error @ StoreError::Absent { .. }) => {
                return Err(Trouble::Damaged(vec![error.to_string()]));
            }
            reader => reader.map_err(|error| Trouble::failed("read the copy", &error))?,
        };
        let mut all = Summed { from: reader, hash: Sum::default() };
        let taken = {
            let bytes = Box::new(io::BufReader::with_capacity(PIECE, &mut all));
            let plain = opened(bytes, short.ends_with(AGE), self.seal);
            plain.and_then(|plain| take(plain))
        };
        // The rest, so that it is known whether it is what was stored.
        let rest = io::copy(&mut all, &mut io::sink());
        let sum = all.hash.end();
        match (taken, rest) {
            (_, Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(Trouble::failed(&format!("read {name}"), &error))
            }
            _ if sum != (stored.size, stored.digest) => {
                let (size, digest) = sum;
                let (was, of) = (stored.size, stored.digest);
                Err(damaged(&format!("it has {size} bytes, {digest}, not {was} bytes, {of}")))
            }
            (Err(error), _) if error.kind() == io::ErrorKind::StorageFull => {
                Err(Trouble::failed("lay out the copy", &error))
            }
            (Err(error), _) => Err(damaged(&error.to_string())),
            (Ok(()), _) => Ok(()),
        }
    }
}

/// Unpacks a compressed archive below a directory; the length and checksum of each file in it.
fn unpack(
    archive: Box<dyn Read + '_>,
    into: &Path,
    found: &mut BTreeMap<String, (u64, Digest)>,
) -> io::Result<()> {
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(archive));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !path.components().all(inside) {
            return Err(io::Error::other(format!("{} leads out of it", path.display())));
        }
        let target = into.join(&path);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            make(&target, into)?;
        } else if kind.is_file() {
            make(target.parent().unwrap_or(into), into)?;
            let mut file = create(&target, into)?;
            let mut hash = Sum::default();
            let mut piece = vec![0; PIECE];
            loop {
                let count = entry.read(&mut piece)?;
                if count == 0 {
                    break;
                }
                hash.take(&piece[..count]);
                file.write_all(&piece[..count])?;
            }
            found.insert(path.to_string_lossy().into_owned(), hash.end());
        } else {
            return Err(io::Error::other(format!(
                "{} is neither file nor directory",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Makes a directory, and those between it and `like`, for the owner of `like`. An instance may have
/// written there: no link is followed.
pub(super) fn make(directory: &Path, like: &Path) -> io::Result<()> {
    if directory == like {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        make(parent, like)?;
    }
    match fs::symlink_metadata(directory) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            let what = format!("{} is no directory", directory.display());
            return Err(io::Error::other(what));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    DirBuilder::new().mode(0o700).create(directory)?;
    own(directory, like)
}

/// Writes a file for the owner of `like`.
pub(super) fn write(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    create(path, like)?.write_all(bytes)
}

fn create(path: &Path, like: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    own(path, like)?;
    Ok(file)
}

fn own(path: &Path, like: &Path) -> io::Result<()> {
    let like = fs::metadata(like)?;
    chown(path, Some(like.uid()), Some(like.gid()))
}

/// Syncs everything below a directory.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    // One call for the filesystem is cheaper than one for each file, and as sure.
    rustix::fs::syncfs(File::open(directory)?)?;
    Ok(())
}

/// Reads a whole file of a store to see that it is as it was stored.
pub(super) fn check(stored: &Stored<'_>, short: &str) -> Result<(), Trouble> {
    let Some(wanted) = stored.base.files.get(short) else { return Ok(()) };
    let name = stored.name(short);
    let mut reader = match stored.store.get(&name) {
        Err(error @ StoreError::Absent { .. }) => {
            return Err(Trouble::Damaged(vec![error.to_string()]));
        }
        reader => reader.map_err(|error| Trouble::failed("read a copy", &error))?,
    };
    let found = measure(&mut *reader);
    match found {
        Ok(found) if found == (wanted.size, wanted.digest) => Ok(()),
        Ok((size, digest)) => {
            let (was, of) = (wanted.size, wanted.digest);
            let fault = format!("{name}: it has {size} bytes, {digest}, not {was} bytes, {of}");
            Err(Trouble::Damaged(vec![fault]))
        }
        Err(error) => Err(Trouble::failed(&format!("read {name}"), &error)),
    }
}
