//! Laying a layer over the tree of those below it.
//!
//! Removals come first: what a layer brings itself, only a later one can remove. A path goes
//! through links inside the tree as it would under `chroot`; none leads out of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tar::EntryType;

use super::archive::{Archive, Entry};
use super::{FREE_BYTES, LayerError, MAX_ENTRIES, MAX_RATIO, MAX_UNPACKED_BYTES, OPAQUE, WHITEOUT};
use crate::tree::{Content, Inode, Metadata, ShownPath, Tree, TreeError};

/// Extended attributes that mean something only to the machine that wrote them.
const LOCAL_XATTRS: [&[u8]; 4] =
    [b"trusted.overlay.", b"security.selinux", b"security.ima", b"security.evm"];

/// What was left out, for the user to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Devices below `/dev`, which instances get their own of.
    pub devices: usize,
}

/// Lays the archive in the file `spool` over `tree`. Contents stay in the file, which must outlive
/// the tree unchanged. `layer` is what it is called in errors.
pub fn apply(tree: &mut Tree, spool: &Path, layer: &str) -> Result<Notes, LayerError> {
    let mut archive = Layer::open(spool, layer)?;
    let mut removals = BTreeSet::new();
    archive.each(|_, entry| {
        let (directory, name) = split(&entry.path);
        if name.starts_with(WHITEOUT) {
            removals.insert((directory.to_vec(), name.to_vec()));
        }
        Ok(())
    })?;
    for (directory, name) in &removals {
        remove(tree, directory, name).map_err(|source| archive.place(name, source))?;
    }
    add(tree, archive, true)
}

/// Lays a root filesystem that is no layer over `tree`: names mean nothing but themselves.
pub fn apply_rootfs(tree: &mut Tree, spool: &Path, archive: &str) -> Result<Notes, LayerError> {
    add(tree, Layer::open(spool, archive)?, false)
}

fn add(tree: &mut Tree, mut archive: Layer<'_>, whiteouts: bool) -> Result<Notes, LayerError> {
    let mut notes = Notes::default();
    archive.each(|layer, entry| {
        if whiteouts && split(&entry.path).1.starts_with(WHITEOUT) {
            return Ok(());
        }
        if is_device(entry.kind) && entry.path.starts_with(b"dev/") {
            notes.devices += 1;
            return Ok(());
        }
        layer.add(tree, entry)
    })?;
    Ok(notes)
}

/// A path's directory and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn is_device(kind: EntryType) -> bool {
    matches!(kind, EntryType::Char | EntryType::Block)
}

/// Removes what a whiteout in `directory` names. Where nothing is, nothing is removed.
fn remove(tree: &mut Tree, directory: &[u8], name: &[u8]) -> Result<(), TreeError> {
    // A whiteout stands in the very directory that it is about: no link leads there.
    let above = (0..directory.len()).filter(|at| directory[*at] == b'/').chain([directory.len()]);
    for end in above.filter(|end| *end > 0) {
        if tree.get(&directory[..end]).is_none_or(|inode| !inode.is_directory()) {
            return Ok(());
        }
    }
    let path = |name: &[u8]| [directory, b"/", name].concat();
    let names: Vec<Vec<u8>> = if name == OPAQUE {
        let there = if directory.is_empty() { tree.get("/") } else { tree.get(directory) };
        match there.map(Inode::kind) {
            Some(crate::tree::Kind::Directory(children)) => {
                children.iter().map(|(name, _)| name.to_vec()).collect()
            }
            _ => Vec::new(),
        }
    } else {
        vec![name[WHITEOUT.len()..].to_vec()]
    };
    for name in names {
        // `.wh..wh.plnk` and the like are notes of a union filesystem about itself.
        let removable = !name.is_empty() && name != b"." && name != b"..";
        if removable && tree.get(path(&name)).is_some() {
            tree.remove(path(&name))?;
        }
    }
    Ok(())
}

/// An archive that is being read, with its name for errors.
struct Layer<'a> {
    spool: Arc<Path>,
    name: &'a str,
    /// What contents may still add up to, in bytes; sparse files count in full.
    room_bytes: u64,
}

impl<'a> Layer<'a> {
    fn open(spool: &Path, layer: &'a str) -> Result<Self, LayerError> {
        let length = std::fs::metadata(spool)
            .map_err(|source| LayerError::Io { path: spool.into(), source })?;
        let room_bytes = FREE_BYTES
            .saturating_add(length.len().saturating_mul(MAX_RATIO))
            .min(MAX_UNPACKED_BYTES);
        Ok(Self { spool: spool.into(), name: layer, room_bytes })
    }

    /// Reads all entries, their paths made clean.
    fn each(
        &mut self,
        mut act: impl FnMut(&mut Self, Entry) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let damaged = |source| LayerError::Damaged { layer: self.name.to_owned(), source };
        let mut archive = Archive::open(&self.spool).map_err(damaged)?;
        let mut count = 0;
        loop {
            let damaged = |source| LayerError::Damaged { layer: self.name.to_owned(), source };
            let Some(mut entry) = archive.next().map_err(damaged)? else { return Ok(()) };
            count += 1;
            if count > MAX_ENTRIES {
                return Err(LayerError::TooMany { layer: self.name.to_owned() });
            }
            entry.path = self.clean(&entry.path, "the path", &entry.path)?;
            act(self, entry)?;
        }
    }

