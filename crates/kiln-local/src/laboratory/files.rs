//! Looking for files in an image, without running anything.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_model::spec::image::Check;
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};

use crate::launcher::images::{Image, Images};
use crate::launcher::user;

/// How much of a file is searched, in bytes.
const MAX_SEARCHED: u64 = 64 << 20;

/// An image, mounted nowhere but here.
pub(super) struct Files(Image);

impl Files {
    /// Mounts the filesystem in `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Images::plain(PathBuf::from("/dev")).look_into(path).map(Self)
    }

    /// Whether a check of files holds, and what was found. None for other checks.
    pub(super) fn check(&self, check: &Check) -> Option<(bool, String)> {
        let result = match check {
            Check::NoSuchFile { path } => self.absent(path),
            Check::File { path, contains, mode, owner } => {
                self.present(path, contains.as_deref(), *mode, owner.as_deref())
            }
            _ => return None,
        };
        Some(result.unwrap_or_else(|error| (false, error.to_string())))
    }

    /// Links lead anywhere in the image, and nowhere outside of it.
    fn find(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(self.0.root(), path, flags, Mode::empty(), resolve)
    }

    fn absent(&self, path: &str) -> io::Result<(bool, String)> {
        match self.find(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                Ok((true, "there is none".to_owned()))
            }
            Err(error) => Err(error.into()),
            Ok(found) => Ok((false, format!("there is a {}", kind(&rustix::fs::fstat(&found)?)))),
        }
    }

    fn present(
        &self,
        path: &str,
        contains: Option<&str>,
        mode: Option<u32>,
        owner: Option<&str>,
    ) -> io::Result<(bool, String)> {
        let found = match self.find(path, OFlags::PATH) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                return Ok((false, "there is none".to_owned()));
            }
            found => found?,
        };
        let stat = rustix::fs::fstat(&found)?;
        let has = stat.st_mode & 0o7777;
        if mode.is_some_and(|mode| mode != has) {
            return Ok((false, format!("its mode is {has:#o}")));
        }
        if let Some(wanted) = owner
            && let Some(other) = self.other_owner(wanted, &stat)
        {
            return Ok((false, other));
        }
        match contains {
            Some(_) if kind(&stat) != "file" => {
                Ok((false, format!("it is a {} and contains no text", kind(&stat))))
            }
            Some(text) => self.contains(path, text),
            None => Ok((true, format!("it is a {} of mode {has:#o}", kind(&stat)))),
        }
    }

    /// What is wrong with a file's owner, if something is.
    fn other_owner(&self, wanted: &str, stat: &Stat) -> Option<String> {
        match user::resolve(self.0.root(), wanted) {
            Err(error) => Some(error),
            Ok(identity) => {
                let group = !wanted.contains(':') || identity.gid == stat.st_gid;
                let same = identity.uid == stat.st_uid && group;
                (!same).then(|| format!("it belongs to {}:{}", stat.st_uid, stat.st_gid))
            }
        }
    }

    fn contains(&self, path: &str, text: &str) -> io::Result<(bool, String)> {
        let file = File::from(self.find(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let mut bytes = Vec::new();
        file.take(MAX_SEARCHED).read_to_end(&mut bytes)?;
        let wanted = text.as_bytes();
        let found = wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted);
        let length = bytes.len();
        let what = if found { "it contains that" } else { "it does not contain that" };
        Ok((found, format!("{what} ({length} bytes)")))
    }
}

fn kind(stat: &Stat) -> &'static str {
    use rustix::fs::FileType;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => "directory",
        FileType::RegularFile => "file",
        FileType::Symlink => "link",
        FileType::Fifo => "named pipe",
        _ => "special file",
    }
}
