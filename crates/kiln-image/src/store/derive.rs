//! From layers to the filesystem that instances mount.

use std::io::{BufWriter, Write};
use std::path::Path;

use kiln_model::digest::Digest;

use super::rootfs::WRITER;
use super::{Config, ImageFiles, ImageStore, Manifest, RootfsRecord, StoreError};
use crate::erofs;
use crate::oci::layer::{self, LayerError, Unpacked};
use crate::progress::{Event, Progress};
use crate::rootfs::mount_points;
use crate::tree::{Inode, Metadata, Tree};

/// An extended attribute that gives rights to whoever runs a file.
const CAPABILITY: &[u8] = b"security.capability";

/// An image's layers, laid over one another.
#[derive(Debug)]
pub struct Laid {
    /// What the layers make.
    pub tree: Tree,
    /// The image's manifest.
    pub manifest: Manifest,
    /// The image's configuration.
    pub config: Config,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A filesystem that was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) erofs: Digest,
    pub(crate) size: u64,
}

impl ImageStore {
    /// Makes the filesystem of an image again from its layers, each byte of which is verified. It is
    /// the very filesystem that the build wrote.
    pub fn derive(
        &self,
        image: &Digest,
        progress: &dyn Progress,
    ) -> Result<ImageFiles, StoreError> {
        let workspace = self.workspace()?;
        let laid = self.lay(image, workspace.path(), progress)?;
        progress.event(Event::Write);
        let written = self.write_rootfs(&laid.tree)?;
        self.note_rootfs(&written.of(*image))?;
        self.get(image)
    }

    /// Lays an image's layers over one another. Contents stay in `workspace`, which must outlive
    /// the tree.
    pub fn lay(
        &self,
        image: &Digest,
        workspace: &Path,
        progress: &dyn Progress,
    ) -> Result<Laid, StoreError> {
        let manifest = self.manifest(image)?;
        let config = self.config(image, &manifest)?;
        let failed = |source| StoreError::Layer { image: *image, source: Box::new(source) };
        let unpacked = self.unpack_layers(&manifest, &config, workspace, progress);
        let spools = unpacked.map_err(failed)?;
        let (mut tree, mut devices) = (Tree::new(), 0);
        for (spool, blob) in spools.iter().zip(&manifest.layers) {
            let notes = layer::apply(&mut tree, spool, &name_of(&blob.digest)).map_err(failed)?;
            devices += notes.devices;
        }
        let notes = (devices > 0).then(|| {
            format!("{devices} device files below /dev are left out: instances get a /dev")
        });
        Ok(Laid { tree, manifest, config, notes: notes.into_iter().collect() })
    }

    /// Unpacks all layers, several at once, each into a file.
    fn unpack_layers(
        &self,
        manifest: &Manifest,
        config: &Config,
        workspace: &Path,
        progress: &dyn Progress,
    ) -> Result<Vec<std::path::PathBuf>, LayerError> {
        let layers: Vec<_> =
            manifest.layers.iter().zip(&config.rootfs.diff_ids).enumerate().collect();
        let total = layers.len();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let done = std::sync::atomic::AtomicUsize::new(0);
        crate::parallel::each(&layers, workers, |(at, (blob, diff_id))| {
            let layer = name_of(&blob.digest);
            let path = self.blob(&blob.digest);
            let file = std::fs::File::open(&path)
                .map_err(|source| LayerError::Io { path: path.clone(), source })?;
            let spool = workspace.join(format!("layer-{at}.tar"));
            let Unpacked { packed, content, .. } = layer::unpack(&layer, file, blob.size, &spool)?;
            if packed != blob.digest {
                return Err(LayerError::Altered { layer, found: packed });
            }
            if content != **diff_id {
                return Err(LayerError::Content { layer, expected: **diff_id, found: content });
            }
            let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            progress.event(Event::Unpack { package: &layer, done, total });
            Ok(spool)
        })
    }

    /// Writes the filesystem that instances of a tree mount, as a blob.
    pub(crate) fn write_rootfs(&self, tree: &Tree) -> Result<Written, StoreError> {
        let root = instance_root(tree)?;
        let mut unfinished = self.unfinished()?;
        let mut sink = BufWriter::with_capacity(1 << 20, &mut unfinished);
        let _summary = erofs::write(&root, erofs::Options::default(), &mut sink)?;
        sink.flush().map_err(|source| erofs::WriteError::Sink { source })?;
        drop(sink);
        let (erofs, size) = self.publish(unfinished)?;
        Ok(Written { erofs, size })
    }
}

impl Written {
    /// The record for a manifest.
    pub(crate) fn of(self, manifest: Digest) -> RootfsRecord {
        RootfsRecord { manifest, erofs: self.erofs, size: self.size, writer: WRITER }
    }
}

/// What a layer is called in messages.
fn name_of(layer: &Digest) -> String {
    format!("layer {layer}")
}

/// The tree as instances see it: with the places that something is mounted on, and without what
/// would give a program more rights than its user has.
fn instance_root(tree: &Tree) -> Result<Tree, StoreError> {
    let mut root = tree.clone();
    for path in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        // A link or a directory there is no place for a file.
        if root.get(path).is_some_and(|inode| inode.content().is_none()) {
            root.remove(path)?;
        }
    }
    mount_points(&mut root)?;
    let rights = |inode: &Inode| {
        let Metadata { mode, xattrs, .. } = inode.metadata();
        inode.content().is_some() && (mode & 0o6000 != 0 || xattrs.contains_key(CAPABILITY))
    };
    let found: Vec<Vec<u8>> =
        root.walk().filter(|visit| rights(visit.inode)).map(|visit| visit.path).collect();
    for path in found {
        let Some(inode) = root.get(&path) else { continue };
        let mut metadata = inode.metadata().clone();
        metadata.mode &= 0o1777;
        metadata.xattrs.remove(CAPABILITY);
        root.set_metadata(&path, metadata)?;
    }
    Ok(root)
}
