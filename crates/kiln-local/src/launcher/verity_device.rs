//! A device behind which the kernel compares each block of a file with a hash tree.
//!
//! The file and its tree stand behind a loop device each, and dm-verity upon both
//! (`Documentation/admin-guide/device-mapper/verity.rst` of the Linux sources). A block that is not
//! as the tree says can't be read: it is an I/O error. The device is told to go with its last user
//! as soon as it is open, so that none is left behind by a launcher that is killed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_model::digest::Digest;

use super::device_mapper::{DeviceMapper, Target};
use super::loop_device::LoopDevice;
use super::table::report;

/// The length of blocks of data and of the tree, in bytes.
const BLOCK_BYTES: u64 = 4096;
const SECTOR_BYTES: u64 = 512;

/// Tells the devices of one launcher apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A device over a file. It is there as long as this, or a mount of it, is.
#[derive(Debug)]
pub(super) struct VerityDevice {
    path: PathBuf,
    _device: File,
    /// The file and its tree.
    _below: [LoopDevice; 2],
}

impl VerityDevice {
    /// A device over `file`, verified by the tree in the file at `tree`, whose root is `root`;
    /// `devices` is the host's /dev, and the device's name begins with `name`.
    pub(super) fn over(
        file: &File,
        tree: &Path,
        root: &Digest,
        devices: &Path,
        name: &str,
    ) -> io::Result<Self> {
        let size = file.metadata()?.len();
        if size == 0 || size % BLOCK_BYTES != 0 {
            return Err(io::Error::other("its length is not a multiple of 4096 bytes"));
        }
        let below =
            [LoopDevice::over(file, devices)?, LoopDevice::over(&File::open(tree)?, devices)?];
        let (data, tree, blocks) = (below[0].numbers()?, below[1].numbers()?, size / BLOCK_BYTES);
        let root = root.hex();
        let parameters =
            format!("1 {data} {tree} {BLOCK_BYTES} {BLOCK_BYTES} {blocks} 0 sha256 {root} -");
        // One of the same name may be in use still, by instances that have outlived a launcher.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let mapper = DeviceMapper::open(devices)?;
        let target =
            Target { kind: "verity", sectors: size / SECTOR_BYTES, parameters: &parameters };
        let minor = mapper.create(&name, &target)?;
        let path = devices.join(format!("dm-{minor}"));
        let device = File::open(&path);
        mapper.remove_when_unused(&name)?;
        Ok(Self { path, _device: device?, _below: below })
    }

    /// Where the device is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sees to it that devices whose names begin with `prefix` go with their last users: a launcher
    /// may have been killed before it could.
    pub(super) fn remove_left(devices: &Path, prefix: &str) {
        // Without its module there are no devices, and asking would load it.
        if !Path::new("/sys/module/dm_mod").exists() {
            return;
        }
        let Ok(mapper) = DeviceMapper::open(devices) else { return };
        let names = mapper.names().unwrap_or_default();
        for name in names.iter().filter(|name| name.starts_with(prefix)) {
            report("remove a device", mapper.remove_when_unused(name));
        }
    }
}
