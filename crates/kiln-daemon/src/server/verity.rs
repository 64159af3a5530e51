//! What images' filesystems measure, and their hash trees, for this machine.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_image::verity;
use kiln_local::local::FileDigests;
use kiln_model::digest::Digest;

/// Tells unfinished trees of this process apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Reads a file from its beginning, wherever others that share the descriptor are.
struct FromStart<'a> {
    file: &'a File,
    position: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// Reads a file in full.
pub(super) fn measure(file: &File) -> io::Result<FileDigests> {
    let found = verity::of_reader(FromStart { file, position: 0 })?;
    Ok(FileDigests { digest: found.digest, fs_verity: found.fs_verity, root: found.root })
}

/// The hash tree of the filesystem `file`, whose digest is `digest`, in the directory `trees`; made
/// where there is none. It is derived and vouches for nothing by itself: it is not synced.
pub(super) fn hash_tree(trees: &Path, digest: &Digest, file: &File) -> io::Result<PathBuf> {
    let path = trees.join(digest.hex());
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(trees)?;
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let unfinished = trees.join(format!("{}-{number}.tmp", std::process::id()));
    let write = || {
        let mut sink = BufWriter::new(File::create(&unfinished)?);
        verity::tree::write(FromStart { file, position: 0 }, &mut sink)?;
        sink.flush()?;
        fs::rename(&unfinished, &path)
    };
    match write() {
        Ok(()) => Ok(path),
        Err(error) => {
            // The first error is the one that explains.
            let _ = fs::remove_file(&unfinished);
            Err(error)
        }
    }
}
