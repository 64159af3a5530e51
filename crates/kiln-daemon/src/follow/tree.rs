//! The files of a commit, written out as they are: no filter, no line ending and no attribute is
//! applied, and nothing can be written or lead outside of the directory.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::git::{Git, GitError, start};

/// The most files that a stack's directory may have.
const MAX_FILES: usize = 200_000;
/// The most bytes that its files may have together.
const MAX_BYTES: u64 = 4 << 30;
/// The longest target of a link, in bytes.
const MAX_LINK: u64 = 4096;
/// How long a listing may be, in bytes.
const MAX_LISTING: u64 = 256 << 20;
/// How long writing out may take.
const BOUND: Duration = Duration::from_secs(600);

/// Why the files of a commit can't be written out.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// The commit has no such directory.
    #[error("the commit has no directory {0}")]
    NoDirectory(String),
    /// A name that no file may have.
    #[error("the commit has a file with the name {0:?}, which leads elsewhere")]
    Name(String),
    /// A link out of the directory.
    #[error("the link {link} leads to {target:?}, out of the stack's directory")]
    Escapes { link: String, target: String },
    /// More than a stack may have.
    #[error("the stack's directory has more than {what}")]
    TooMuch { what: String },
    /// Git refused.
    #[error("the files of the commit cannot be read")]
    Git(#[from] GitError),
    /// Git answered what makes no sense.
    #[error("git does not answer as it should: {0}")]
    Answer(&'static str),
    /// Writing failed.
    #[error("the files of the commit cannot be written out")]
    Write(#[from] io::Error),
}

impl TreeError {
    /// Whether it is the commit that is bad, and not this machine.
    pub(super) fn is_of_the_commit(&self) -> bool {
        match self {
            Self::NoDirectory(_) | Self::Name(_) | Self::Escapes { .. } | Self::TooMuch { .. } => {
                true
            }
            Self::Git(_) | Self::Answer(_) | Self::Write(_) => false,
        }
    }
}

/// One file of a commit.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    id: String,
    kind: EntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    File { executable: bool },
    Link,
    Submodule,
}

/// Writes the files below `path` of a commit to `directory`, which must not be there. The paths of
/// submodules, which stay empty directories: what they lead to is fetched from nowhere.
pub(super) fn write_out(
    (git, git_dir): (&Git, &str),
    commit: &str,
    path: &str,
    directory: &Path,
) -> Result<Vec<String>, TreeError> {
    let tree = format!("{commit}:{path}");
    let of_it = ["cat-file", "-t", &tree];
    let kind = git.run(with(git_dir, &of_it), BOUND, 64);
    if !kind.is_ok_and(|kind| kind == b"tree\n") {
        return Err(TreeError::NoDirectory(path.to_owned()));
    }
    let listing =
        git.run(with(git_dir, &["ls-tree", "-r", "-z", "-l", &tree]), BOUND, MAX_LISTING)?;
    let entries = read_listing(&listing)?;
    fs::create_dir_all(directory)?;
    let mut contents = Contents::open(git, git_dir)?;
    // Links come last: while files are written there is none that could lead a path elsewhere.
    let (links, others): (Vec<_>, Vec<_>) =
        entries.iter().partition(|entry| entry.kind == EntryKind::Link);
    let mut submodules = Vec::new();
    for entry in others {
        let to = directory.join(&entry.path);
        fs::create_dir_all(to.parent().unwrap_or(directory))?;
        match entry.kind {
            EntryKind::File { executable } => {
                let mode = if executable { 0o755 } else { 0o644 };
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(mode).open(&to)?;
                contents.copy(&entry.id, &mut file)?;
            }
            EntryKind::Submodule => {
                fs::create_dir(&to)?;
                submodules.push(entry.path.display().to_string());
            }
            EntryKind::Link => {}
        }
    }
    for entry in links {
        let mut target = Vec::new();
        contents.copy(&entry.id, &mut target)?;
        check_link(&entry.path, &target)?;
        let to = directory.join(&entry.path);
        fs::create_dir_all(to.parent().unwrap_or(directory))?;
        symlink(std::ffi::OsStr::from_bytes(&target), &to)?;
    }
    contents.close();
    Ok(submodules)
}

fn with<'a>(git_dir: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    std::iter::once(git_dir).chain(arguments.iter().copied()).collect()
}

/// Reads what `git ls-tree -r -z -l` lists: `MODE TYPE ID SIZE TAB PATH NUL` of each file.
fn read_listing(listing: &[u8]) -> Result<Vec<Entry>, TreeError> {
    let (mut entries, mut total) = (Vec::new(), 0_u64);
    for line in listing.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        let tab = line.iter().position(|byte| *byte == b'\t');
        let (head, path) = line.split_at(tab.ok_or(TreeError::Answer("an entry has no name"))?);
        let path = checked_path(&path[1..])?;
        let head = String::from_utf8_lossy(head).into_owned();
        let mut words = head.split_ascii_whitespace();
        let (mode, _, id, size) = (words.next(), words.next(), words.next(), words.next());
        let size = size.and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        let kind = match mode {
            Some("100755") => EntryKind::File { executable: true },
            Some("120000") if size <= MAX_LINK => EntryKind::Link,
            Some("160000") => EntryKind::Submodule,
            Some(mode) if mode.starts_with("100") => EntryKind::File { executable: false },
            _ => return Err(TreeError::Answer("an entry is of no known kind")),
        };
        total = total.saturating_add(size);
        let id = id.ok_or(TreeError::Answer("an entry has no object"))?.to_owned();
        entries.push(Entry { path, id, kind });
    }
    if entries.len() > MAX_FILES {
        return Err(TreeError::TooMuch { what: format!("{MAX_FILES} files") });
    }
    if total > MAX_BYTES {
        return Err(TreeError::TooMuch { what: format!("{} GiB", MAX_BYTES >> 30) });
    }
    Ok(entries)
}

