//! What an instance may write, held by Landlock beside its mounts.
//!
//! The mounts make everything read-only but declared places. Landlock says the same once more, to
//! the process itself: nothing is written, made, renamed or removed outside them, devices are made
//! nowhere, and no mount is ever changed, whatever becomes of the mounts or of the filter. It can't
//! be taken off and is inherited by all that the process starts.
//!
//! Calls and structures are those of the kernel's include/uapi/linux/landlock.h. Kernels before
//! 5.19, which refuse every rename from one directory to another under Landlock, and those without
//! it do with the mounts alone.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const WRITE_FILE: u64 = 1 << 1;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
/// Renames and links from one directory to another; since version 2.
const REFER: u64 = 1 << 13;
/// Since version 3.
const TRUNCATE: u64 = 1 << 14;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: libc::c_long = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: libc::c_long = 1;

/// Where every program writes, and what that may be is decided by the kernel and by the mounts: to
/// files that exist, no more.
const KERNEL_PLACES: [&str; 2] = ["/dev", "/proc"];

/// `struct landlock_ruleset_attr`, as version 1 knows it.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// Rules that are made and not in force yet.
#[derive(Debug)]
pub(crate) struct Ruleset(OwnedFd);

/// The version of Landlock that the kernel has; 0 where it has none.
pub(crate) fn version() -> i64 {
    // SAFETY: with this flag the kernel takes no structure.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, ASK_VERSION)
    };
    version.max(0)
}

impl Ruleset {
    /// Rules under which only what is below `writable` can be written; none where the kernel has no
    /// Landlock that does.
    pub(crate) fn new<'a>(writable: impl Iterator<Item = &'a str>) -> io::Result<Option<Self>> {
        let version = version();
        if version < 2 {
            return Ok(None);
        }
        let truncate = if version >= 3 { TRUNCATE } else { 0 };
        let devices = MAKE_CHAR | MAKE_BLOCK;
        let own = WRITE_FILE
            | REMOVE_DIR
            | REMOVE_FILE
            | MAKE_DIR
            | MAKE_REG
            | MAKE_SOCK
            | MAKE_FIFO
            | MAKE_SYM
            | REFER
            | truncate;
        let attr = RulesetAttr { handled_access_fs: own | devices };
        // SAFETY: the structure is live and of the stated size.
        let fd = check(unsafe {
            let size = size_of::<RulesetAttr>();
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0)
        })?;
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has made it for us alone.
        let ruleset = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        for place in writable {
            ruleset.allow(place, own)?;
        }
        for place in KERNEL_PLACES {
            ruleset.allow(place, WRITE_FILE | truncate)?;
        }
        Ok(Some(ruleset))
    }

    fn allow(&self, place: &str, allowed_access: u64) -> io::Result<()> {
        let path = CString::new(place).map_err(io::Error::other)?;
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let place = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
        let attr = PathBeneathAttr { allowed_access, parent_fd: place.as_raw_fd() };
        // SAFETY: the structure is live, and of the form that this kind of rule has.
        check(unsafe {
            let fd = self.0.as_raw_fd();
            libc::syscall(libc::SYS_landlock_add_rule, fd, PATH_BENEATH, &raw const attr, 0)
        })?;
        Ok(())
    }

    /// Puts the calling thread under the rules, for good. `no_new_privs` must be set.
    pub(crate) fn restrict(&self) -> io::Result<()> {
        // SAFETY: numbers only.
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) })?;
        Ok(())
    }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_is_declared_can_be_written() {
        if version() < 2 {
            println!("skipped: only_what_is_declared_can_be_written: no Landlock here");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(inside.join("deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("there"), "x").unwrap();
        let place = inside.to_str().unwrap().to_owned();
        // The rules are a thread's own.
        let tried = std::thread::spawn(move || {
            let rules = Ruleset::new([place.as_str()].into_iter()).unwrap().unwrap();
            rustix::thread::set_no_new_privs(true).unwrap();
            rules.restrict().unwrap();
            let denied = |result: io::Result<()>| {
                result.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES))
            };
            fs::write(inside.join("new"), "x").unwrap();
            fs::rename(inside.join("new"), inside.join("deep/new")).unwrap();
            fs::remove_file(inside.join("deep/new")).unwrap();
            fs::write("/dev/null", "x").unwrap();
            assert_eq!(fs::read_to_string(outside.join("there")).unwrap(), "x");
            [
                denied(fs::write(outside.join("new"), "x")),
                denied(fs::write(outside.join("there"), "y")),
                denied(fs::remove_file(outside.join("there"))),
                denied(fs::create_dir(outside.join("directory"))),
                denied(std::os::unix::fs::symlink("/", outside.join("link"))),
            ]
        });
        assert_eq!(tried.join().unwrap(), [true; 5]);
    }
}
