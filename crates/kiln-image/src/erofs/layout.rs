//! Where everything goes, decided from names and lengths alone.
//!
//! Inodes stand in the order of a walk, but for those that fill up a block before; directories'
//! blocks come behind them, then files' blocks, both in the order of the walk. An inode with its extended attributes and inline content never crosses a
//! block, unless its attributes alone are larger than one: then it starts at a block.

use sha2::{Digest, Sha256};

use super::format::{BLOCK, MAX_BLOCKS, SLOT, SUPERBLOCK_AT, SUPERBLOCK_LEN};
use super::inode::{DataLayout, Form, Place, file_type};
use super::space::Space;
use super::superblock::Superblock;
use super::{Options, WriteError, dirent, inode, xattr};
use crate::tree::{Inode, Kind, NodeId, ShownPath, Tree};

/// One inode of the image.
#[derive(Debug)]
pub(super) struct Record {
    /// Which inode of the tree it is.
    pub(super) id: NodeId,
    /// The directory above it, or for the root itself; for a file, of its first name.
    pub(super) parent: NodeId,
    /// Where the inode starts, in bytes.
    pub(super) at: u64,
    /// What it says.
    pub(super) place: Place,
}

impl Record {
    fn new(id: NodeId, parent: NodeId) -> Self {
        let place = Place {
            form: Form::Compact,
            data: DataLayout::Plain,
            xattr_count: 0,
            nlink: 1,
            size: 0,
            block: 0,
            number: 0,
        };
        Self { id, parent, at: 0, place }
    }

    /// The bytes of content that stand right after the inode.
    pub(super) fn inline(&self) -> u64 {
        match self.place.data {
            DataLayout::Plain => 0,
            DataLayout::Inline => self.place.size % BLOCK,
        }
    }

    /// The bytes of content that stand in whole blocks.
    pub(super) fn outside(&self) -> u64 {
        self.place.size - self.inline()
    }
}

/// The whole image, decided.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) tree: &'a Tree,
    /// In the order of a walk, which is also that of their whole blocks.
    pub(super) records: Vec<Record>,
    /// Indices into `records` in the order in which the inodes stand.
    by_offset: Vec<usize>,
    /// The index in `records` of each inode of the tree that has a name.
    index: Vec<Option<usize>>,
    pub(super) superblock: Superblock,
}

impl<'a> Layout<'a> {
    pub(super) fn new(tree: &'a Tree, options: Options) -> Result<Self, WriteError> {
        let superblock = Superblock {
            root_nid: 0,
            inodes: 0,
            build_time: options.build_time,
            blocks: 0,
            uuid: [0; 16],
        };
        let mut layout = Self {
            tree,
            records: Vec::new(),
            by_offset: Vec::new(),
            index: vec![None; tree.id_bound()],
            superblock,
        };
        layout.collect();
        layout.measure();
        let blocks = layout.place()?;
        layout.superblock.blocks = blocks;
        layout.superblock.inodes = layout.records.len() as u64;
        layout.superblock.root_nid = u16::try_from(layout.nid(NodeId::ROOT)).unwrap_or(u16::MAX);
        layout.superblock.uuid = layout.uuid();
        Ok(layout)
    }

    /// Makes a record of every inode that has a name and counts the names.
    fn collect(&mut self) {
        let mut ahead = vec![(NodeId::ROOT, NodeId::ROOT)];
        while let Some((id, parent)) = ahead.pop() {
            if let Some(known) = self.index[id.index()] {
                self.records[known].place.nlink += 1;
                continue;
            }
            self.index[id.index()] = Some(self.records.len());
            let mut record = Record::new(id, parent);
            if let Kind::Directory(children) = self.tree.inode(id).kind() {
                let directories = children.iter().filter(|(_, child)| self.is_directory(*child));
                record.place.nlink = 2 + u32::try_from(directories.count()).unwrap_or(u32::MAX - 2);
                ahead.extend(children.iter().rev().map(|(_, child)| (child, id)));
            }
            self.records.push(record);
        }
    }

    /// Finds each record's size, form and attributes.
    fn measure(&mut self) {
        for (number, record) in (1..).zip(&mut self.records) {
            let inode = self.tree.inode(record.id);
            let place = &mut record.place;
            place.number = number;
            place.size = content_size(inode);
            place.form = Form::of(inode, place.nlink, place.size, self.superblock.build_time);
            place.xattr_count = xattr::count(xattr::size(&inode.metadata().xattrs));
        }
    }

