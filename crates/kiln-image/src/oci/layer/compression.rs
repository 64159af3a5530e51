//! From a packed layer to its tar archive: gzip, zstd, xz or none, told apart by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use kiln_model::digest::Digest;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{FREE_BYTES, LayerError, MAX_RATIO, MAX_UNPACKED_BYTES};
use crate::checksum::Hasher;

/// The most memory that unpacking xz may take, in KiB: what `xz -9` needs is 64 MiB.
const MAX_XZ_MEMORY_KIB: u32 = 192 << 10;
/// The largest window of a zstd frame, in bytes.
const MAX_ZSTD_WINDOW_BYTES: u64 = 128 << 20;

/// What came of unpacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The checksum of the packed bytes.
    pub packed: Digest,
    /// The checksum of the archive.
    pub content: Digest,
    /// The length of the archive in bytes.
    pub length_bytes: u64,
}

/// Unpacks `reader`, which gives `packed_bytes` bytes, into a new file `spool`. `layer` is what it is
/// called in errors.
pub fn unpack(
    layer: &str,
    reader: impl Read,
    packed_bytes: u64,
    spool: &Path,
) -> Result<Unpacked, LayerError> {
    let io = |source| LayerError::Io { path: spool.into(), source };
    let damaged = |source| LayerError::Damaged { layer: layer.to_owned(), source };
    let limit_bytes =
        FREE_BYTES.saturating_add(packed_bytes.saturating_mul(MAX_RATIO)).min(MAX_UNPACKED_BYTES);
    let mut packed = Summed { reader, hasher: Hasher::default() };
    let mut file = BufWriter::with_capacity(1 << 20, File::create(spool).map_err(io)?);
    let mut content = Hasher::default();
    {
        let buffered = BufReader::with_capacity(256 << 10, &mut packed);
        let mut archive = decompress(buffered).map_err(damaged)?;
        let mut buffer = vec![0; 256 << 10];
        let mut length_bytes = 0;
        loop {
            let count = match archive.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(error)),
            };
            length_bytes += count as u64;
            if length_bytes > limit_bytes {
                return Err(LayerError::TooLarge { layer: layer.to_owned(), limit_bytes });
            }
            content.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(io)?;
        }
    }
    file.flush().map_err(io)?;
    // What stands behind the compressed data belongs to the layer's checksum as well.
    io::copy(&mut packed, &mut io::sink()).map_err(damaged)?;
    let (content, length_bytes) = content.finish();
    Ok(Unpacked { packed: packed.hasher.finish().0, content, length_bytes })
}

/// A reader whose bytes are summed.
struct Summed<R> {
    reader: R,
    hasher: Hasher,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn decompress<'a>(mut reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    // The buffer is empty yet: one reading fills as much of it as there is.
    let start = reader.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(reader))
    } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Box::new(XzReader::new_mem_limit(reader, true, MAX_XZ_MEMORY_KIB))
    } else if is_zstd(start) {
        Box::new(Zstd::new(reader))
    } else {
        Box::new(reader)
    })
}

/// Whether a zstd frame begins here, or one to be skipped.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (start.len() > 3 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18])
}

/// All frames of a zstd stream, one after the other.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW_BYTES);
        Self { source, decoder, in_frame: false }
    }

    /// Goes to the next frame with content; whether there is one.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                self.in_frame = self.next_frame()?;
                if !self.in_frame {
                    return Ok(0);
                }
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(bytes: &[u8]) -> Result<(Unpacked, Vec<u8>), LayerError> {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        let unpacked = unpack("the layer", bytes, bytes.len() as u64, &spool)?;
        Ok((unpacked, std::fs::read(spool).unwrap()))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap();
        packed
    }

    #[test]
    fn each_compression_is_told_by_its_first_bytes() {
        let text = b"what is in the layer";
        let members = [gzip(&text[..5]), gzip(&text[5..])].concat();
        // `printf '%s' … | zstd`, without a checksum: one raw block.
        let frame = |bytes: &[u8]| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, u8::try_from(bytes.len()).unwrap()];
            let header = u32::try_from(bytes.len()).unwrap() << 3 | 1;
            frame.extend(&header.to_le_bytes()[..3]);
            frame.extend(bytes);
            frame
        };
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..]].concat();
        let frames = [frame(&text[..7]), skipped, frame(&text[7..])].concat();
        for packed in [text.to_vec(), members, frames] {
            let (unpacked, content) = unpacked(&packed).unwrap();
            assert_eq!(content, text);
            assert_eq!(unpacked.packed, Digest::of(&packed));
            assert_eq!(unpacked.content, Digest::of(text));
        }
    }

    #[test]
    fn what_is_cut_off_or_a_bomb_is_refused() {
        let packed = gzip(&[7; 9000]);
        for length in [3, 12, packed.len() - 1] {
            let refused = unpacked(&packed[..length]);
            assert!(matches!(refused, Err(LayerError::Damaged { .. })), "{length}: {refused:?}");
        }
        let bomb = gzip(&vec![0; 80 << 20]);
        assert!(matches!(unpacked(&bomb), Err(LayerError::TooLarge { .. })));
    }
}
