//! From a directory back to a tree.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use super::lay::{by_name, shown};
use super::{DirectoryError, Instant, Laid};
use crate::tree::{Content, Inode, Metadata, Tree};

/// Extended attributes that belong to an image, of those that a filesystem may show.
const KEPT_XATTRS: [&[u8]; 3] =
    [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
/// The longest list of names, and the longest value, in bytes; the kernel's own bounds.
const MAX_XATTR: usize = 64 << 10;

/// What came of a directory.
#[derive(Debug)]
pub struct Gathered {
    /// The tree.
    pub tree: Tree,
    /// What was left out or taken away, for the user.
    pub warnings: Vec<String>,
}

/// What gathering goes by.
struct Gatherer<'a> {
    laid: &'a Laid,
    before: &'a Tree,
    latest: i64,
    /// The first name of each inode that has several.
    first_names: HashMap<u64, Vec<u8>>,
    found: Gathered,
}

impl Laid {
    /// Reads what has become of `before`, which was laid out. Contents stay in the directory. No
    /// time of what was touched is later than `latest`.
    pub fn gather(&self, before: &Tree, latest: i64) -> Result<Gathered, DirectoryError> {
        let found = Gathered { tree: Tree::new(), warnings: Vec::new() };
        let mut gatherer =
            Gatherer { laid: self, before, latest, first_names: HashMap::new(), found };
        let mut ahead = vec![Vec::new()];
        while let Some(path) = ahead.pop() {
            if gatherer.take(&path)? {
                for name in names(&self.root, &path)?.into_iter().rev() {
                    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    ahead.push([&path, slash, &name].concat());
                }
            }
        }
        Ok(gatherer.found)
    }
}

impl Gatherer<'_> {
    /// Takes one entry in; whether it is a directory.
    fn take(&mut self, path: &[u8]) -> Result<bool, DirectoryError> {
        let stat = statat(&self.laid.root, shown(path), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(DirectoryError::io("look at", path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let directory = kind == FileType::Directory;
        if !directory && stat.st_nlink > 1 {
            if let Some(first) = self.first_names.get(&stat.st_ino) {
                self.found.tree.link(first, path)?;
                return Ok(false);
            }
            self.first_names.insert(stat.st_ino, path.to_vec());
        }
        let Some(inode) = self.inode(path, kind, &stat)? else { return Ok(false) };
        if path.is_empty() {
            self.found.tree.set_metadata("/", inode.metadata().clone())?;
        } else {
            self.found.tree.insert(path, inode)?;
        }
        Ok(directory)
    }

    /// The entry as the tree has it; nothing for what is left out.
    fn inode(
        &mut self,
        path: &[u8],
        kind: FileType,
        stat: &Stat,
    ) -> Result<Option<Inode>, DirectoryError> {
        let written = self.laid.written.get(&stat.st_ino);
        let untouched = written.filter(|written| {
            written.changed == Instant::of(stat) && written.changed < self.laid.since
        });
        if let Some(written) = untouched {
            return Ok(Some(self.before.inode(written.id).clone()));
        }
        let metadata = self.metadata(path, kind, stat)?;
        let refused = |kind| Err(DirectoryError::Kind { path: path.into(), kind });
        Ok(Some(match kind {
            FileType::Directory => Inode::directory(metadata),
            FileType::Fifo => Inode::fifo(metadata),
            FileType::Symlink => {
                let target = readlinkat(&self.laid.root, path, Vec::new())
                    .map_err(DirectoryError::io("read the link", path))?;
                Inode::symlink(metadata, target.as_bytes())
            }
            FileType::RegularFile => Inode::file(metadata, self.content(path, stat)),
            FileType::Socket => {
                self.warn(path, "is a socket, which no image can hold; it was left out");
                return Ok(None);
            }
            FileType::CharacterDevice => return refused("character device"),
            FileType::BlockDevice => return refused("block device"),
            FileType::Unknown => return refused("file of an unknown kind"),
        }))
    }

    fn content(&self, path: &[u8], stat: &Stat) -> Content {
        let path = self.laid.path.join(Path::new(std::ffi::OsStr::from_bytes(path)));
        let length = u64::try_from(stat.st_size).unwrap_or_default();
        if length == 0 {
            return Content::from(Vec::new());
        }
        Content::Stored { path: path.into(), offset: 0, length }
    }

    fn metadata(
        &mut self,
        path: &[u8],
        kind: FileType,
        stat: &Stat,
    ) -> Result<Metadata, DirectoryError> {
        let mut mode = u16::try_from(stat.st_mode & 0o7777).unwrap_or_default();
        if kind == FileType::RegularFile && mode & 0o6000 != 0 {
            mode &= 0o1777;
            self.warn(path, "was made set-id, which gains no rights in an instance; it is not");
        }
        let before = self.before.get(shown(path)).map(|inode| inode.metadata().mtime);
        let mtime = if before == Some(stat.st_mtime) {
            stat.st_mtime
        } else {
            stat.st_mtime.min(self.latest)
        };
        let xattrs = xattrs(&self.laid.root, path)
            .map_err(DirectoryError::io("read the extended attributes of", path))?;
        Ok(Metadata { mode, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs })
    }

    fn warn(&mut self, path: &[u8], what: &str) {
        let path = crate::tree::ShownPath::from([b"/", path].concat());
        self.found.warnings.push(format!("{path} {what}"));
    }
}

/// The names in a directory, in byte order.
fn names(root: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, DirectoryError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let read = || -> Result<Vec<Vec<u8>>, rustix::io::Errno> {
        let directory = openat(root, shown(path), flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        Ok(names)
    };
    read().map_err(DirectoryError::io("list", path))
}

type Xattrs = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

fn xattrs(root: &OwnedFd, path: &[u8]) -> io::Result<Xattrs> {
    let at = by_name(root, path);
    let mut list = vec![0; MAX_XATTR];
    let length = match rustix::fs::llistxattr(at.as_slice(), &mut list[..]) {
        // A filesystem without them.
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut found = Xattrs::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"user.") || KEPT_XATTRS.contains(&name) {
            let mut value = vec![0; MAX_XATTR];
            let length = rustix::fs::lgetxattr(at.as_slice(), name, &mut value[..])?;
            value.truncate(length);
            found.insert(name.to_vec(), value);
        }
    }
    Ok(found)
}