    /// A path from the root, without `.` and empty parts.
    fn clean(&self, path: &[u8], what: &'static str, entry: &[u8]) -> Result<Vec<u8>, LayerError> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        if path.first() == Some(&b'/') || parts.contains(&&b".."[..]) {
            return Err(self.forbidden(what, entry));
        }
        let named = parts.into_iter().filter(|part| !part.is_empty() && *part != b".");
        Ok(named.collect::<Vec<_>>().join(&b'/'))
    }

    fn forbidden(&self, what: &'static str, entry: &[u8]) -> LayerError {
        LayerError::Forbidden { layer: self.name.to_owned(), what, entry: entry.into() }
    }

    fn place(&self, entry: &[u8], source: TreeError) -> LayerError {
        LayerError::Place { layer: self.name.to_owned(), entry: entry.into(), source }
    }

    /// Adds one entry to the tree, in place of what is there.
    fn add(&mut self, tree: &mut Tree, entry: Entry) -> Result<(), LayerError> {
        let path = entry.path.clone();
        let place = |source| LayerError::Place {
            layer: self.name.to_owned(),
            entry: ShownPath::from(&path),
            source,
        };
        let metadata = self.metadata(&entry)?;
        if path.is_empty() {
            return match entry.kind {
                EntryType::Directory => tree.set_metadata("/", metadata).map_err(place),
                _ => Err(self.forbidden("the path", b"/")),
            };
        }
        let (directory, _) = split(&path);
        if !directory.is_empty() {
            tree.make_directories(directory, &Metadata::new(0o755)).map_err(place)?;
        }
        let is_directory = entry.kind == EntryType::Directory;
        let old = tree.get(&path).map(Inode::is_directory);
        if let EntryType::Link = entry.kind {
            let target = self.clean(&entry.link, "the link", &path)?;
            if old == Some(true) {
                tree.remove(&path).map_err(place)?;
            }
            return tree.link(target, &path).map(drop).map_err(place);
        }
        let inode = match entry.kind {
            EntryType::Directory => Inode::directory(metadata),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                Inode::file(metadata, self.content(&entry)?)
            }
            EntryType::Symlink => Inode::symlink(metadata, &entry.link),
            EntryType::Fifo => Inode::fifo(metadata),
            EntryType::Char | EntryType::Block => return Err(self.forbidden("the device", &path)),
            _ => return Err(self.forbidden("the special file", &path)),
        };
        if old.is_some_and(|old| old != is_directory) {
            tree.remove(&path).map_err(place)?;
        }
        tree.replace(&path, inode).map(drop).map_err(place)
    }

    fn metadata(&self, entry: &Entry) -> Result<Metadata, LayerError> {
        let owner =
            |id: u64| u32::try_from(id).map_err(|_| self.forbidden("the owner", &entry.path));
        // Above the permissions some programs write the kind of file again.
        let mode = u16::try_from(entry.mode & 0o7777).unwrap_or_default();
        let mut metadata = Metadata::new(mode)
            .owned_by(owner(entry.uid)?, owner(entry.gid)?)
            .modified_at(entry.mtime);
        for (name, value) in &entry.xattrs {
            if !LOCAL_XATTRS.iter().any(|local| name.starts_with(local)) {
                metadata.xattrs.insert(name.clone(), value.clone());
            }
        }
        Ok(metadata)
    }

    /// Where the content is. That of a sparse file is written out beside the archive.
    fn content(&mut self, entry: &Entry) -> Result<Content, LayerError> {
        let too_large =
            || LayerError::TooLarge { layer: self.name.to_owned(), limit_bytes: self.room_bytes };
        self.room_bytes = self.room_bytes.checked_sub(entry.size).ok_or_else(too_large)?;
        match entry.pieces[..] {
            [] if entry.size == 0 => Ok(Content::from(Vec::new())),
            [piece] if piece.at == 0 && piece.length == entry.size => Ok(Content::Stored {
                path: Arc::clone(&self.spool),
                offset: piece.offset,
                length: piece.length,
            }),
            _ => {
                let path = self.spool.with_extension(format!(
                    "sparse-{}",
                    kiln_model::digest::Digest::of(&entry.path).short(32)
                ));
                let expanded = expand(&self.spool, entry, &path);
                expanded.map_err(|source| LayerError::Io { path: path.clone(), source })?;
                Ok(Content::Stored { path: path.into(), offset: 0, length: entry.size })
            }
        }
    }
}

/// Writes a sparse file with its holes.
fn expand(spool: &Path, entry: &Entry, path: &Path) -> io::Result<()> {
    let (from, to) = (File::open(spool)?, File::create(path)?);
    to.set_len(entry.size)?;
    let mut buffer = vec![0; 64 << 10];
    for piece in &entry.pieces {
        let mut done = 0;
        while done < piece.length {
            let count = usize::try_from(piece.length - done).unwrap_or(usize::MAX);
            let part = &mut buffer[..count.min(64 << 10)];
            from.read_exact_at(part, piece.offset + done)?;
            to.write_all_at(part, piece.at + done)?;
            done += part.len() as u64;
        }
    }
    Ok(())
}
