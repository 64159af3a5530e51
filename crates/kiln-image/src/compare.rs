//! What differs between two images, by path.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use kiln_model::digest::Digest;
use serde_json::Value;

use crate::erofs::read::{Entry, EntryKind, Image, ReadError};
use crate::store::{ImageStore, Manifest, StoreError};

/// One difference. What is not there on one side is `nothing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path in the image, or the place in its configuration.
    pub path: String,
    /// What differs: `mode`, `owner`, `size`, `content`, …
    pub what: &'static str,
    /// On the first side.
    pub before: String,
    /// On the second side.
    pub after: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} -> {}", self.path, self.what, self.before, self.after)
    }
}

/// Images that can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A filesystem can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An image can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where there is nothing.
const NOTHING: &str = "nothing";

/// What differs between two images, each in a store: their files first, then how they are
/// started, and where neither tells, which blobs they consist of.
pub fn images(
    (before_store, before): (&ImageStore, &Digest),
    (after_store, after): (&ImageStore, &Digest),
) -> Result<Vec<Difference>, CompareError> {
    let (first, second) = (before_store.get(before)?, after_store.get(after)?);
    let mut found = Vec::new();
    if first.erofs_digest != second.erofs_digest {
        found.extend(filesystems(&first.erofs, &second.erofs)?);
    }
    let manifests = (document(before_store, before)?, document(after_store, after)?);
    let config = |store, manifest: &Value| {
        let read = serde_json::from_value::<Manifest>(manifest.clone()).ok();
        read.map_or(Ok(Value::Null), |manifest| document(store, &manifest.config.digest))
    };
    let configs = (config(before_store, &manifests.0)?, config(after_store, &manifests.1)?);
    documents("config", &configs.0, &configs.1, &mut found);
    if found.is_empty() {
        documents("manifest", &manifests.0, &manifests.1, &mut found);
    }
    Ok(found)
}

fn document(store: &ImageStore, digest: &Digest) -> Result<Value, StoreError> {
    // What is no JSON has its digest to tell it apart, which its referrer shows.
    Ok(serde_json::from_slice(&store.read_blob(digest)?).unwrap_or_default())
}

/// What differs between two EROFS files, by path.
pub fn filesystems(before: &Path, after: &Path) -> Result<Vec<Difference>, ReadError> {
    let images = (Image::open(before)?, Image::open(after)?);
    let by_path = |entries: Vec<Entry>| -> BTreeMap<Vec<u8>, Entry> {
        entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
    };
    let first = by_path(images.0.entries()?);
    let mut second = by_path(images.1.entries()?);
    let mut found = Vec::new();
    for (path, entry) in &first {
        match second.remove(path) {
            None => found.push(one(path, "entry", describe(entry), NOTHING.to_owned())),
            Some(other) => entries((&images.0, entry), (&images.1, &other), &mut found)?,
        }
    }
    for (path, entry) in &second {
        found.push(one(path, "entry", NOTHING.to_owned(), describe(entry)));
    }
    found.sort_by(|a, b| (&a.path, a.what).cmp(&(&b.path, b.what)));
    Ok(found)
}

/// What differs between two entries of one path.
fn entries(
    (first_image, first): (&Image, &Entry),
    (second_image, second): (&Image, &Entry),
    found: &mut Vec<Difference>,
) -> Result<(), ReadError> {
    let mut note = |what, before: String, after: String| {
        if before != after {
            found.push(one(&first.path, what, before, after));
        }
    };
    note("entry", describe(first), describe(second));
    note("mode", format!("{:04o}", first.mode), format!("{:04o}", second.mode));
    let owner = |entry: &Entry| format!("{}:{}", entry.uid, entry.gid);
    note("owner", owner(first), owner(second));
    note("time", first.mtime.to_string(), second.mtime.to_string());
    note("xattrs", xattrs(first), xattrs(second));
    if first.kind == EntryKind::File && second.kind == EntryKind::File {
        note("links", first.links.to_string(), second.links.to_string());
        note("size", first.size.to_string(), second.size.to_string());
        let digests = (first_image.digest(first)?, second_image.digest(second)?);
        note("content", digests.0.to_string(), digests.1.to_string());
    }
    Ok(())
}

