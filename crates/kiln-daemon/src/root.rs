//! A root: the directory that holds all state of one Kiln.
//!
//! ```text
//! ROOT/id       eight hex digits, in the name of each kernel object
//! ROOT/run      sockets, locks, and what must not outlive a boot
//! ROOT/store    generations, journals, keys, and where stacks live
//! ROOT/images   built images
//! ROOT/logs     what instances and the daemon wrote
//! ROOT/cache    downloads
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The longest path of a root in bytes: a unix socket's path, with `/run/` and the socket's name
/// behind the root's, has at most 107.
const MAX_PATH_BYTES: usize = 80;

/// A root directory. Making the value touches nothing.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
}

/// Why a root can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// This user may not do it.
    #[error("only root may do this: instances, networks and images need its rights")]
    NotRoot,
    /// The directory can't be made or read.
    #[error("the root directory {path} cannot be used")]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Sockets would not fit.
    #[error(
        "the root directory's path {path} has {found} bytes, and sockets in it allow for {most}",
        most = MAX_PATH_BYTES
    )]
    TooLong {
        /// The directory.
        path: PathBuf,
        /// The length of its path.
        found: usize,
    },
    /// The id was damaged.
    #[error("{path} does not hold eight hexadecimal digits; restore it from a backup")]
    BadId {
        /// The file.
        path: PathBuf,
    },
}

impl RootError {
    /// The way out.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotRoot => Some("run the command as root, for example with sudo"),
            Self::Unusable { .. } => {
                Some("name a directory that root can write to with --root DIR")
            }
            Self::TooLong { .. } => Some("choose a shorter path with --root DIR"),
            Self::BadId { .. } => None,
        }
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Locked {
    _file: File,
}

impl Root {
    /// The root at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket of the daemon.
    pub fn socket(&self) -> PathBuf {
        self.path.join("run/kiln.sock")
    }

    /// Where generations, journals and keys are.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where logs are.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Where the daemon writes what it does.
    pub fn daemon_log(&self) -> PathBuf {
        self.logs().join("daemon.log")
    }

    /// Makes what is missing of the layout. Only root may.
    pub fn prepare(&self) -> Result<(), RootError> {
        if !rustix::process::geteuid().is_root() {
            return Err(RootError::NotRoot);
        }
        let found = self.path.as_os_str().as_bytes().len();
        if found > MAX_PATH_BYTES {
            return Err(RootError::TooLong { path: self.path.clone(), found });
        }
        for directory in ["", "run", "store", "images", "logs", "cache"] {
            let path =
                if directory.is_empty() { self.path.clone() } else { self.path.join(directory) };
            make_private(&path).map_err(|source| RootError::Unusable { path, source })?;
        }
        self.id().map(drop)
    }

    /// The id, made at first use. Of several processes that make it at once, all get the same.
    pub fn id(&self) -> Result<String, RootError> {
        let path = self.path.join("id");
        let failed = |source| RootError::Unusable { path: path.clone(), source };
        if !path.exists() {
            let mut bytes = [0; 4];
            getrandom::fill(&mut bytes).map_err(|e| failed(io::Error::other(e)))?;
            let id = u32::from_le_bytes(bytes);
            let beside = self.path.join(format!("id.{}", std::process::id()));
            let written = private_file(&beside)
                .and_then(|mut file| write!(file, "{id:08x}").and_then(|()| file.sync_all()))
                // A link, unlike a rename, leaves an id alone that another process made meanwhile.
                .and_then(|()| match fs::hard_link(&beside, &path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    _ => Ok(()),
                });
            let removed = fs::remove_file(&beside);
            written.and(removed).map_err(failed)?;
        }
        let id = fs::read_to_string(&path).map_err(failed)?;
        let id = id.trim_end();
        let valid = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if valid { Ok(id.to_owned()) } else { Err(RootError::BadId { path }) }
    }

    /// The lock of the one daemon; `None` where another process has it.
    pub fn try_lock_daemon(&self) -> Result<Option<Locked>, RootError> {
        self.try_lock("run/daemon.lock")
    }

    /// The lock of those who start a daemon; `None` where another process has it.
    pub fn try_lock_start(&self) -> Result<Option<Locked>, RootError> {
        self.try_lock("run/start.lock")
    }

    /// The lock of the one process that follows a branch; `None` where another one has it.
    pub fn try_lock_follow(&self, id: &str) -> Result<Option<Locked>, RootError> {
        self.try_lock(&format!("run/follow-{id}.lock"))
    }

    fn try_lock(&self, name: &str) -> Result<Option<Locked>, RootError> {
        let path = self.path.join(name);
        let failed = |source| RootError::Unusable { path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Locked { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// Makes a directory that only its owner may enter, with those above it.
fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_private_and_keeps_its_id() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a_root_is_private_and_keeps_its_id: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("root"));
        root.prepare().unwrap();
        let id = root.id().unwrap();
        root.prepare().unwrap();
        assert_eq!(root.id().unwrap(), id);
        for name in ["", "run", "store", "logs"] {
            let mode = fs::metadata(root.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name}");
        }
        fs::write(root.path().join("id"), "../../etc").unwrap();
        assert!(matches!(root.id(), Err(RootError::BadId { .. })));
    }

    #[test]
    fn a_lock_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir(dir.path().join("run")).unwrap();
        let first = root.try_lock_daemon().unwrap();
        assert!(first.is_some());
        assert!(root.try_lock_daemon().unwrap().is_none());
        drop(first);
        assert!(root.try_lock_daemon().unwrap().is_some());
    }

    #[test]
    fn a_path_that_leaves_no_room_for_sockets_is_refused() {
        let root = Root::new(format!("/tmp/{}", "x".repeat(100)));
        let error = root.prepare().unwrap_err();
        assert!(matches!(error, RootError::TooLong { .. } | RootError::NotRoot));
    }
}
