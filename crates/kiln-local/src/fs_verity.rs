//! fs-verity: files whose content the kernel lets nobody change, and verifies block by block.
//!
//! The interface is that of `Documentation/filesystems/fsverity.rst` and
//! `include/uapi/linux/fsverity.h` of the Linux sources. Kiln uses SHA-256, blocks of 4096 bytes,
//! and neither salt nor signature.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use kiln_model::digest::Digest;

/// `_IOW('f', 133, struct fsverity_enable_arg)`.
const ENABLE: libc::Ioctl = 0x4080_6685;
/// `_IOWR('f', 134, struct fsverity_digest)`.
const MEASURE: libc::Ioctl = 0xc004_6686;
/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u16 = 1;
const BLOCK_BYTES: u32 = 4096;

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableArgument {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    more: [u64; 11],
}

/// `struct fsverity_digest` with room for SHA-256.
#[repr(C)]
struct MeasureArgument {
    algorithm: u16,
    size: u16,
    digest: [u8; 32],
}

/// Seals a file for good. One that is sealed already stays as it is. Nobody, the caller included,
/// may have it open for writing: that is [`io::ErrorKind::ExecutableFileBusy`]. It takes reading
/// the whole file.
pub(crate) fn enable(file: &File) -> io::Result<()> {
    let argument = EnableArgument {
        version: 1,
        hash_algorithm: u32::from(SHA256),
        block_size: BLOCK_BYTES,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved: 0,
        signature: 0,
        more: [0; 11],
    };
    // SAFETY: the argument is a whole `struct fsverity_enable_arg`, which the kernel only reads.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE, &raw const argument) };
    match io::Error::last_os_error() {
        _ if done >= 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}

/// What the kernel measures of a file; `None` where it is not sealed, or not by SHA-256.
pub(crate) fn measure(file: &File) -> io::Result<Option<Digest>> {
    let mut argument = MeasureArgument { algorithm: 0, size: 32, digest: [0; 32] };
    // SAFETY: the argument is a `struct fsverity_digest` with the room that it says it has.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE, &raw mut argument) };
    if done >= 0 {
        let ours = argument.algorithm == SHA256 && argument.size == 32;
        return Ok(ours.then(|| Digest::from_bytes(argument.digest)));
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOVERFLOW)) => Ok(None),
        error => Err(error),
    }
}
