//! EROFS images, each mounted once however many instances run from it.
//!
//! Instances of one image share one superblock and so one page cache; each gets a mount of its
//! own, so that owners can be translated for it alone. A mount is kept as long as an instance
//! uses it, detached, so that it is in nobody's mount table and gone when the last one ends.
//!
//! Two kinds of older kernels are met half way. Before Linux 6.12 EROFS is mounted only from
//! block devices: the image then stands behind a [`LoopDevice`]. Before Linux 6.15 a detached
//! mount can't be cloned: each instance then gets a mount of the same source.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::base::{Base, new_mount_with};
use super::loop_device::LoopDevice;
use super::protocol::{ImageSource, LaunchError, Seal, Stage, Stamp};
use super::verity_device::VerityDevice;
use crate::fs_verity;

/// The images in use.
#[derive(Debug)]
pub(crate) struct Images {
    /// By the file as it was, its hash tree as it was, and by what keeps it so.
    mounted: HashMap<(Stamp, Option<Stamp>, Seal), Weak<Mounted>>,
    /// The host's /dev, as the launcher reaches it.
    devices: PathBuf,
    /// With what the names of the root's device-mapper devices begin.
    prefix: String,
}

/// A mounted image. The last clone that goes takes the mount with it.
#[derive(Debug, Clone)]
pub(crate) struct Image(Rc<Mounted>);

#[derive(Debug)]
struct Mounted {
    mount: OwnedFd,
    source: Source,
}

/// What an image is mounted from. It is kept open, so that it stays what it is.
#[derive(Debug)]
enum Source {
    File(File),
    Device(LoopDevice),
    Verified(VerityDevice),
}

impl Images {
    /// No images yet; `devices` is the host's /dev. What an earlier launcher of the root has left
    /// of its devices goes, or will go with its last user.
    pub(crate) fn new(devices: PathBuf, root_id: &str) -> Self {
        let prefix = format!("kiln-{root_id}-");
        VerityDevice::remove_left(&devices, &prefix);
        Self { mounted: HashMap::new(), devices, prefix }
    }

    /// No images yet, and none behind devices of a root.
    pub(crate) fn plain(devices: PathBuf) -> Self {
        Self { mounted: HashMap::new(), devices, prefix: String::new() }
    }

    /// Mounts the image, unless it is mounted already. The file that is mounted is the very one
    /// that is found to be as its seal says.
    pub(super) fn open(&mut self, image: &ImageSource, base: &Base) -> Result<Image, LaunchError> {
        let what = || format!("mount {}", image.path.display());
        let failed = |error| LaunchError::os(Stage::Image, what(), error);
        let file = File::open(base.host(&image.path)).map_err(failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        check(&file, &stamp, image)?;
        let tree = match &image.seal {
            // Where it is gone, making the device says so.
            Seal::DmVerity { tree, .. } => std::fs::metadata(base.host(tree)).ok(),
            Seal::Watched(_) | Seal::FsVerity { .. } => None,
        };
        let key = (stamp, tree.as_ref().map(Stamp::of), image.seal.clone());
        if let Some(mounted) = self.mounted.get(&key).and_then(Weak::upgrade) {
            return Ok(Image(mounted));
        }
        let mounted = match &image.seal {
            Seal::DmVerity { tree, root } => {
                let name = format!("{}{}", self.prefix, root.short(16));
                VerityDevice::over(&file, &base.host(tree), root, &self.devices, &name)
                    .map_err(|error| {
                        LaunchError::os(Stage::Seal, "verify it by device-mapper", error)
                    })
                    .and_then(|device| Source::Verified(device).mounted().map_err(failed))?
            }
            Seal::Watched(_) | Seal::FsVerity { .. } => self.mount(file).map_err(failed)?,
        };
        let mounted = Rc::new(mounted);
        self.mounted.retain(|_, mounted| mounted.strong_count() > 0);
        self.mounted.insert(key, Rc::downgrade(&mounted));
        Ok(Image(mounted))
    }

    /// Mounts the image at `path` as it is, for whoever only looks into it.
    pub(crate) fn look_into(&self, path: &Path) -> io::Result<Image> {
        Ok(Image(Rc::new(self.mount(File::open(path)?)?)))
    }

    fn mount(&self, file: File) -> io::Result<Mounted> {
        let source = Source::File(file);
        match (source.mount(), source) {
            (Ok(mount), source) => Ok(Mounted { mount, source }),
            (Err(error), Source::File(file)) if error.raw_os_error() == Some(libc::ENOTBLK) => {
                mount_device(&file, &self.devices)
            }
            (Err(error), _) if error.raw_os_error() == Some(libc::ENODEV) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel has no EROFS; load the module `erofs`",
            )),
            (Err(error), _) => Err(error),
        }
    }
}

