//! The files that functions may read: those below the stack's directory, and no others.
//!
//! Confinement is the kernel's: paths are opened beneath the directory (`openat2` with
//! `RESOLVE_BENEATH`), so that neither `..` nor a symbolic link leads out of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// The most files that one listing yields.
const MAX_FILES: usize = 100_000;
/// The deepest directory that a listing enters.
const MAX_DEPTH: usize = 64;

/// What functions want of the file system. Paths are relative to the stack's directory.
pub trait Files {
    /// The content of a regular file.
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError>;

    /// Whether there is a regular file.
    fn exists(&self, path: &str) -> Result<bool, FileError>;

    /// The paths, relative to `path`, of all regular files below the directory `path`, sorted.
    /// Links to directories are not followed. A directory that is not there has no files.
    fn list(&self, path: &str) -> Result<Vec<String>, FileError>;
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is nothing of that name.
    #[error("there is no file \"{0}\" in the stack's directory")]
    NotFound(String),
    /// The path leads out of the stack's directory.
    #[error("\"{0}\" lies outside of the stack's directory")]
    Outside(String),
    /// It is a directory, a device or the like.
    #[error("\"{0}\" is not a regular file")]
    NotRegular(String),
    /// It is too large.
    #[error("\"{0}\" is larger than {MAX_FILE} bytes")]
    TooLarge(String),
    /// There is too much to list.
    #[error("\"{0}\" has more than {MAX_FILES} files or is deeper than {MAX_DEPTH}")]
    TooMany(String),
    /// A name is not UTF-8.
    #[error("\"{0}\" holds a file whose name is not UTF-8")]
    Name(String),
    /// The system said no.
    #[error("\"{0}\" cannot be read")]
    Io(String, #[source] io::Error),
}

impl FileError {
    /// The way out, where there is one in particular.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Outside(_) => Some(
                "copy the file into the stack's directory: what a stack is made of stands in it",
            ),
            Self::NotFound(_) => Some("paths are relative to the stack's directory"),
            _ => None,
        }
    }
}

/// The directory of a stack.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    read: RefCell<BTreeSet<PathBuf>>,
}

impl Directory {
    /// Opens a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        // Absolute paths are compared with it, which may themselves go through links.
        let path = path.canonicalize()?;
        Ok(Self { fd, path, read: RefCell::default() })
    }

    /// The files that have been read or looked for, relative to the directory.
    pub fn files_read(&self) -> BTreeSet<PathBuf> {
        self.read.borrow().clone()
    }

    /// `path` relative to the directory, without `.` and with `..` resolved.
    fn relative(&self, path: &str) -> Result<PathBuf, FileError> {
        let given = Path::new(path);
        let inside = if given.is_absolute() {
            given.strip_prefix(&self.path).map_err(|_| FileError::Outside(path.into()))?
        } else {
            given
        };
        let mut parts = PathBuf::new();
        for component in inside.components() {
            match component {
                Component::Normal(part) => parts.push(part),
                Component::ParentDir if !parts.pop() => {
                    return Err(FileError::Outside(path.into()));
                }
                _ => {}
            }
        }
        if parts.as_os_str().is_empty() {
            parts.push(".");
        }
        Ok(parts)
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, FileError> {
        let relative = self.relative(path)?;
        // A pipe must not make anyone wait.
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = openat2(&self.fd, &relative, flags, Mode::empty(), resolve);
        self.read.borrow_mut().insert(relative);
        opened.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => FileError::NotFound(path.into()),
            Errno::XDEV => FileError::Outside(path.into()),
            errno => FileError::Io(path.into(), errno.into()),
        })
    }

    fn open_regular(&self, path: &str) -> Result<OwnedFd, FileError> {
        let fd = self.open_beneath(path, OFlags::empty())?;
        let stat = fstat(&fd).map_err(|errno| FileError::Io(path.into(), errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            Ok(fd)
        } else {
            Err(FileError::NotRegular(path.into()))
        }
    }

    fn walk(
        &self,
        directory: &str,
        prefix: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) -> Result<(), FileError> {
        let failed = |errno: Errno| FileError::Io(directory.into(), errno.into());
        let fd = self.open_beneath(directory, OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().map_err(|_| FileError::Name(directory.into()))?;
            if name == "." || name == ".." {
                continue;
            }
            if found.len() == MAX_FILES || depth == MAX_DEPTH {
                return Err(FileError::TooMany(directory.into()));
            }
            let (path, relative) = (format!("{directory}/{name}"), format!("{prefix}{name}"));
            match self.kind(&path, entry.file_type())? {
                FileType::RegularFile => found.push(relative),
                FileType::Directory => {
                    self.walk(&path, &format!("{relative}/"), depth + 1, found)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What an entry is: a link to a file inside counts as that file, any other link as nothing.
    fn kind(&self, path: &str, found: FileType) -> Result<FileType, FileError> {
        match found {
            FileType::Symlink => {
                let file = self.open_regular(path).is_ok();
                Ok(if file { FileType::RegularFile } else { FileType::Symlink })
            }
            FileType::Unknown => match self.open_beneath(path, OFlags::NOFOLLOW) {
                Ok(fd) => fstat(&fd)
                    .map(|stat| FileType::from_raw_mode(stat.st_mode))
                    .map_err(|errno| FileError::Io(path.into(), errno.into())),
                Err(_) => Ok(FileType::Unknown),
            },
            known => Ok(known),
        }
    }
}

impl Files for Directory {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let fd = self.open_regular(path)?;
        let mut content = Vec::new();
        std::fs::File::from(fd)
            .take(MAX_FILE + 1)
            .read_to_end(&mut content)
            .map_err(|error| FileError::Io(path.into(), error))?;
        if u64::try_from(content.len()).is_ok_and(|length| length > MAX_FILE) {
            return Err(FileError::TooLarge(path.into()));
        }
        Ok(content)
    }

    fn exists(&self, path: &str) -> Result<bool, FileError> {
        match self.open_regular(path) {
            Ok(_) => Ok(true),
            Err(FileError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<String>, FileError> {
        let mut found = Vec::new();
        match self.walk(path, "", 0, &mut found) {
            Err(FileError::NotFound(missing)) if missing == path => {}
            other => other?,
        }
        found.sort();
        Ok(found)
    }
}
