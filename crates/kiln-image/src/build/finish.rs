//! From a finished tree to an image in the store: a layer, the filesystem for instances, the
//! configuration, the manifest.

use std::io::{self, Write};
use std::num::NonZero;
use std::thread;

use kiln_model::digest::Digest;

use super::base::Below;
use super::{Build, BuildError};
use crate::checksum::Hasher;
use crate::oci::go_architecture;
use crate::oci::layer::{self, Change, Gzip, LayerError};
use crate::rootfs::Rootfs;
use crate::store::{
    Config, Descriptor, ImageConfig, ImageStore, LAYER_MEDIA_TYPE, Manifest, RootFs, StoreError,
    Written, to_json,
};
use crate::tree::Tree;

/// A layer that was written.
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    /// The checksum of its archive.
    pub(super) diff_id: Digest,
}

impl Build<'_> {
    /// Writes layer and filesystem, both at once, and publishes the image. Its digest, and the length
    /// of its filesystem in bytes.
    pub(super) fn finish(
        &self,
        root: &Rootfs,
        below: Option<Below>,
    ) -> Result<(Digest, u64), BuildError> {
        let name = || self.order.name.to_owned();
        let changes = match &below {
            None => Ok(layer::everything(&root.tree)),
            Some(below) => layer::changes(&below.tree, &root.tree),
        };
        let layer_error = |source| BuildError::Layer { name: name(), source };
        let changes = changes.map_err(layer_error)?;
        let (written, layer) = thread::scope(|scope| {
            let layer = (!changes.is_empty() || below.is_none())
                .then(|| scope.spawn(|| write_layer(self.store, &root.tree, &changes)));
            let written = self.store.write_rootfs(&root.tree);
            let layer = layer.map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            (written, layer.transpose())
        });
        let layer = layer.map_err(layer_error)?;
        let written = written.map_err(|source| match source {
            StoreError::Write(source) => BuildError::Write { name: name(), source },
            source => source.into(),
        })?;
        let config = self.config(root, below.as_ref())?;
        let digest = self.publish(config, below, layer, written)?;
        Ok((digest, written.size))
    }

    /// Publishes configuration, manifest and the record of the filesystem, in this order, so that
    /// what is there has all that it names.
    fn publish(
        &self,
        config: ImageConfig,
        below: Option<Below>,
        layer: Option<Layer>,
        written: Written,
    ) -> Result<Digest, StoreError> {
        let (mut layers, mut diff_ids, variant) = match below {
            None => (Vec::new(), Vec::new(), None),
            Some(Below { layers, config, .. }) => (layers, config.rootfs.diff_ids, config.variant),
        };
        if let Some(layer) = layer {
            layers.push(layer.descriptor);
            diff_ids.push(layer.diff_id);
        }
        let config = Config {
            architecture: go_architecture(&self.sources.architecture).to_owned(),
            variant,
            os: "linux".to_owned(),
            config,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        };
        let config = self.store.publish_bytes(&to_json(&config))?;
        let manifest = Manifest::new(config, layers);
        let (digest, _) = self.store.publish_bytes(&to_json(&manifest))?;
        self.store.note_rootfs(&written.of(digest))?;
        Ok(digest)
    }

    /// How the program is started, with its user as numbers: as the base has it, but for what the
    /// recipe says.
    fn config(&self, root: &Rootfs, below: Option<&Below>) -> Result<ImageConfig, BuildError> {
        let recipe = self.order.recipe;
        let mut config = below.map(|below| below.config.config.clone()).unwrap_or_default();
        let resolved = match &recipe.user {
            Some(user) => root.accounts.resolve(user).map(Some),
            None => inherited_user(root, &config.user),
        };
        let resolved = resolved
            .map_err(|source| BuildError::User { name: self.order.name.to_owned(), source })?;
        config.user = resolved.map(|(uid, gid)| format!("{uid}:{gid}")).unwrap_or_default();
        for (name, value) in &recipe.env {
            let entry = format!("{name}={value}");
            let same = |old: &&mut String| old.split('=').next() == Some(name);
            match config.env.iter_mut().find(same) {
                Some(old) => *old = entry,
                None => config.env.push(entry),
            }
        }
        if !recipe.entrypoint.is_empty() {
            config.entrypoint.clone_from(&recipe.entrypoint);
            config.cmd.clear();
        }
        if let Some(workdir) = &recipe.workdir {
            config.working_dir.clone_from(workdir);
        }
        config.labels.extend(recipe.labels.clone());
        for (path, size) in &recipe.writable {
            config.set_writable(path, *size);
        }
        Ok(config)
    }
}

/// The numbers of a base's user. A number without a group has the group that the accounts give it, as
/// other programs have it.
fn inherited_user(
    root: &Rootfs,
    user: &str,
) -> Result<Option<(u32, u32)>, crate::rootfs::accounts::AccountError> {
    match user.parse::<u32>() {
        _ if user.is_empty() => Ok(None),
        Ok(uid) => Ok(Some((uid, root.accounts.group_of(uid)))),
        Err(_) => root.accounts.resolve(user).map(Some),
    }
}

/// Writes a layer with these entries of a tree into the store.
pub(super) fn write_layer(
    store: &ImageStore,
    tree: &Tree,
    changes: &[Change],
) -> Result<Layer, LayerError> {
    let sink = |error: StoreError| LayerError::Sink(io::Error::other(error));
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let mut unfinished = store.unfinished().map_err(sink)?;
    let mut archive =
        Summed { gzip: Gzip::new(&mut unfinished, workers), hasher: Hasher::default() };
    layer::write(tree, changes, &mut archive)?;
    let Summed { gzip, hasher } = archive;
    gzip.finish().map_err(LayerError::Sink)?;
    let blob = store.publish(unfinished).map_err(sink)?;
    Ok(Layer { descriptor: Descriptor::new(LAYER_MEDIA_TYPE, blob), diff_id: hasher.finish().0 })
}

/// An archive that is summed before it is compressed.
struct Summed<W: Write> {
    gzip: Gzip<W>,
    hasher: Hasher,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.gzip.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}
