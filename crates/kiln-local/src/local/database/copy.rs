//! Copies of volumes that nobody holds: by sharing blocks where the filesystem can (btrfs, XFS and
//! others, `FICLONE`), else byte by byte. What was an instance's is not trusted: nothing is followed
//! out of the volume.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, chownat, fchmod, fchown, ioctl_ficlone, mkdirat,
    openat, readlinkat, symlinkat, syncfs,
};
use rustix::io::Errno;

/// Copies what is in the directory `from` into the directory `to`, with owners and modes, and puts
/// it on the disk. Directories, files and links are what a data directory holds; anything else
/// is an error, and so is that `stop` says so.
pub(super) fn tree(from: &Path, to: &Path, stop: &dyn Fn() -> bool) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::open(from, flags, Mode::empty())?;
    let to = rustix::fs::open(to, flags, Mode::empty())?;
    directory(&from, &to, stop)?;
    Ok(syncfs(&to)?)
}

fn directory(from: &OwnedFd, to: &OwnedFd, stop: &dyn Fn() -> bool) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        if stop() {
            return Err(io::Error::other("it is not wanted any more"));
        }
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = openat(from, name, flags, Mode::empty())?;
                let to = openat(to, name, flags, Mode::empty())?;
                directory(&from, &to, stop)?;
                own(&to, &stat)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = openat(from, name, OFlags::RDONLY | flags, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let to = openat(to, name, create | flags, Mode::RUSR | Mode::WUSR)?;
                contents(&from, &to)?;
                own(&to, &stat)?;
            }
            FileType::Symlink => {
                symlinkat(&*readlinkat(from, name, Vec::new())?, to, name)?;
                let (user, group) = owner(&stat);
                chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            // Of a server that was killed; a new one makes its own.
            FileType::Socket => {}
            other => {
                let name = name.to_string_lossy();
                return Err(io::Error::other(format!("{name} is a {other:?}")));
            }
        }
    }
    Ok(())
}

fn contents(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(()),
        // Another filesystem, or one that cannot.
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
            let (mut from, mut to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
            io::copy(&mut from, &mut to).map(drop)
        }
        Err(error) => Err(error.into()),
    }
}

fn own(file: impl AsFd, stat: &Stat) -> io::Result<()> {
    let (user, group) = owner(stat);
    fchown(&file, user, group)?;
    Ok(fchmod(&file, Mode::from_raw_mode(stat.st_mode))?)
}

fn owner(stat: &Stat) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(stat.st_uid)), Some(rustix::fs::Gid::from_raw(stat.st_gid)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn all_is_there_as_it_was_and_nothing_else_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        std::fs::create_dir_all(from.join("base/1")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("base/1/2600"), vec![7; 3 << 20]).unwrap();
        std::fs::write(from.join("PG_VERSION"), "15\n").unwrap();
        symlink("/etc/passwd", from.join("base/link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("base/socket")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(from.join("PG_VERSION"), mode).unwrap();
        tree(&from, &to, &|| false).unwrap();
        assert_eq!(std::fs::read(to.join("base/1/2600")).unwrap(), vec![7; 3 << 20]);
        assert_eq!(std::fs::metadata(to.join("PG_VERSION")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_link(to.join("base/link")).unwrap(), Path::new("/etc/passwd"));
        assert!(!to.join("base/socket").exists());
    }

    #[test]
    fn it_stops_and_says_what_it_cannot_copy() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, from.join("pipe"), Mode::RUSR).unwrap();
        let error = tree(&from, &to, &|| false).unwrap_err();
        assert!(error.to_string().contains("pipe"), "{error}");
        assert!(tree(&from, &to, &|| true).is_err());
    }
}
