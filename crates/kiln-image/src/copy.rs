//! Files that a recipe copies from the stack's directory.
//!
//! What is copied is the same on each machine: directories are 0755, files 0644, or 0755 where
//! their owner may run them; owners and times on disk do not count. A file's time in the image
//! follows from its content, since web servers tell versions of a file apart by time and length.
//! The digest covers names, contents, modes and links: the SHA-256 of one line for each entry, in
//! the order of their paths, after the line `kiln.copy.v1`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use kiln_model::digest::Digest;

use crate::checksum::{self, Hasher};
use crate::tree::Content;

/// How many entries one copy may have.
const MAX_ENTRIES: usize = 1_000_000;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 128;
/// Files up to this length, in bytes, are held in memory.
const SMALL_BYTES: u64 = 64 << 10;

/// A copy that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Nothing is there.
    #[error("copy \"{from}\": there is no such file or directory in {stack}")]
    Missing {
        /// What was to be copied.
        from: String,
        /// The stack's directory.
        stack: PathBuf,
    },
    /// The path, or a link on it, leads out of the stack's directory.
    #[error(
        "copy \"{from}\": {path} leads out of {stack}; move the files into the stack's directory"
    )]
    Escapes {
        /// What was to be copied.
        from: String,
        /// The path or link.
        path: PathBuf,
        /// What it must not leave.
        stack: PathBuf,
    },
    /// A device, socket or pipe.
    #[error("copy \"{from}\": {path} is neither a file, a directory nor a link; leave it out")]
    Special {
        /// What was to be copied.
        from: String,
        /// The file.
        path: PathBuf,
    },
    /// Too many entries or levels.
    #[error(
        "copy \"{from}\": there are more than {MAX_ENTRIES} entries or {MAX_DEPTH} levels at {path}"
    )]
    TooMany {
        /// What was to be copied.
        from: String,
        /// Where it became too much.
        path: PathBuf,
    },
    /// The files changed since they were measured.
    #[error("copy \"{from}\": the files changed while the image was being built; build again")]
    Changed {
        /// What was to be copied.
        from: String,
    },
    /// A file can't be read, or not be put aside for the image.
    #[error("copy \"{from}\": can't read or write {path}")]
    Io {
        /// What was to be copied.
        from: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// One entry of a copy.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Below what is copied; empty for that itself.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: CopiedKind,
}

#[derive(Debug)]
pub(crate) enum CopiedKind {
    Directory,
    File { content: Content, digest: Digest, executable: bool },
    Symlink(Vec<u8>),
}

/// The digest of what `from` copies out of the directory `stack`.
pub fn digest(stack: &Path, from: &str) -> Result<Digest, CopyError> {
    let entries = Collector::new(stack, from, None)?.collect()?;
    Ok(digest_of(&entries))
}

/// Takes in what `from` copies. Large files go to `spool`, so that a change on disk from here on
/// does not reach the image. The digest must be `expected`.
pub(crate) fn collect(
    stack: &Path,
    from: &str,
    expected: &Digest,
    spool: &Path,
) -> Result<Vec<Copied>, CopyError> {
    let entries = Collector::new(stack, from, Some(spool))?.collect()?;
    if digest_of(&entries) == *expected {
        Ok(entries)
    } else {
        Err(CopyError::Changed { from: from.to_owned() })
    }
}

fn digest_of(entries: &[Copied]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(b"kiln.copy.v1\n");
    for entry in entries {
        let (kind, value) = match &entry.kind {
            CopiedKind::Directory => ("directory", String::new()),
            CopiedKind::File { digest, executable: false, .. } => ("file", digest.hex()),
            CopiedKind::File { digest, executable: true, .. } => ("program", digest.hex()),
            // Lengths keep a name with a line break from posing as two entries.
            CopiedKind::Symlink(target) => ("link", Digest::of(target).hex()),
        };
        let head = format!("{kind} {value} {} ", entry.path.len());
        hasher.update(head.as_bytes());
        hasher.update(&entry.path);
        hasher.update(b"\n");
    }
    hasher.finish().0
}

struct Collector<'a> {
    stack: &'a Path,
    from: &'a str,
    /// The file or directory that is copied, without links on the way.
    start: PathBuf,
    spool: Option<&'a Path>,
    entries: Vec<Copied>,
}