    /// Gives every inode and every content its place; answers with the number of blocks.
    fn place(&mut self) -> Result<u32, WriteError> {
        let mut space = Space::new((SUPERBLOCK_AT + SUPERBLOCK_LEN) as u64);
        for record in &mut self.records {
            let inode = self.tree.inode(record.id);
            let head = record.place.form.len() + xattr::size(&inode.metadata().xattrs) as u64;
            let tail = record.place.size % BLOCK;
            let inline = tail > 0 && head + tail <= BLOCK;
            record.place.data = if inline { DataLayout::Inline } else { DataLayout::Plain };
            record.at = space.take(head + record.inline());
        }
        self.by_offset = (0..self.records.len()).collect();
        self.by_offset.sort_unstable_by_key(|index| self.records[*index].at);
        let mut next = space.end().div_ceil(BLOCK);
        for directories in [true, false] {
            for record in &mut self.records {
                let here = self.tree.inode(record.id).is_directory() == directories;
                if here && record.outside() > 0 {
                    let blocks = record.outside().div_ceil(BLOCK);
                    record.place.block = address(next)?;
                    next = next.checked_add(blocks).ok_or(WriteError::TooLarge)?;
                }
            }
        }
        address(next)
    }

    /// The records in the order in which the inodes stand.
    pub(super) fn inodes(&self) -> impl Iterator<Item = &Record> {
        self.by_offset.iter().map(|index| &self.records[*index])
    }

    /// The encoded inode with its extended attributes.
    pub(super) fn head(&self, record: &Record, out: &mut Vec<u8>) {
        let inode = self.tree.inode(record.id);
        inode::encode(inode, &record.place, out);
        xattr::encode(&inode.metadata().xattrs, out);
    }

    /// The whole content of a directory; nothing for what is none.
    pub(super) fn directory(&self, record: &Record) -> Vec<u8> {
        let Kind::Directory(children) = self.tree.inode(record.id).kind() else {
            return Vec::new();
        };
        let names = dirent::with_dots(children.iter(), record.id, record.parent);
        dirent::encode(names.map(|(name, id)| dirent::Entry {
            name,
            nid: self.nid(id),
            file_type: file_type(self.tree.inode(id)),
        }))
    }

    /// The first 16 bytes of SHA-256 over all that the layout knows: every head, directory and
    /// symlink, in order. Marked as version 8 (custom), variant RFC 9562.
    fn uuid(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(b"kiln erofs 1\0");
        hash.update(self.superblock.build_time.to_le_bytes());
        let mut head = Vec::new();
        for record in &self.records {
            head.clear();
            self.head(record, &mut head);
            hash.update(&head);
            match self.tree.inode(record.id).kind() {
                Kind::Directory(_) => hash.update(self.directory(record)),
                Kind::Symlink(target) => hash.update(target),
                Kind::File(_) | Kind::Fifo => {}
            }
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&hash.finalize()[..16]);
        uuid[6] = (uuid[6] & 0x0f) | 0x80;
        uuid[8] = (uuid[8] & 0x3f) | 0x80;
        uuid
    }

    /// A record's path, for messages: the first one on a walk.
    pub(super) fn shown(&self, record: &Record) -> ShownPath {
        let path = self.tree.walk().find(|visit| visit.id == record.id).map(|visit| visit.path);
        path.unwrap_or_default().into()
    }

    fn nid(&self, id: NodeId) -> u64 {
        let index =
            self.index[id.index()].expect("every child of a collected directory has a record");
        self.records[index].at / SLOT
    }

    fn is_directory(&self, id: NodeId) -> bool {
        self.tree.inode(id).is_directory()
    }
}

/// A block's address, when the format has one for it.
fn address(block: u64) -> Result<u32, WriteError> {
    let fits = u32::try_from(block).ok().filter(|_| block < MAX_BLOCKS);
    fits.ok_or(WriteError::TooLarge)
}

fn content_size(inode: &Inode) -> u64 {
    match inode.kind() {
        Kind::Directory(children) => {
            let names = dirent::with_dots(children.iter().map(|(name, _)| (name, ())), (), ());
            dirent::size(names.map(|(name, ())| name))
        }
        Kind::File(content) => content.len(),
        Kind::Symlink(target) => target.len() as u64,
        Kind::Fifo => 0,
    }
}
