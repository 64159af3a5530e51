//! Layers: written and read back, laid over one another, and refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod foreign;
mod hostile;
mod random;

use std::path::Path;

use kiln_image::oci::layer::{self, LayerError, Notes};
use kiln_image::tree::{Content, Inode, Kind, Tree};

/// All that a tree has, in words, with names that share a file.
fn shown(tree: &Tree) -> Vec<String> {
    let mut first = std::collections::BTreeMap::new();
    let line = |visit: kiln_image::tree::Visit<'_>| {
        let path = String::from_utf8_lossy(&visit.path).into_owned();
        let shared = first.entry(visit.id).or_insert_with(|| path.clone()).clone();
        let what = match visit.inode.kind() {
            Kind::Directory(_) => "directory".to_owned(),
            Kind::File(content) => format!("file {:?}", content.read().expect("it can be read")),
            Kind::Symlink(target) => format!("link {:?}", String::from_utf8_lossy(target)),
            Kind::Fifo => "fifo".to_owned(),
        };
        format!("{path} = {shared}: {what} {:?}", visit.inode.metadata())
    };
    tree.walk().map(line).collect()
}

/// The archive of a layer that makes `upper` of `lower`.
fn archive(lower: Option<&Tree>, upper: &Tree) -> Vec<u8> {
    let changes = match lower {
        None => layer::everything(upper),
        Some(lower) => layer::changes(lower, upper).expect("contents can be read"),
    };
    let mut bytes = Vec::new();
    layer::write(upper, &changes, &mut bytes).expect("memory takes all");
    bytes
}

/// Lays an archive over a tree. `directory` keeps the contents.
fn lay(tree: &mut Tree, archive: &[u8], directory: &Path) -> Result<Notes, LayerError> {
    let count = std::fs::read_dir(directory).expect("the directory is there").count();
    let spool = directory.join(format!("{count}.tar"));
    layer::unpack("the layer", archive, archive.len() as u64, &spool)?;
    layer::apply(tree, &spool, "the layer")
}

fn file(mode: u16, bytes: &[u8]) -> Inode {
    let metadata = kiln_image::tree::Metadata::new(mode);
    Inode::file(metadata, Content::from(bytes.to_vec()))
}