/// A path whose every part is the name of a file.
fn checked_path(path: &[u8]) -> Result<PathBuf, TreeError> {
    let bad = |part: &[u8]| {
        part.is_empty() || part == b"." || part == b".." || part.eq_ignore_ascii_case(b".git")
    };
    if path.split(|byte| *byte == b'/').any(bad) {
        return Err(TreeError::Name(String::from_utf8_lossy(path).into_owned()));
    }
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

/// Lets a link lead only to what is in the directory: `..` stands at its beginning alone, where it
/// counts from a real directory, and not more often than that directory is deep. So whatever other
/// links come on the way, each leads inside again.
fn check_link(link: &Path, target: &[u8]) -> Result<(), TreeError> {
    let depth = link.components().count().saturating_sub(1);
    let parts: Vec<&[u8]> =
        target.split(|byte| *byte == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    let up = parts.iter().take_while(|part| **part == b"..").count();
    let inside = !target.is_empty()
        && !target.contains(&0)
        && target[0] != b'/'
        && up <= depth
        && parts[up..].iter().all(|part| *part != b"..");
    if inside {
        return Ok(());
    }
    let target = String::from_utf8_lossy(target).into_owned();
    Err(TreeError::Escapes { link: link.display().to_string(), target })
}

/// The contents of objects, one after another, from one `git cat-file --batch`.
struct Contents {
    child: Child,
    asked: Option<std::process::ChildStdin>,
    answers: BufReader<std::process::ChildStdout>,
    /// Dropped when all is read: until then somebody watches the time.
    _watched: mpsc::Sender<()>,
}

impl Contents {
    fn open(git: &Git, git_dir: &str) -> Result<Self, TreeError> {
        let mut command = git.command([git_dir, "cat-file", "--batch"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = start(&mut command)?;
        let asked = child.stdin.take();
        let answers = child.stdout.take().ok_or(TreeError::Answer("it has no output"))?;
        let (watched, over) = mpsc::channel::<()>();
        let pid = rustix::process::Pid::from_child(&child);
        thread::spawn(move || {
            if over.recv_timeout(BOUND) == Err(mpsc::RecvTimeoutError::Timeout) {
                // It is a child that nobody has waited for: the number is still its own.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        Ok(Self { child, asked, answers: BufReader::new(answers), _watched: watched })
    }

    /// Copies an object's content.
    fn copy(&mut self, id: &str, to: &mut impl io::Write) -> Result<(), TreeError> {
        let asked = self.asked.as_mut().ok_or(TreeError::Answer("it is closed"))?;
        writeln!(asked, "{id}")?;
        let mut head = String::new();
        self.answers.read_line(&mut head)?;
        // `ID blob SIZE`.
        let size = head.strip_prefix(id).and_then(|rest| rest.strip_prefix(" blob "));
        let size = size.and_then(|size| size.trim_end().parse::<u64>().ok());
        let size = size.ok_or(TreeError::Answer("an object is missing"))?;
        let copied = io::copy(&mut self.answers.by_ref().take(size), to)?;
        let mut end = [0];
        self.answers.read_exact(&mut end)?;
        if copied == size && end == *b"\n" { Ok(()) } else { Err(TreeError::Answer("too short")) }
    }

    fn close(mut self) {
        drop(self.asked.take());
        // It ends with its input, and how does not matter any more.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_inside_only() {
        let check = |link: &str, target: &str| check_link(Path::new(link), target.as_bytes());
        for (link, target) in
            [("a", "b"), ("a", "./b/c"), ("d/a", "../b"), ("d/e/a", "../../b/c"), ("a", "...")]
        {
            check(link, target).unwrap();
        }
        for (link, target) in [
            ("a", "/etc/passwd"),
            ("a", ".."),
            ("a", "../b"),
            ("d/a", "../../b"),
            ("d/a", "x/../b"),
            ("a", "d/x/.."),
            ("a", ""),
        ] {
            assert!(check(link, target).is_err(), "{link} -> {target}");
        }
    }

    #[test]
    fn a_listing_is_read_and_bad_names_are_refused() {
        let id = "a".repeat(40);
        let listing = format!(
            "100644 blob {id}      12\tmain.kiln.hcl\0100755 blob {id}       3\tbin/run\0\
             120000 blob {id}       4\tlink\0160000 commit {id}       -\tvendor/x\0"
        );
        let kinds: Vec<EntryKind> =
            read_listing(listing.as_bytes()).unwrap().iter().map(|entry| entry.kind).collect();
        let file = |executable| EntryKind::File { executable };
        assert_eq!(kinds, [file(false), file(true), EntryKind::Link, EntryKind::Submodule]);
        for name in ["../x", "a/../x", ".git/config", "a/.GIT/x", "/x", "a//b"] {
            let listing = format!("100644 blob {id} 1\t{name}\0");
            let error = read_listing(listing.as_bytes()).unwrap_err();
            assert!(matches!(error, TreeError::Name(_)), "{name}: {error}");
        }
        let huge = format!("100644 blob {id} {}\tx\0", MAX_BYTES + 1);
        assert!(matches!(read_listing(huge.as_bytes()), Err(TreeError::TooMuch { .. })));
    }
}