fn one(path: &[u8], what: &'static str, before: String, after: String) -> Difference {
    let path = format!("/{}", String::from_utf8_lossy(path).escape_debug());
    Difference { path, what, before, after }
}

fn describe(entry: &Entry) -> String {
    match &entry.kind {
        EntryKind::Directory => "directory".to_owned(),
        EntryKind::File => "file".to_owned(),
        EntryKind::Fifo => "pipe".to_owned(),
        EntryKind::Symlink(target) => format!("link to {}", String::from_utf8_lossy(target)),
    }
}

fn xattrs(entry: &Entry) -> String {
    let shown = entry.xattrs.iter().map(|(name, value)| {
        format!("{}={}", String::from_utf8_lossy(name), Digest::of(value).short(12))
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { NOTHING.to_owned() } else { shown.join(" ") }
}

/// What differs between two documents, by the path of their members.
fn documents(path: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    match (before, after) {
        (Value::Object(first), Value::Object(second)) => {
            let names: std::collections::BTreeSet<&String> =
                first.keys().chain(second.keys()).collect();
            for name in names {
                let side = |object: &serde_json::Map<String, Value>| {
                    object.get(name).cloned().unwrap_or_default()
                };
                documents(&format!("{path}.{name}"), &side(first), &side(second), found);
            }
        }
        _ if before == after => {}
        _ => {
            let text = |value: &Value| match value {
                Value::Null => NOTHING.to_owned(),
                value => value.to_string(),
            };
            let (before, after) = (text(before), text(after));
            found.push(Difference { path: path.to_owned(), what: "value", before, after });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erofs::{self, Options};
    use crate::tree::{Inode, Metadata, Tree};

    fn image(directory: &Path, name: &str, tree: &Tree) -> std::path::PathBuf {
        let path = directory.join(name);
        let mut bytes = Vec::new();
        let _ = erofs::write(tree, Options::default(), &mut bytes).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn each_difference_is_named_by_path() {
        let directory = tempfile::tempdir().unwrap();
        let plain = |mode| Metadata::new(mode);
        let (mut one, mut two) = (Tree::new(), Tree::new());
        for (tree, second) in [(&mut one, false), (&mut two, true)] {
            tree.insert("same", Inode::file(plain(0o644), b"x".as_slice())).unwrap();
            let mode = if second { 0o600 } else { 0o644 };
            tree.insert("mode", Inode::file(plain(mode), b"x".as_slice())).unwrap();
            let text: &[u8] = if second { b"bb" } else { b"aa" };
            tree.insert("text", Inode::file(plain(0o644), text)).unwrap();
            let target = if second { "there" } else { "here" };
            tree.insert("link", Inode::symlink(plain(0o777), target)).unwrap();
            let owned = plain(0o755).owned_by(u32::from(second), 0);
            tree.insert("owned", Inode::directory(owned.modified_at(i64::from(second)))).unwrap();
        }
        one.insert("gone", Inode::fifo(plain(0o644).with_xattr("user.a", "b"))).unwrap();
        two.insert("new", Inode::directory(plain(0o755))).unwrap();
        let (one, two) =
            (image(directory.path(), "one", &one), image(directory.path(), "two", &two));
        assert_eq!(filesystems(&one, &one).unwrap(), []);
        let shown: Vec<String> =
            filesystems(&one, &two).unwrap().iter().map(ToString::to_string).collect();
        let sum = |bytes| Digest::of(bytes).to_string();
        assert_eq!(
            shown,
            [
                "/gone: entry: pipe -> nothing".to_owned(),
                "/link: entry: link to here -> link to there".to_owned(),
                "/mode: mode: 0644 -> 0600".to_owned(),
                "/new: entry: nothing -> directory".to_owned(),
                "/owned: owner: 0:0 -> 1:0".to_owned(),
                "/owned: time: 0 -> 1".to_owned(),
                format!("/text: content: {} -> {}", sum(b"aa"), sum(b"bb")),
            ]
        );
    }
}
