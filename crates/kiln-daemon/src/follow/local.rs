//! Noticing at once that a repository of this machine has moved: what its branch is kept in is
//! looked at, which costs a few system calls and reads nothing of what the repository holds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What would be another one had the branch moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint([Option<(u64, i64, i64, u64)>; 3]);

/// The fingerprint of a branch in the repository at `path`.
pub(super) fn fingerprint(path: &Path, branch: &str) -> Fingerprint {
    let directory = common_directory(path);
    let kept_in = [
        directory.join("refs/heads").join(branch),
        directory.join("packed-refs"),
        directory.join("reftable/tables.list"),
    ];
    Fingerprint(kept_in.map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    }))
}

/// Where the branches are: in `.git`, in the directory itself, or where a file `.git` or
/// `commondir` leads to.
fn common_directory(path: &Path) -> PathBuf {
    let mut directory = path.join(".git");
    if let Ok(text) = fs::read_to_string(&directory)
        && let Some(to) = text.trim_end().strip_prefix("gitdir: ")
    {
        directory = path.join(to);
    }
    if !directory.exists() {
        path.clone_into(&mut directory);
    }
    match fs::read_to_string(directory.join("commondir")) {
        Ok(to) => directory.join(to.trim_end()),
        Err(_) => directory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_that_moves_is_noticed_wherever_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let git = path.join(".git");
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        let mut last = fingerprint(path, "main");
        assert_eq!(fingerprint(path, "main"), last);
        for file in ["refs/heads/main", "packed-refs"] {
            for content in ["1", "2"] {
                // As git does it: a new file takes the place of the old one.
                fs::write(git.join("new"), content).unwrap();
                fs::rename(git.join("new"), git.join(file)).unwrap();
                let next = fingerprint(path, "main");
                assert_ne!(next, last, "{file} {content}");
                last = next;
            }
        }
        fs::write(git.join("refs/heads/other"), "3").unwrap();
        assert_eq!(fingerprint(path, "main"), last, "another branch is none of its business");
        assert_eq!(fingerprint(&git, "main"), last, "the same, named directly");
    }
}
