//! Images in a directory or an archive, as the OCI image layout specification has them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;

use super::layer::{LayerError, apply_rootfs, unpack};
use super::{
    Document, architectures, for_architecture, go_architecture, oci_media_type, parse_document,
};
use crate::checksum::Hasher;
use crate::store::{
    Descriptor, INDEX_MEDIA_TYPE, ImageStore, Index, MANIFEST_MEDIA_TYPE, Manifest, StoreError,
    to_json,
};
use crate::tree::{Content, Tree};

/// What `oci-layout` says.
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation under which an index has an image's tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The longest document that is read, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// A layout that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file can't be read or written.
    #[error("can't read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no layout.
    #[error("{path} is not an OCI image layout: it has no {missing}")]
    Form {
        /// The directory or archive.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// A document makes no sense.
    #[error("{path}: {what} is not a document that this program can use")]
    Document {
        /// The directory or archive.
        path: PathBuf,
        /// The document.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A blob is another than its name says.
    #[error("{path}: blob {expected} has the checksum {found}: it was altered")]
    Altered {
        /// The directory or archive.
        path: PathBuf,
        /// What its name says.
        expected: Digest,
        /// What it sums to.
        found: Digest,
    },
    /// It is not clear which image is meant.
    #[error("{path} has {}; name one as {path}:TAG", choices(.tags))]
    Which {
        /// The directory or archive.
        path: PathBuf,
        /// The tags that are there.
        tags: Vec<String>,
    },
    /// It has images for other machines only.
    #[error("{path} has no image for linux/{architecture}; it has {}", .there.join(", "))]
    Platform {
        /// The directory or archive.
        path: PathBuf,
        /// The architecture, as Go calls it.
        architecture: String,
        /// What it has.
        there: Vec<String>,
    },
    /// The archive can't be read.
    #[error(transparent)]
    Archive(#[from] LayerError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn choices(tags: &[String]) -> String {
    if tags.is_empty() {
        "no image with a tag".to_owned()
    } else {
        format!("the images {}", tags.join(", "))
    }
}

/// A layout that is read.
#[derive(Debug)]
pub struct Layout {
    /// What it is called in errors.
    path: PathBuf,
    index: Index,
    blobs: BTreeMap<Digest, Content>,
}

impl Layout {
    /// The layout in a directory.
    pub fn of_directory(path: &Path) -> Result<Self, LayoutError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| LayoutError::Io { path, source }
        };
        let mut files = BTreeMap::new();
        for name in ["index.json", "oci-layout"] {
            let file = path.join(name);
            if file.is_file() {
                files.insert(name.as_bytes().to_vec(), stored(&file).map_err(io(&file))?);
            }
        }
        let blobs = path.join("blobs/sha256");
        if blobs.is_dir() {
            for entry in fs::read_dir(&blobs).map_err(io(&blobs))? {
                let file = entry.map_err(io(&blobs))?.path();
                let name = file.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
                let content = stored(&file).map_err(io(&file))?;
                files.insert([b"blobs/sha256/", &name[..]].concat(), content);
            }
        }
        Self::of_files(path, files)
    }

    /// The layout in an archive, which is unpacked into the directory `workspace`.
    pub fn of_archive(path: &Path, workspace: &Path) -> Result<Self, LayoutError> {
        let io = |source| LayoutError::Io { path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let (shown, spool) = (path.display().to_string(), workspace.join("layout.tar"));
        unpack(&shown, file, length, &spool)?;
        let mut tree = Tree::new();
        apply_rootfs(&mut tree, &spool, &shown)?;
        let file = |visit: crate::tree::Visit<'_>| {
            Some((visit.path.clone(), visit.inode.content()?.clone()))
        };
        Self::of_files(path, tree.walk().filter_map(file).collect())
    }

    /// The layout that consists of these files, by path.
    pub(crate) fn of_files(
        path: &Path,
        files: BTreeMap<Vec<u8>, Content>,
    ) -> Result<Self, LayoutError> {
        let missing =
            |what: &str| LayoutError::Form { path: path.into(), missing: what.to_owned() };
        let index = files.get(&b"index.json"[..]).ok_or_else(|| missing("index.json"))?;
        if !files.contains_key(&b"oci-layout"[..]) {
            return Err(missing("oci-layout"));
        }
        let text = read(path, "index.json", index)?;
        let index = serde_json::from_slice(&text).map_err(|source| LayoutError::Document {
            path: path.into(),
            what: "index.json".to_owned(),
            source,
        })?;
        let blob = |(file, content): (Vec<u8>, Content)| {
            let hex = String::from_utf8(file.strip_prefix(b"blobs/sha256/")?.to_vec()).ok()?;
            Some((format!("sha256:{hex}").parse().ok()?, content))
        };
        Ok(Self { path: path.into(), index, blobs: files.into_iter().filter_map(blob).collect() })
    }

    /// The manifest of a tag, or the only one, for an architecture, as Debian calls it.
    pub fn select(&self, tag: Option<&str>, architecture: &str) -> Result<Digest, LayoutError> {
        let name = |d: &Descriptor| d.annotations.get(REF_NAME).cloned();
        let all = self.index.manifests.iter().filter(|d| d.artifact_type.is_none());
        let found: Vec<&Descriptor> =
            all.filter(|d| tag.is_none_or(|tag| name(d).as_deref() == Some(tag))).collect();
        let one = match found[..] {
            [one] => one,
            // Without tags the list is one of platforms.
            [_, ..] if tag.is_none() && found.iter().all(|d| name(d).is_none()) => {
                self.fitting(&self.index, architecture)?
            }
            _ => {
                let tags = self.index.manifests.iter().filter_map(name).collect();
                return Err(LayoutError::Which { path: self.path.clone(), tags });
            }
        };
        match self.document(&one.digest)? {
            Document::Manifest(_) => Ok(one.digest),
            Document::Index(index) => Ok(self.fitting(&index, architecture)?.digest),
        }
    }

    fn fitting<'a>(
        &self,
        index: &'a Index,
        architecture: &str,
    ) -> Result<&'a Descriptor, LayoutError> {
        for_architecture(index, architecture).ok_or_else(|| LayoutError::Platform {
            path: self.path.clone(),
            architecture: go_architecture(architecture).to_owned(),
            there: architectures(index),
        })
    }

    fn blob(&self, digest: &Digest) -> Result<&Content, LayoutError> {
        self.blobs.get(digest).ok_or_else(|| LayoutError::Form {
            path: self.path.clone(),
            missing: format!("blob {digest}"),
        })
    }

    fn document(&self, digest: &Digest) -> Result<Document, LayoutError> {
        let text = read(&self.path, &digest.to_string(), self.blob(digest)?)?;
        parse_document(&text).map_err(|source| LayoutError::Document {
            path: self.path.clone(),
            what: digest.to_string(),
            source,
        })
    }

    /// Takes an image of the layout into the store, with the artifacts about it.
    pub fn take(&self, store: &ImageStore, image: &Digest) -> Result<(), LayoutError> {
        let mut about = vec![*image];
        while let Some(digest) = about.pop() {
            let Document::Manifest(manifest) = self.document(&digest)? else { continue };
            for blob in manifest.blobs() {
                self.copy(store, &blob.digest)?;
            }
            self.copy(store, &digest)?;
            about.extend(self.referrers(&digest).into_iter().filter(|a| !store.blob(a).exists()));
        }
        Ok(())
    }

    /// The artifacts about a manifest. They need not stand in the index.
    fn referrers(&self, subject: &Digest) -> Vec<Digest> {
        let wanted = subject.to_string();
        let short = self.blobs.iter().filter(|(_, content)| content.len() <= MAX_DOCUMENT_BYTES);
        let about = short.filter(|(_, content)| {
            let text = content.read().ok().filter(|text| text.starts_with(b"{"));
            let manifest = text.and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
            manifest.and_then(|m| m.subject).is_some_and(|s| s.digest.to_string() == wanted)
        });
        about.map(|(digest, _)| *digest).collect()
    }

    fn copy(&self, store: &ImageStore, digest: &Digest) -> Result<(), LayoutError> {
        let io = |source| LayoutError::Io { path: self.path.clone(), source };
        let content = self.blob(digest)?;
        let mut hasher = Hasher::default();
        let mut unfinished = store.unfinished()?;
        let mut take = |bytes: &[u8]| {
            hasher.update(bytes);
            unfinished.write_all(bytes)
        };
        match content {
            Content::Bytes(bytes) => take(bytes).map_err(io)?,
            Content::Stored { path, offset, length } => {
                let mut file = File::open(path).map_err(io)?;
                io::Seek::seek(&mut file, io::SeekFrom::Start(*offset)).map_err(io)?;
                let (mut part, mut buffer) = (file.take(*length), vec![0; 256 << 10]);
                loop {
                    let count = part.read(&mut buffer).map_err(io)?;
                    if count == 0 {
                        break;
                    }
                    take(&buffer[..count]).map_err(io)?;
                }
            }
        }
        let (found, _) = hasher.finish();
        if found != *digest {
            let (path, expected) = (self.path.clone(), *digest);
            return Err(LayoutError::Altered { path, expected, found });
        }
        store.publish(unfinished)?;
        Ok(())
    }
}

