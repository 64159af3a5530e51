//! What a layer must hold to make one tree of another.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{LayerError, WHITEOUT};
use crate::tree::{Content, Inode, Kind, NodeId, Tree};

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Something that is there, by its path from the root; empty for the root.
    There(Vec<u8>),
    /// Something of the tree below that is there no more.
    Gone(Vec<u8>),
}

/// The entries of a layer that holds all of `tree`. The root is left out where it is as each tree's
/// is in the beginning.
pub fn everything(tree: &Tree) -> Vec<Change> {
    let plain = Tree::new();
    let root = tree.inode(NodeId::ROOT).metadata() == plain.inode(NodeId::ROOT).metadata();
    tree.walk().skip(usize::from(root)).map(|visit| Change::There(visit.path)).collect()
}

/// The entries of a layer that makes `upper` of `lower`, in the order of their paths: what is new,
/// other or gone, and the directories above it, since what unpacks a layer by itself would make
/// those as it likes.
pub fn changes(lower: &Tree, upper: &Tree) -> Result<Vec<Change>, LayerError> {
    let (before, after) = (first_names(lower), first_names(upper));
    let mut there: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut whole: HashSet<NodeId> = HashSet::new();
    for visit in upper.walk() {
        let old = at(lower, &visit.path);
        // What a file is called first tells which names share it.
        let same_names = old
            .is_some_and(|(id, _)| before.get(&id) == after.get(&visit.id) || id == NodeId::ROOT);
        let same = match old {
            Some((_, old)) if same_names => {
                let read = |source| LayerError::Read { entry: (&visit.path).into(), source };
                is_same(old, visit.inode).map_err(read)?
            }
            _ => false,
        };
        if !same {
            whole.insert(visit.id);
            there.insert(visit.path);
        }
    }
    // Of a file with several names all are in a layer or none: a link needs what it links to.
    for visit in upper.walk() {
        if whole.contains(&visit.id) {
            there.insert(visit.path);
        }
    }
    let gone = removed(lower, upper);
    let parents: Vec<Vec<u8>> = there.iter().chain(&gone).flat_map(|path| above(path)).collect();
    let has_root = there.contains(&b""[..]);
    there.extend(parents);
    if !has_root {
        there.remove(&b""[..]);
    }
    let mut changes: Vec<Change> = there.into_iter().map(Change::There).collect();
    changes.extend(gone.into_iter().map(Change::Gone));
    let path = |change: &Change| match change {
        Change::There(path) | Change::Gone(path) => {
            path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>()
        }
    };
    changes.sort_by_cached_key(path);
    Ok(changes)
}

/// What stands at the very path, through no link.
pub(super) fn at<'a>(tree: &'a Tree, path: &[u8]) -> Option<(NodeId, &'a Inode)> {
    let mut id = NodeId::ROOT;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let Kind::Directory(children) = tree.inode(id).kind() else { return None };
        id = children.get(name)?;
    }
    Some((id, tree.inode(id)))
}

/// The first name of each file that has several.
fn first_names(tree: &Tree) -> HashMap<NodeId, Vec<u8>> {
    let mut names = HashMap::new();
    for visit in tree.walk() {
        names.entry(visit.id).or_insert(visit.path);
    }
    names
}

/// What is in `lower` and has no entry in `upper`, without what is below it. What is below something
/// that is no directory any more goes with it.
fn removed(lower: &Tree, upper: &Tree) -> Vec<Vec<u8>> {
    let mut gone: Vec<Vec<u8>> = Vec::new();
    for visit in lower.walk() {
        let parent = above(&visit.path).next_back().unwrap_or_default();
        let in_directory = at(upper, &parent).is_some_and(|(_, inode)| inode.is_directory());
        if in_directory && at(upper, &visit.path).is_none() {
            gone.push(visit.path);
        }
    }
    gone
}

/// The directories above a path, from the root on; none above the root.
fn above(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    let slashes = (0..path.len()).filter(|at| path[*at] == b'/');
    let ends: Vec<usize> =
        std::iter::once(0).chain(slashes).filter(|end| *end < path.len()).collect();
    ends.into_iter().map(move |end| path[..end].to_vec())
}

fn is_same(old: &Inode, new: &Inode) -> io::Result<bool> {
    if old.metadata() != new.metadata() {
        return Ok(false);
    }
    Ok(match (old.kind(), new.kind()) {
        (Kind::Directory(_), Kind::Directory(_)) | (Kind::Fifo, Kind::Fifo) => true,
        (Kind::Symlink(old), Kind::Symlink(new)) => old == new,
        (Kind::File(old), Kind::File(new)) => is_same_content(old, new)?,
        _ => false,
    })
}

/// Whether two contents have the same bytes, wherever they stand.
fn is_same_content(old: &Content, new: &Content) -> io::Result<bool> {
    const PART_BYTES: u64 = 64 << 10;
    if old == new || old.len() != new.len() {
        return Ok(old == new);
    }
    let (old, new) = (Opened::new(old)?, Opened::new(new)?);
    for at in (0..old.length).step_by(64 << 10) {
        let count = PART_BYTES.min(old.length - at);
        if old.part(at, count)? != new.part(at, count)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A content whose parts can be read.
struct Opened<'a> {
    content: &'a Content,
    file: Option<File>,
    length: u64,
}

impl<'a> Opened<'a> {
    fn new(content: &'a Content) -> io::Result<Self> {
        let file = match content {
            Content::Bytes(_) => None,
            Content::Stored { path, .. } => Some(File::open(path)?),
        };
        Ok(Self { content, file, length: content.len() })
    }

    fn part(&self, at: u64, count: u64) -> io::Result<Vec<u8>> {
        let size = |number: u64| usize::try_from(number).map_err(io::Error::other);
        match (self.content, &self.file) {
            (Content::Stored { offset, .. }, Some(file)) => {
                let mut part = vec![0; size(count)?];
                file.read_exact_at(&mut part, offset + at)?;
                Ok(part)
            }
            (Content::Bytes(bytes), _) => Ok(bytes[size(at)?..size(at + count)?].to_vec()),
            (Content::Stored { .. }, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// Refuses a name that would mean a removal.
pub(super) fn check_name(path: &[u8]) -> Result<(), LayerError> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if name.starts_with(WHITEOUT) { Err(LayerError::Name { entry: path.into() }) } else { Ok(()) }
}
