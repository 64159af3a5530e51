//! From a tree to a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};

use super::{DirectoryError, Instant, Laid, Written};
use crate::tree::{Content, Kind, Metadata, NodeId, Tree, Visit};

/// Made beside the directory for a moment, to ask the filesystem what time it is.
const STAMP: &str = "stamp";
/// Milliseconds that the clock of a filesystem may take for a step.
const CLOCK_STEPS: u32 = 100;

impl Laid {
    /// Writes `tree` into the new directory `path`, whose parent only its owner may enter.
    pub fn out(tree: &Tree, path: &Path) -> Result<Self, DirectoryError> {
        let here = path.as_os_str().as_bytes();
        std::fs::create_dir(path).map_err(DirectoryError::io("make", here))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(DirectoryError::io("open", here))?;
        let mut first_names: HashMap<NodeId, Vec<u8>> = HashMap::new();
        let mut directories = Vec::new();
        for visit in tree.walk() {
            if let Some(first) = first_names.get(&visit.id) {
                linkat(&root, first.as_slice(), &root, visit.path.as_slice(), AtFlags::empty())
                    .map_err(DirectoryError::io("link", &visit.path))?;
                continue;
            }
            make(&root, &visit)?;
            if visit.inode.is_directory() {
                directories.push((visit.path, visit.id));
            } else {
                set_time(&root, &visit.path, visit.inode.metadata())?;
                first_names.insert(visit.id, visit.path);
            }
        }
        // Last, as what is made in a directory changes its time.
        for (path, id) in directories.iter().rev() {
            set_time(&root, path, tree.inode(*id).metadata())?;
        }
        let names = first_names.iter().map(|(id, name)| (name.as_slice(), *id));
        let directories = directories.iter().map(|(path, id)| (path.as_slice(), *id));
        let mut written = HashMap::new();
        for (name, id) in names.chain(directories) {
            let stat = statat(&root, shown(name), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(DirectoryError::io("look at", name))?;
            written.insert(stat.st_ino, Written { id, changed: Instant::of(&stat) });
        }
        let latest = written.values().map(|written| written.changed).max();
        let since = after(latest, path)?;
        Ok(Self { path: path.to_owned(), root, written, since })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The root is named by a dot.
pub(super) fn shown(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

/// Makes one entry, with everything but its time.
fn make(root: &OwnedFd, visit: &Visit<'_>) -> Result<(), DirectoryError> {
    let path = visit.path.as_slice();
    let result = match visit.inode.kind() {
        Kind::Directory(_) if path.is_empty() => Ok(()),
        Kind::Directory(_) => mkdirat(root, path, Mode::RWXU).map_err(io::Error::from),
        Kind::Symlink(target) => symlinkat(&**target, root, path).map_err(io::Error::from),
        Kind::Fifo => mknodat(root, path, FileType::Fifo, Mode::RUSR, 0).map_err(io::Error::from),
        Kind::File(content) => write_file(root, path, content),
    };
    result.map_err(DirectoryError::io("write", path))?;
    let metadata = visit.inode.metadata();
    let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
    chownat(root, shown(path), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(DirectoryError::io("change the owner of", path))?;
    if !matches!(visit.inode.kind(), Kind::Symlink(_)) {
        // After the owner, whose change takes set-id bits away.
        let mode = Mode::from_raw_mode(u32::from(metadata.mode));
        chmodat(root, shown(path), mode, AtFlags::empty())
            .map_err(DirectoryError::io("change the mode of", path))?;
    }
    set_xattrs(root, path, metadata)
}

fn write_file(root: &OwnedFd, path: &[u8], content: &Content) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(root, path, flags, Mode::RUSR | Mode::WUSR)?);
    match content {
        Content::Bytes(bytes) => file.write_all(bytes),
        Content::Stored { path, offset, length } => {
            let mut source = File::open(path)?;
            source.seek(SeekFrom::Start(*offset))?;
            let copied = io::copy(&mut source.take(*length), &mut file)?;
            if copied == *length {
                return Ok(());
            }
            let text = format!("{} has ended after {copied} bytes", path.display());
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
        }
    }
}

/// A path by which calls without a directory reach an entry and not what it links to.
pub(super) fn by_name(root: &OwnedFd, path: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", root.as_fd().as_raw_fd()).as_bytes(), shown(path)].concat()
}

fn set_xattrs(root: &OwnedFd, path: &[u8], metadata: &Metadata) -> Result<(), DirectoryError> {
    for (name, value) in &metadata.xattrs {
        let at = by_name(root, path);
        rustix::fs::lsetxattr(at.as_slice(), name.as_slice(), value, XattrFlags::empty())
            .map_err(DirectoryError::io("set an extended attribute of", path))?;
    }
    Ok(())
}

fn set_time(root: &OwnedFd, path: &[u8], metadata: &Metadata) -> Result<(), DirectoryError> {
    let time = Timespec { tv_sec: metadata.mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(root, shown(path), &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(DirectoryError::io("set the time of", path))
}

/// Waits until the filesystem's clock, which moves on in steps, has left `latest` behind.
fn after(latest: Option<Instant>, path: &Path) -> Result<Instant, DirectoryError> {
    for _ in 0..CLOCK_STEPS {
        let now = now(path)?;
        if latest.is_none_or(|latest| latest < now) {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // The clock was set back: all will be read anew.
    now(path)
}

/// What time it is for the filesystem that `path` is on.
fn now(path: &Path) -> Result<Instant, DirectoryError> {
    let name = path.with_extension(STAMP);
    let failed = |action| DirectoryError::io(action, name.as_os_str().as_bytes());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let stamp = rustix::fs::open(&name, flags, Mode::RUSR).map_err(failed("make"))?;
    let stat = rustix::fs::fstat(&stamp).map_err(failed("look at"))?;
    unlinkat(rustix::fs::CWD, &name, AtFlags::empty()).map_err(failed("remove"))?;
    Ok(Instant::of(&stat))
}
