//! The tree of checksums over a file, and how it is laid out for dm-verity.
//!
//! The lowest level has the checksum of each block of the file, in their order; the last block is
//! filled up with zeros. Each further level has the checksum of each block of the one below. The
//! highest level is one block, whose checksum is the root; a file of one block has no levels, and
//! that block's checksum for its root. On a device the highest level comes first, the lowest last.

use std::io::{self, Read, Write};

use kiln_model::digest::Digest;
use sha2::{Digest as _, Sha256};

use super::BLOCK_BYTES;

/// Builds a tree from bytes that come in pieces.
#[derive(Default)]
pub struct Builder {
    /// The block that is not whole yet, and how much of it is there.
    block: Sha256,
    filled: usize,
    /// The checksums of the blocks before.
    lowest: Vec<u8>,
}

impl Builder {
    /// Takes in the next piece.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.filled));
            self.block.update(piece);
            self.filled += piece.len();
            bytes = rest;
            if self.filled == BLOCK_BYTES {
                self.end_block();
            }
        }
    }

    /// The tree over all pieces.
    pub fn finish(mut self) -> Tree {
        if self.filled > 0 {
            self.block.update(&[0; BLOCK_BYTES][self.filled..]);
            self.end_block();
        }
        let mut levels = vec![self.lowest];
        while let Some(below) = levels.last().filter(|level| level.len() > size_of::<Digest>()) {
            let sums = below.chunks(BLOCK_BYTES).flat_map(|block| {
                let padding = &[0; BLOCK_BYTES][block.len()..];
                <[u8; 32]>::from(Sha256::new().chain_update(block).chain_update(padding).finalize())
            });
            levels.push(sums.collect());
        }
        let root = levels.pop().and_then(|top| top.try_into().ok()).map(Digest::from_bytes);
        Tree { levels, root: root.unwrap_or(Digest::from_bytes([0; 32])) }
    }

    fn end_block(&mut self) {
        let sum: [u8; 32] = self.block.finalize_reset().into();
        self.lowest.extend_from_slice(&sum);
        self.filled = 0;
    }
}

/// A tree of checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The levels, from the lowest; each without the zeros that fill its last block up.
    levels: Vec<Vec<u8>>,
    root: Digest,
}

impl Tree {
    /// The checksum of the highest level's block; zeros for an empty file.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// Writes it as dm-verity reads it.
    pub fn write(&self, mut sink: impl Write) -> io::Result<()> {
        for level in self.levels.iter().rev() {
            sink.write_all(level)?;
            let whole = level.len().next_multiple_of(BLOCK_BYTES);
            sink.write_all(&[0; BLOCK_BYTES][..whole - level.len()])?;
        }
        Ok(())
    }
}

/// Writes the tree over all that `reader` gives, and gives its root.
pub fn write(mut reader: impl Read, sink: impl Write) -> io::Result<Digest> {
    let mut builder = Builder::default();
    io::copy(&mut reader, &mut builder)?;
    let tree = builder.finish();
    tree.write(sink)?;
    Ok(tree.root())
}

impl Write for Builder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