/// A directory and the tag behind its last colon, of which no path ends.
pub fn split_tag(path: &str) -> (&str, Option<&str>) {
    match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !path.is_empty() => (path, Some(tag)),
        _ => (path, None),
    }
}

fn stored(path: &Path) -> io::Result<Content> {
    let length = fs::metadata(path)?.len();
    Ok(Content::Stored { path: path.into(), offset: 0, length })
}

fn read(path: &Path, what: &str, content: &Content) -> Result<Vec<u8>, LayoutError> {
    let io = |source| LayoutError::Io { path: path.join(what), source };
    if content.len() > MAX_DOCUMENT_BYTES {
        return Err(io(io::Error::other("it is too long for a document")));
    }
    content.read().map_err(io)
}

impl ImageStore {
    /// Writes an image with all artifacts about it into a layout: a directory, which may be one
    /// already and then gets the image beside what it has, or an archive where the path ends with
    /// `.tar`. The image's tag is `tag`.
    pub fn export(&self, image: &Digest, tag: &str, path: &Path) -> Result<usize, LayoutError> {
        let manifest = self.manifest(image)?;
        let mut blobs = self.blobs_of(image)?;
        // The filesystem is made from the layers wherever it is needed.
        let erofs = self.rootfs(image)?.map(|record| record.erofs);
        blobs.retain(|digest| Some(*digest) != erofs);
        for digest in &blobs {
            self.verify_blob(digest)?;
        }
        let size = self.bytes(image)?.len() as u64;
        let media_type = oci_media_type(&manifest.media_type);
        let media_type = if media_type.is_empty() { MANIFEST_MEDIA_TYPE } else { media_type };
        let mut entry = Descriptor::new(media_type, (*image, size));
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        if path.extension().is_some_and(|extension| extension == "tar") {
            self.export_archive(&blobs, entry, path)?;
        } else {
            self.export_directory(&blobs, entry, path)?;
        }
        Ok(blobs.len())
    }

