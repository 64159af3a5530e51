//! Loop devices, for kernels before Linux 6.12, which mount EROFS only from block devices.
//!
//! A device is set up read-only and with auto-clear: it goes with its last mount and its last
//! descriptor, so that nothing of it can be left behind. The interface is that of `loop(4)` and
//! the kernel's `include/uapi/linux/loop.h`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const READ_ONLY: u32 = 1;
const AUTO_CLEAR: u32 = 4;

/// The block size that EROFS images have.
const BLOCK_BYTES: u32 = 4096;

/// How often a device may be snatched away by somebody else before this gives up.
const ATTEMPTS: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A loop device over a file. It is there as long as this, or a mount of it, is.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: PathBuf,
    device: OwnedFd,
}

impl LoopDevice {
    /// A device over `file`; `devices` is the host's /dev.
    pub(super) fn over(file: &File, devices: &Path) -> io::Result<Self> {
        let control = devices.join("loop-control");
        let control = OpenOptions::new().read(true).write(true).open(control).map_err(|error| {
            let text = format!("this machine has no loop devices; load the module `loop`: {error}");
            io::Error::new(error.kind(), text)
        })?;
        for _ in 0..ATTEMPTS {
            // SAFETY: the request takes no argument and gives back a number.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = devices.join(format!("loop{number}"));
            let device = File::open(&path)?;
            match configure(&device, file) {
                Ok(()) => return Ok(Self { path, device: device.into() }),
                // Somebody else was faster.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "other programs take every loop device"))
    }

    /// Where the device is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its numbers, as the kernel writes them.
    pub(super) fn numbers(&self) -> io::Result<String> {
        let device = rustix::fs::fstat(&self.device)?.st_rdev;
        Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    }
}

fn configure(device: &File, file: &File) -> io::Result<()> {
    let config = LoopConfig {
        fd: file.as_raw_fd().unsigned_abs(),
        block_size: BLOCK_BYTES,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: READ_ONLY | AUTO_CLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    let argument: *const LoopConfig = &raw const config;
    // SAFETY: the argument is a whole `struct loop_config`, which the kernel only reads.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
