//! The superblock: 128 bytes at offset 1024, with a checksum over the rest of its block.

use super::format::{BLOCK_BITS, BLOCK_LEN, SUPERBLOCK_AT, SUPERBLOCK_LEN};

/// By which a superblock is known.
pub(super) const MAGIC: u32 = 0xE0F5_E1E2;
/// The superblock's checksum is valid.
const COMPAT_CHECKSUM: u32 = 0x1;
/// Times are modification times.
const COMPAT_MTIME: u32 = 0x2;

/// What the superblock says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Superblock {
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    pub(super) build_time: i64,
    pub(super) blocks: u32,
    pub(super) uuid: [u8; 16],
}

impl Superblock {
    /// Puts the superblock into the image's first block, whose other bytes must be final.
    pub(super) fn seal(&self, block: &mut [u8]) {
        let end = SUPERBLOCK_AT + SUPERBLOCK_LEN;
        block[SUPERBLOCK_AT..end].copy_from_slice(&self.encode());
        let checksum = crc32c(&block[SUPERBLOCK_AT..BLOCK_LEN]);
        block[SUPERBLOCK_AT + 4..SUPERBLOCK_AT + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The bytes with a checksum of zero. What is not named here is zero: no extra slots, no
    /// compression, no further devices; metadata is addressed from block 0 on.
    fn encode(&self) -> [u8; SUPERBLOCK_LEN] {
        let mut bytes = [0; SUPERBLOCK_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(24, &self.build_time.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.uuid);
        bytes
    }
}

/// CRC-32C (Castagnoli, reflected) from all ones, without the final inversion: as the kernel's
/// `crc32c(~0, …)` computes it.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn crc32c_has_its_published_check_value() {
        // The check value of CRC-32C over "123456789" is 0xE3069283, after the final inversion.
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }
}