    fn export_directory(
        &self,
        blobs: &[Digest],
        entry: Descriptor,
        path: &Path,
    ) -> Result<(), LayoutError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| LayoutError::Io { path, source }
        };
        let mut index = Index::new(Vec::new());
        if path.join("index.json").exists() {
            index = Layout::of_directory(path)?.index;
        } else if path.is_dir() && fs::read_dir(path).map_err(io(path))?.next().is_some() {
            let missing = "index.json, but other files; name another directory".to_owned();
            return Err(LayoutError::Form { path: path.into(), missing });
        }
        let to = path.join("blobs/sha256");
        fs::create_dir_all(&to).map_err(io(&to))?;
        for digest in blobs {
            let file = to.join(digest.hex());
            place(&file, |out| io::copy(&mut File::open(self.blob(digest))?, out).map(drop))
                .map_err(io(&file))?;
        }
        let layout = path.join("oci-layout");
        place(&layout, |out| out.write_all(LAYOUT)).map_err(io(&layout))?;
        let tag = entry.annotations.get(REF_NAME).cloned();
        index.manifests.retain(|other| other.annotations.get(REF_NAME) != tag.as_ref());
        index.manifests.push(entry);
        if index.media_type.is_empty() {
            INDEX_MEDIA_TYPE.clone_into(&mut index.media_type);
        }
        // Last, since it is what makes the rest reachable.
        let file = path.join("index.json");
        place(&file, |out| out.write_all(&to_json(&index))).map_err(io(&file))
    }

    fn export_archive(
        &self,
        blobs: &[Digest],
        entry: Descriptor,
        path: &Path,
    ) -> Result<(), LayoutError> {
        use crate::oci::layer::{everything, write};
        use crate::tree::{Inode, Metadata};
        let placed = |source| StoreError::Places(source);
        let io = |source| LayoutError::Io { path: path.into(), source };
        let mut tree = Tree::new();
        let file = |content: Content| Inode::file(Metadata::new(0o644), content);
        tree.make_directories("blobs/sha256", &Metadata::new(0o755)).map_err(placed)?;
        for digest in blobs {
            let content = stored(&self.blob(digest)).map_err(io)?;
            tree.insert(format!("blobs/sha256/{}", digest.hex()), file(content)).map_err(placed)?;
        }
        let index = to_json(&Index::new(vec![entry]));
        tree.insert("index.json", file(index.into())).map_err(placed)?;
        tree.insert("oci-layout", file(LAYOUT.to_vec().into())).map_err(placed)?;
        let mut failed = None;
        let placed = place(path, |out| {
            let mut out = io::BufWriter::with_capacity(1 << 20, out);
            write(&tree, &everything(&tree), &mut out).map_err(|error| {
                failed = Some(error);
                io::Error::other("the archive can't be written")
            })?;
            out.flush()
        });
        match (placed, failed) {
            (_, Some(error)) => Err(error.into()),
            (placed, None) => placed.map_err(io),
        }
    }
}

/// Writes a file so that it is whole or not there.
fn place(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = File::create(&unfinished).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&unfinished, path));
    if placed.is_err() {
        // What could not be finished is of no use; the first error is the one to show.
        let _ = fs::remove_file(&unfinished);
    }
    placed
}
