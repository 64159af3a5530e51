//! The writable space of an instance, as an archive.
//!
//! What is in there was written by whoever is suspected, so no name in it is followed: each is opened
//! below the directory that it stands in, and links are kept as links.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};
use tar::{Builder, EntryType, Header};

use super::bundle::Bundle;

/// The file in the bundle.
const NAME: &str = "writable.tar";

/// Entries that are kept; further ones are counted.
const ENTRIES: usize = 10_000;

/// Directories in each other that are gone into.
const DEPTH: usize = 64;

/// The most that is kept of one file, bytes.
const FILE: u64 = 16 << 20;

/// What a header and the rest of a block take at most, bytes.
const BLOCK: u64 = 1536;

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// What goes into the archive, and how much room is left for it.
struct Archive<'a> {
    tar: Builder<Counted>,
    bundle: &'a mut Bundle,
    room: u64,
    entries: usize,
    skipped: usize,
    cut: usize,
}

/// A file that knows how much was written.
struct Counted {
    file: File,
    size: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Saves what is in every writable tmpfs that process `pid` has mounted, but its devices.
pub(super) fn save(bundle: &mut Bundle, pid: i32) -> io::Result<()> {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let Ok(top) = File::open(format!("/proc/{pid}/root")) else {
        bundle.omit(format!("{NAME}: its main process has ended, and its mounts with it"));
        return Ok(());
    };
    let file = bundle.create(NAME)?;
    // The end of an archive takes two blocks, and its file is padded.
    let left = bundle.left().saturating_sub(32 * BLOCK);
    let tar = Builder::new(Counted { file, size: 0 });
    let mut archive = Archive { tar, bundle, room: left, entries: 0, skipped: 0, cut: 0 };
    for path in writable(&mounts) {
        let relative = path.trim_start_matches('/');
        let flags = READ | OFlags::DIRECTORY;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(&top, relative, flags, Mode::empty(), inside) {
            Ok(directory) => archive.directory(directory, Path::new(relative), DEPTH)?,
            Err(error) => archive.bundle.omit(format!("{path}: {error}")),
        }
    }
    archive.finish()
}

impl Archive<'_> {
    /// Adds all that is in a directory.
    fn directory(&mut self, directory: OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        for entry in Dir::new(directory.try_clone()?)? {
            let entry = entry?;
            let name = entry.file_name();
            if [b"." as &[u8], b".."].contains(&name.to_bytes()) {
                continue;
            }
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            if self.entries >= ENTRIES || self.room < 4 * BLOCK || self.bundle.is_late() {
                self.skipped += 1;
                continue;
            }
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let mut header = Header::new_gnu();
            header.set_mode(stat.st_mode & 0o7777);
            header.set_uid(stat.st_uid.into());
            header.set_gid(stat.st_gid.into());
            header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
            header.set_size(0);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.add(&mut header, EntryType::Directory, &path, io::empty())?;
                    let flags = READ | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    if depth == 0 {
                        self.skipped += 1;
                    } else if let Ok(inner) = open(&directory, name, flags) {
                        self.directory(inner, &path, depth - 1)?;
                    }
                }
                FileType::RegularFile => {
                    let Ok(file) = open(&directory, name, READ | OFlags::NOFOLLOW) else {
                        self.skipped += 1;
                        continue;
                    };
                    self.file(&mut header, &path, File::from(file))?;
                }
                FileType::Symlink => {
                    let target = readlinkat(&directory, name, Vec::new())?;
                    let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                    header.set_entry_type(EntryType::Symlink);
                    self.entries += 1;
                    self.room = self.room.saturating_sub(3 * BLOCK);
                    self.tar.append_link(&mut header, &path, target)?;
                }
                FileType::Fifo => self.add(&mut header, EntryType::Fifo, &path, io::empty())?,
                // Sockets and devices are nothing but their names.
                _ => self.skipped += 1,
            }
        }
        Ok(())
    }

    fn file(&mut self, header: &mut Header, path: &Path, file: File) -> io::Result<()> {
        let whole = file.metadata()?.len();
        let size = whole.min(FILE).min(self.room.saturating_sub(3 * BLOCK));
        self.cut += usize::from(size < whole);
        header.set_size(size);
        self.room = self.room.saturating_sub(size);
        // One that is shorter by now is filled up: its header is written already.
        self.add(header, EntryType::Regular, path, file.chain(io::repeat(0)).take(size))
    }

    fn add(
        &mut self,
        header: &mut Header,
        kind: EntryType,
        path: &Path,
        content: impl io::Read,
    ) -> io::Result<()> {
        self.entries += 1;
        self.room = self.room.saturating_sub(3 * BLOCK);
        header.set_entry_type(kind);
        self.tar.append_data(header, path, content)
    }

    fn finish(self) -> io::Result<()> {
        let written = self.tar.into_inner()?;
        self.bundle.done(NAME, written.size);
        for (count, what) in [(self.skipped, "left out"), (self.cut, "cut")] {
            if count > 0 {
                self.bundle.omit(format!("{NAME}: {count} entries are {what}"));
            }
        }
        Ok(())
    }
}

