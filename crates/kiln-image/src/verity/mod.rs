//! By what the kernel verifies each block of a filesystem when it is read: fs-verity and dm-verity.
//!
//! Both divide a file into blocks of 4096 bytes, sum each with SHA-256, put the sums into blocks of
//! 4096 bytes, sum those, and so on up to one sum, the root. Without a salt it is the same tree for
//! both, see [`tree`]. They differ in what vouches for the root: dm-verity is told it; fs-verity
//! measures a file as the checksum of a descriptor that has the root and the file's length.
//!
//! Formats: `Documentation/filesystems/fsverity.rst` (`struct fsverity_descriptor`) and
//! `Documentation/admin-guide/device-mapper/verity.rst` (version 1, no superblock) of the Linux
//! sources.

pub mod tree;

use std::io::{self, Read, Write};

use kiln_model::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::checksum;
use tree::Builder;

/// The length of a block, of data and of checksums, in bytes.
pub const BLOCK_BYTES: usize = 4096;

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u8 = 1;
/// The length of `struct fsverity_descriptor`, in bytes.
const DESCRIPTOR_BYTES: usize = 256;

/// What a file measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// The checksum of the whole file.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// What the kernel measures of it by `FS_IOC_MEASURE_VERITY`.
    pub fs_verity: Digest,
    /// The root of its hash tree, as dm-verity is told it. Of use where the length is a multiple
    /// of [`BLOCK_BYTES`].
    pub root: Digest,
}

/// Measures bytes that come in pieces, in one pass. It takes 8 MiB of memory for each GiB.
#[derive(Default)]
pub struct Measurement {
    whole: checksum::Hasher,
    tree: Builder,
}

impl Measurement {
    /// Takes in the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.whole.update(bytes);
        self.tree.update(bytes);
    }

    /// What all pieces measure.
    pub fn finish(self) -> Verity {
        let (digest, size_bytes) = self.whole.finish();
        let root = self.tree.finish().root();
        Verity { digest, size_bytes, fs_verity: fs_verity(size_bytes, root), root }
    }
}

impl Write for Measurement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Measures all that `reader` gives.
pub fn of_reader(mut reader: impl Read) -> io::Result<Verity> {
    let mut measurement = Measurement::default();
    // Not io::copy, whose pieces of 8 KiB cost a system call each.
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(measurement.finish()),
            Ok(count) => measurement.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The checksum of the descriptor of a file of this length and root.
fn fs_verity(size_bytes: u64, root: Digest) -> Digest {
    let mut descriptor = [0; DESCRIPTOR_BYTES];
    // Version, algorithm, binary logarithm of the block's length; no salt, no signature.
    descriptor[..3].copy_from_slice(&[1, SHA256, 12]);
    descriptor[8..16].copy_from_slice(&size_bytes.to_le_bytes());
    // An empty file has no tree, and zeros for its root.
    if size_bytes > 0 {
        descriptor[16..48].copy_from_slice(root.as_bytes());
    }
    Digest::of(&descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes for which the vectors below were made: by `fsverity digest`, and by `veritysetup
    /// format --no-superblock --salt=-`, of which also the checksum of the tree.
    fn sample(length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        for index in 0..length {
            let (block, place) = (index / BLOCK_BYTES, index % BLOCK_BYTES);
            let byte = if block < 200 { place * 7 + block } else { block };
            bytes.push(u8::try_from(byte % 251).unwrap());
        }
        bytes
    }

    fn digest(hex: &str) -> Digest {
        checksum::from_hex(hex).unwrap()
    }

    #[test]
    fn files_measure_as_fsverity_says() {
        for (length, expected) in [
            (0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
            (1, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551"),
            (4096, "258b680fa93e3bfc1586d9b439d29a2172bd0db550fe7da1272fd8120d801182"),
            (4097, "e8db93695961632d5a3194df113a152831f6e4d1c1c62c284dfad6e3a6a37f06"),
            (128 * 4096, "64b12424a7705baec0d74a8616cce0371d61f6e8230ecf28e3764d89ff13c2f3"),
            (129 * 4096, "d05aad5141a621ee72b2b5a8d8fddda42dd850c3251099810f2e92a4fc352b3d"),
            (16_385 * 4096, "797ed02831666092b3bc0f2e9da077832aa5901099295f6a11e048a3a4ac9c89"),
        ] {
            let bytes = sample(length);
            let found = of_reader(&bytes[..]).unwrap();
            assert_eq!(found.fs_verity, digest(expected), "{length} bytes");
            assert_eq!((found.digest, found.size_bytes), (Digest::of(&bytes), length as u64));
        }
    }

    #[test]
    fn trees_are_those_of_veritysetup() {
        for (blocks, root, tree) in [
            (
                1,
                "9141107b6ed1422839ed97f4674de82ae742ec2f8556c3df948da06930f94393",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                128,
                "6f38a5588b8d404c56eb5080533324380c3c36bd8e133231ef56cb57c4dcba6d",
                "6f38a5588b8d404c56eb5080533324380c3c36bd8e133231ef56cb57c4dcba6d",
            ),
            (
                129,
                "d5fc411d11114106b66a5a12747b820d7765c3e0ef74d323fec85dc873a00dda",
                "ab9f7356af042691f9f665eb32a5c5a2f698ccc27ee8f8806a4d3a87e2aa4d8d",
            ),
            (
                16_385,
                "c1823adad780460cc59c8d9d4d50db48918073edbbe19474c151ea90959132a3",
                "64aa3efd611444e99dcef8b9c8f66a25741dcb5e60667c574ea5f7f11b13b0f1",
            ),
        ] {
            let bytes = sample(blocks * BLOCK_BYTES);
            let mut written = Vec::new();
            let found = tree::write(&bytes[..], &mut written).unwrap();
            assert_eq!(found, digest(root), "{blocks} blocks");
            assert_eq!(Digest::of(&written), digest(tree), "{blocks} blocks");
            assert_eq!(of_reader(&bytes[..]).unwrap().root, found);
        }
    }

    #[test]
    fn pieces_of_any_length_measure_the_same() {
        let bytes = sample(3 * BLOCK_BYTES + 100);
        for length in [1, 100, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1] {
            let mut measurement = Measurement::default();
            bytes.chunks(length).for_each(|piece| measurement.update(piece));
            assert_eq!(measurement.finish(), of_reader(&bytes[..]).unwrap(), "{length}");
        }
    }
}
