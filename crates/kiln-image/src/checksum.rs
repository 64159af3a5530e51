//! SHA-256 over files and streams, and the bare hexadecimal form in which archives write it.

use std::io::{self, Read};

use kiln_model::digest::Digest;
use sha2::Digest as _;

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a SHA-256 checksum: 64 lower-case hexadecimal digits were expected")]
pub struct ChecksumError(String);

/// Reads a checksum as archives write it: without `sha256:`.
pub fn from_hex(text: &str) -> Result<Digest, ChecksumError> {
    format!("sha256:{text}").parse().map_err(|_| ChecksumError(text.chars().take(80).collect()))
}

/// The checksum of all that `reader` gives, and how many bytes that were.
pub fn of_reader(mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sums bytes that come in pieces, and counts them.
#[derive(Default)]
pub struct Hasher {
    state: sha2::Sha256,
    length_bytes: u64,
}

impl Hasher {
    /// Takes in the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length_bytes += bytes.len() as u64;
    }

    /// The checksum of all pieces, and their length in bytes.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_bytes(self.state.finalize().into()), self.length_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_form_is_read() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(from_hex(empty).unwrap(), Digest::of(b""));
        assert!(from_hex("e3b0").is_err());
    }

    #[test]
    fn pieces_sum_to_the_whole() {
        let bytes = vec![7_u8; 300_000];
        assert_eq!(of_reader(&bytes[..]).unwrap(), (Digest::of(&bytes), 300_000));
    }
}
