//! The root's key: made at first use, never leaves the root.
//!
//! One file of 32 random bytes, readable by root only. The key that signs generations, the
//! one that encrypts secrets and the one that tells secrets' versions apart are derived from
//! it by SHA-256 over a purpose and the bytes, so that none of them gives away another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use kiln_model::digest::Digest;

/// The key of a root.
#[derive(Clone)]
pub struct RootKey([u8; 32]);

impl RootKey {
    /// The key in `directory`, made there if there is none. Of several processes that make it
    /// at once, all get the same.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("key");
        match Self::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        // A new key would open nothing of what is there, and sign what nobody has decided.
        if let Some(there) = ["store.db", "head"].iter().find(|name| directory.join(name).exists())
        {
            let text =
                format!("the root's key is gone, and `{there}` beside it was signed with it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        // Named after bytes that are not the key's: each maker has a file of its own.
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let temporary = directory.join(format!("key.{:016x}", u64::from_le_bytes(name)));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        // A link, unlike a rename, leaves a key alone that another process made meanwhile.
        let linked = fs::hard_link(&temporary, &path);
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => File::open(directory)?.sync_all()?,
        }
        Self::read(&path)
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(33).read_to_end(&mut bytes)?;
        let bytes = bytes.try_into().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "the root's key is not 32 bytes long")
        })?;
        Ok(Self(bytes))
    }

    /// The key for one purpose.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut text = format!("kiln key for {purpose}\n").into_bytes();
        text.extend_from_slice(&self.0);
        *Digest::of(&text).as_bytes()
    }
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootKey(not shown)")
    }
}