/// Refuses a file that is not as its seal says.
fn check(file: &File, found: &Stamp, image: &ImageSource) -> Result<(), LaunchError> {
    let path = image.path.display();
    let complaint = match &image.seal {
        // Every block is compared when it is read.
        Seal::DmVerity { .. } => return Ok(()),
        Seal::Watched(stamp) if stamp == found => return Ok(()),
        Seal::Watched(_) => format!("{path} was changed after it had been read"),
        Seal::FsVerity { digest } => match fs_verity::measure(file) {
            Ok(Some(found)) if found == *digest => return Ok(()),
            Ok(Some(found)) => format!("the kernel measures {found} of {path}, not {digest}"),
            Ok(None) => format!("{path} is not sealed by fs-verity any more"),
            Err(error) => {
                return Err(LaunchError::os(Stage::Seal, format!("measure {path}"), error));
            }
        },
    };
    Err(LaunchError::new(Stage::Seal, complaint))
}

fn mount_device(file: &File, devices: &Path) -> io::Result<Mounted> {
    Source::Device(LoopDevice::over(file, devices)?).mounted()
}

impl Source {
    fn mounted(self) -> io::Result<Mounted> {
        Ok(Mounted { mount: self.mount()?, source: self })
    }

    fn mount(&self) -> io::Result<OwnedFd> {
        let path = match self {
            // By descriptor, so that what is mounted is what was opened, wherever the path leads
            // by now.
            Self::File(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            Self::Device(device) => device.path().to_owned(),
            Self::Verified(device) => device.path().to_owned(),
        };
        let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV;
        // The filesystem is read-only, and not just the mount: so is the device.
        new_mount_with("erofs", &[("source", path), ("ro", "")], attributes)
    }
}

impl Image {
    /// A mount of the image for one instance, attached nowhere yet.
    pub(super) fn instance_mount(&self) -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        match rustix::mount::open_tree(self.0.mount.as_fd(), "", flags) {
            Err(Errno::INVAL) => self.0.source.mount(),
            result => Ok(result?),
        }
    }

    /// The mount, to look files up in.
    pub(crate) fn root(&self) -> &OwnedFd {
        &self.0.mount
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kiln_image::erofs::{Options, write};
    use kiln_image::tree::{Inode, Metadata, Tree};
    use rustix::fs::{Mode, OFlags};

    use super::*;

    /// An image with one file.
    fn image() -> tempfile::NamedTempFile {
        let mut tree = Tree::new();
        let file = Inode::file(Metadata::new(0o644), b"fired once".to_vec());
        tree.insert("clay", file).unwrap();
        let mut image = tempfile::NamedTempFile::new().unwrap();
        let _ = write(&tree, Options { build_time: 0 }, &mut image).unwrap();
        image
    }

    fn clay(mount: &OwnedFd) -> String {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(mount, "clay", flags, Mode::empty()).unwrap();
        io::read_to_string(File::from(file)).unwrap()
    }

    fn backed_by(path: &Path) -> bool {
        let name = path.to_string_lossy().into_owned();
        fs::read_dir("/sys/block").unwrap().flatten().any(|entry| {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file"));
            backing.is_ok_and(|file| file.trim() == name)
        })
    }

    #[test]
    fn an_image_behind_a_loop_device_is_the_same_and_leaves_none() {
        let devices = Path::new("/dev");
        if !rustix::process::geteuid().is_root() || !devices.join("loop-control").exists() {
            println!("skipped: an_image_behind_a_loop_device: needs root and loop devices");
            return;
        }
        let image = image();
        let mounted = mount_device(image.as_file(), devices).unwrap();
        assert!(backed_by(image.path()), "it stands behind a device");
        let again = mounted.source.mount().unwrap();
        assert_eq!(
            (clay(&mounted.mount), clay(&again)),
            ("fired once".into(), "fired once".into())
        );
        drop((mounted, again));
        let gone = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            !backed_by(image.path())
        });
        assert!(gone, "the device goes with its last mount");
    }
}
