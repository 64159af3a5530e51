//! The compressions that packages use: xz, zstd, gzip and none.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

/// The most memory that unpacking may take, in KiB: what `xz -9` needs is 64 MiB.
const MAX_XZ_MEMORY_KIB: u32 = 192 << 10;
/// The largest window of a zstd frame, in bytes; `zstd -19` uses 8 MiB, `--ultra -22` 128 MiB.
const MAX_ZSTD_WINDOW_BYTES: u64 = 128 << 20;

/// Unpacks what a name with this suffix (`.xz`) promises; none if the suffix is not known.
pub(super) fn decompress<'a>(
    reader: impl Read + 'a,
    suffix: &str,
) -> io::Result<Option<Box<dyn Read + 'a>>> {
    Ok(Some(match suffix {
        "" => Box::new(reader),
        ".gz" => Box::new(MultiGzDecoder::new(reader)),
        ".xz" => Box::new(XzReader::new_mem_limit(reader, true, MAX_XZ_MEMORY_KIB)),
        ".zst" => Box::new(
            StreamingDecoder::new_with_max_window_size(reader, MAX_ZSTD_WINDOW_BYTES)
                .map_err(io::Error::other)?,
        ),
        _ => return Ok(None),
    }))
}