impl<'a> Collector<'a> {
    fn new(stack: &'a Path, from: &'a str, spool: Option<&'a Path>) -> Result<Self, CopyError> {
        let escapes = |path: &Path| CopyError::Escapes {
            from: from.to_owned(),
            path: path.into(),
            stack: stack.into(),
        };
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(from).components().all(inside) {
            return Err(escapes(Path::new(from)));
        }
        let path = stack.join(from);
        let start = path.canonicalize().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                CopyError::Missing { from: from.to_owned(), stack: stack.into() }
            }
            _ => CopyError::Io { from: from.to_owned(), path: path.clone(), source },
        })?;
        let root = stack.canonicalize().map_err(|source| CopyError::Io {
            from: from.to_owned(),
            path: stack.into(),
            source,
        })?;
        if !start.starts_with(&root) {
            return Err(escapes(&start));
        }
        Ok(Self { stack, from, start, spool, entries: Vec::new() })
    }

    fn collect(mut self) -> Result<Vec<Copied>, CopyError> {
        let start = self.start.clone();
        self.add(&start, Vec::new(), 0)?;
        Ok(self.entries)
    }

    fn io(&self, path: &Path) -> impl FnOnce(io::Error) -> CopyError {
        let (from, path) = (self.from.to_owned(), path.to_path_buf());
        move |source| CopyError::Io { from, path, source }
    }

    fn add(&mut self, path: &Path, below: Vec<u8>, depth: usize) -> Result<(), CopyError> {
        if self.entries.len() >= MAX_ENTRIES || depth > MAX_DEPTH {
            return Err(CopyError::TooMany { from: self.from.to_owned(), path: path.into() });
        }
        let metadata = fs::symlink_metadata(path).map_err(self.io(path))?;
        let kind = if metadata.is_dir() {
            CopiedKind::Directory
        } else if metadata.is_symlink() {
            self.symlink(path, &below)?
        } else if metadata.is_file() {
            self.file(path, metadata.len(), metadata.permissions().mode() & 0o100 != 0)?
        } else {
            return Err(CopyError::Special { from: self.from.to_owned(), path: path.into() });
        };
        let is_directory = matches!(kind, CopiedKind::Directory);
        self.entries.push(Copied { path: below.clone(), kind });
        if is_directory {
            let mut names = Vec::new();
            for entry in fs::read_dir(path).map_err(self.io(path))? {
                names.push(entry.map_err(self.io(path))?.file_name());
            }
            names.sort();
            for name in names {
                let mut child = below.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend(name.as_bytes());
                self.add(&path.join(&name), child, depth + 1)?;
            }
        }
        Ok(())
    }

    /// A link must stay inside what is copied, so that it means the same in the image.
    fn symlink(&self, path: &Path, below: &[u8]) -> Result<CopiedKind, CopyError> {
        let target = fs::read_link(path).map_err(self.io(path))?;
        let mut depth = below.split(|c| *c == b'/').count() - 1;
        let mut inside = !below.is_empty();
        for part in target.components() {
            match part {
                Component::Normal(_) => depth += 1,
                Component::CurDir => {}
                Component::ParentDir if depth > 0 => depth -= 1,
                _ => inside = false,
            }
        }
        if inside {
            return Ok(CopiedKind::Symlink(target.into_os_string().into_vec()));
        }
        let (from, stack) = (self.from.to_owned(), self.stack.into());
        Err(CopyError::Escapes { from, path: path.into(), stack })
    }

    fn file(&self, path: &Path, length: u64, executable: bool) -> Result<CopiedKind, CopyError> {
        let mut file = File::open(path).map_err(self.io(path))?;
        let Some(spool) = self.spool else {
            let (digest, _) = checksum::of_reader(file).map_err(self.io(path))?;
            return Ok(CopiedKind::File { content: Vec::new().into(), digest, executable });
        };
        if length <= SMALL_BYTES {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(self.io(path))?;
            let digest = Digest::of(&bytes);
            return Ok(CopiedKind::File { content: bytes.into(), digest, executable });
        }
        let kept =
            spool.join(format!("copy-{}", Digest::of(path.as_os_str().as_bytes()).short(32)));
        let (digest, length) = keep(&mut file, &kept).map_err(self.io(&kept))?;
        let content = Content::Stored { path: kept.into(), offset: 0, length };
        Ok(CopiedKind::File { content, digest, executable })
    }
}

/// Writes a copy of a file and sums it on the way.
fn keep(file: &mut File, kept: &Path) -> io::Result<(Digest, u64)> {
    let mut copy = File::create(kept)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        copy.write_all(&buffer[..count])?;
    }
}

/// A time that follows from a content: between the years 2000 and 2020, in seconds since 1970.
pub(crate) fn time_of(content: &Digest) -> i64 {
    const YEAR_2000: i64 = 946_684_800;
    const TWENTY_YEARS: i64 = 631_152_000;
    let number = content.as_bytes()[..6].iter().fold(0_i64, |n, byte| n << 8 | i64::from(*byte));
    YEAR_2000 + number % TWENTY_YEARS
}
