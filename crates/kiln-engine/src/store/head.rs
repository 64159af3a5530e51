//! The head of the journal, outside of its database: how many entries there are, and the hash of
//! the last one, signed. A database that was truncated or put back to an older copy has less.
//!
//! `ROOT/store/head` holds two lines of a fixed length, written in turn and in place: whatever
//! moment the machine loses power in, one of them is whole. It is written after the transaction, so
//! it may be behind the database, never before it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer as _, SigningKey};
use kiln_model::digest::Digest;

/// The length of one of the two lines in bytes, its end included.
const LINE_BYTES: usize = 256;

/// How far a journal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the last entry.
    pub(super) entries: u64,
    /// Its hash.
    pub(super) hash: [u8; 32],
}

/// The file.
#[derive(Debug, Clone)]
pub(super) struct HeadFile {
    path: PathBuf,
}

impl HeadFile {
    pub(super) fn of(directory: &Path) -> Self {
        Self { path: directory.join("head") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The head; `None` where there is no file. An error is what is wrong with it.
    pub(super) fn read(&self, key: &SigningKey) -> Result<Option<Head>, String> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("it cannot be read: {error}")),
        };
        let heads = bytes.chunks(LINE_BYTES).filter_map(|line| parse(line, key));
        let newest = heads.max_by_key(|head| head.entries);
        newest.map(Some).ok_or_else(|| "it holds no head that this root has signed".to_owned())
    }

    /// Writes a head, in the place of the older of the two.
    pub(super) fn write(&self, head: &Head, key: &SigningKey) -> io::Result<()> {
        let created = !self.path.exists();
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        let line = format(head, key);
        file.write_all_at(&line, (head.entries % 2) * LINE_BYTES as u64)?;
        if created {
            file.sync_all()?;
            if let Some(directory) = self.path.parent() {
                File::open(directory)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// Writes a head as the only one, durably.
    pub(super) fn replace(&self, head: &Head, key: &SigningKey) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all_at(&format(head, key), (head.entries % 2) * LINE_BYTES as u64)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}

fn signed(head: &Head) -> String {
    format!("kiln.head.v1 {} {}", head.entries, Digest::from_bytes(head.hash).short(64))
}

fn format(head: &Head, key: &SigningKey) -> Vec<u8> {
    let text = signed(head);
    let signature = key.sign(text.as_bytes()).to_bytes();
    let [first, second] = [0, 32].map(|at| {
        let half = signature[at..at + 32].try_into().unwrap_or_default();
        Digest::from_bytes(half).short(64)
    });
    let mut line = format!("{text} {first}{second}").into_bytes();
    line.resize(LINE_BYTES - 1, b' ');
    line.push(b'\n');
    line
}

fn parse(line: &[u8], key: &SigningKey) -> Option<Head> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let (text, signature) = text.rsplit_once(' ')?;
    let signature = Signature::from_bytes(&bytes(signature)?);
    key.verifying_key().verify_strict(text.as_bytes(), &signature).ok()?;
    let mut words = text.split(' ').skip(1);
    let entries = words.next()?.parse().ok()?;
    Some(Head { entries, hash: bytes(words.next()?)? })
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if hex.len() != 2 * N || !hex.is_ascii() {
        return None;
    }
    for (byte, index) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(index..index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_lines_is_whole_at_any_moment() {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[7; 32]);
        let file = HeadFile::of(directory.path());
        assert_eq!(file.read(&key), Ok(None));
        let head = |entries| Head { entries, hash: [9; 32] };
        file.write(&head(4), &key).unwrap();
        file.write(&head(5), &key).unwrap();
        assert_eq!(file.read(&key), Ok(Some(head(5))));
        let mut bytes = std::fs::read(file.path()).unwrap();
        bytes[LINE_BYTES + 40] ^= 1;
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(file.read(&key), Ok(Some(head(4))), "a torn line leaves the one before");
        let stranger = SigningKey::from_bytes(&[8; 32]);
        assert!(file.read(&stranger).is_err());
        file.replace(&head(2), &key).unwrap();
        assert_eq!(file.read(&key), Ok(Some(head(2))));
    }
}