fn open(directory: &OwnedFd, name: &std::ffi::CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(directory, name, flags, Mode::empty(), ResolveFlags::BENEATH)
}

/// Where something writable is mounted that lives in memory alone, but for devices.
fn writable(mounts: &str) -> Vec<String> {
    let of_line = |line: &str| {
        // `proc_pid_mountinfo(5)`: id, parent, device, root, place, options, … - type, source, options.
        let (mount, kind) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let (place, options) = (fields.get(4)?, fields.get(5)?);
        let writable = options.split(',').any(|option| option == "rw");
        let device = *place == "/dev" || place.starts_with("/dev/");
        (kind.starts_with("tmpfs ") && writable && !device).then(|| unescape(place))
    };
    mounts.lines().filter_map(of_line).collect()
}

/// A path as the kernel writes it: spaces and the like by octal numbers.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (escaped, plain)| path.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn writable_places_are_read_from_the_mount_table() {
        let mounts = "\
21 20 0:20 / / ro,relatime - erofs /dev/loop0 ro
22 21 0:21 / /tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=1024k
23 21 0:22 / /dev rw,nosuid - tmpfs tmpfs rw
24 21 0:23 / /var/my\\040space rw - tmpfs tmpfs rw
25 21 0:24 / /etc/hosts ro - tmpfs tmpfs rw
26 21 0:25 / /data rw - ext4 /dev/vda rw
";
        assert_eq!(writable(mounts), ["/tmp", "/var/my space"]);
    }

    #[test]
    fn links_are_kept_as_links_and_nothing_outside_is_read() {
        let root = tempfile::tempdir().unwrap();
        let space = root.path().join("space");
        fs::create_dir_all(space.join("deep")).unwrap();
        fs::write(root.path().join("outside"), "of the machine").unwrap();
        fs::write(space.join("deep/tool"), "dropped").unwrap();
        symlink("../outside", space.join("link")).unwrap();
        symlink("..", space.join("up")).unwrap();
        let large = vec![7; usize::try_from(FILE + 1).unwrap()];
        fs::write(space.join("large"), large).unwrap();
        let directory = root.path().join("incidents");
        let mut bundle =
            Bundle::begin(&directory, "web-1", Instant::now() + Duration::from_secs(60)).unwrap();
        let tar = Builder::new(Counted { file: bundle.create(NAME).unwrap(), size: 0 });
        let left = bundle.left();
        let mut archive =
            Archive { tar, bundle: &mut bundle, room: left, entries: 0, skipped: 0, cut: 0 };
        let opened = OwnedFd::from(File::open(&space).unwrap());
        archive.directory(opened, Path::new("tmp"), DEPTH).unwrap();
        assert_eq!((archive.skipped, archive.cut), (0, 1));
        archive.finish().unwrap();
        let text = fs::read(directory.join(".web-1").join(NAME)).unwrap();
        let mut found = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(&*text).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.insert(path, (entry.header().entry_type(), content));
        }
        let names: Vec<&str> = found.keys().map(|name| name.trim_end_matches('/')).collect();
        assert_eq!(names, ["tmp/deep", "tmp/deep/tool", "tmp/large", "tmp/link", "tmp/up"]);
        assert_eq!(found["tmp/deep/tool"].1, b"dropped");
        assert_eq!(found["tmp/link"].0, EntryType::Symlink);
        assert_eq!(found["tmp/large"].1.len() as u64, FILE);
    }
}
