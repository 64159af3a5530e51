//! EROFS images, each mounted once however many instances run from it.
//!
//! Instances of one image share one superblock and so one page cache; each gets a mount of its
//! own, so that owners can be translated for it alone. A mount is kept as long as an instance
//! uses it, detached, so that it is in nobody's mount table and gone when the last one ends.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::{Rc, Weak};

use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::base::new_mount_with;

/// Identifies the content of a file as long as it is not written to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ImageKey {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// The images in use.
#[derive(Debug, Default)]
pub(super) struct Images {
    mounted: HashMap<ImageKey, Weak<OwnedFd>>,
}

/// A mounted image. The last clone that goes takes the mount with it.
#[derive(Debug, Clone)]
pub(super) struct Image(Rc<OwnedFd>);

impl Images {
    /// Mounts the image at `path`, unless it is mounted already.
    pub(super) fn open(&mut self, path: &Path) -> io::Result<Image> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let key = ImageKey {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        if let Some(mount) = self.mounted.get(&key).and_then(Weak::upgrade) {
            return Ok(Image(mount));
        }
        let mount = Rc::new(mount_erofs(&file)?);
        self.mounted.retain(|_, mount| mount.strong_count() > 0);
        self.mounted.insert(key, Rc::downgrade(&mount));
        Ok(Image(mount))
    }
}

impl Image {
    /// A mount of the image for one instance, attached nowhere yet.
    pub(super) fn instance_mount(&self) -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(rustix::mount::open_tree(self.0.as_fd(), "", flags)?)
    }

    /// The mount, to look files up in.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.0
    }
}

fn mount_erofs(file: &File) -> io::Result<OwnedFd> {
    // By descriptor, so that what is mounted is what was opened, wherever the path leads by now.
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    new_mount_with("erofs", &[("source", &source)], attributes).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENOTBLK) => io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel mounts EROFS only from block devices; Linux 6.12 or newer mounts \
                 image files",
            ),
            Some(libc::ENODEV) => io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel has no EROFS; load the module `erofs`",
            ),
            _ => error,
        }
    })
}
