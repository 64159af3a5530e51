//! What an image starts from, before its own steps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::image::{Base, Step};

use super::run::{self, Ground};
use super::{Build, BuildError};
use crate::copy::{self, CopiedKind, CopyError};
use crate::lock::{Request, Unlocked};
use crate::oci::go_architecture;
use crate::oci::layer::{self, LayerError};
use crate::oci::layout::{Layout, LayoutError, split_tag};
use crate::oci::reference::{InvalidReference, Reference};
use crate::oci::transfer::TransferError;
use crate::rootfs::{Options, Rootfs, RootfsError};
use crate::store::{Config, Descriptor, ImageConfig, Laid, RootFs, StoreError};
use crate::tree::{Content, Tree};

/// A base that can't be had, or can't be built on.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The reference is none.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// It can't be fetched, or is for other machines.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The layout can't be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The files of the stack can't be read.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The archive can't be read, or its layer can't be written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its accounts can't be read.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// It is not locked.
    #[error("{0}")]
    Unlocked(Unlocked),
    /// It has not been built.
    #[error("{0} is not built yet; build it first")]
    Missing(ComponentId),
    /// A directory where an archive was expected.
    #[error("tarball(\"{0}\") is not a file")]
    NotAFile(String),
}

/// What an image is built on.
pub(super) struct Below {
    /// Its files.
    pub(super) tree: Tree,
    /// Its layers, which become the image's first ones.
    pub(super) layers: Vec<Descriptor>,
    /// How its program is started, and what the layers are unpacked.
    pub(super) config: Config,
}

/// What an image is built on, and what the user should know about it.
type Started = (Below, Vec<String>);

/// The files that an image's steps start with, and what they came from.
pub(super) struct Foundation {
    pub(super) root: Rootfs,
    pub(super) below: Option<Below>,
}

impl Build<'_> {
    /// Brings about what the image starts from.
    pub(super) fn foundation(&self, ground: &Ground<'_>) -> Result<Foundation, BuildError> {
        let workspace = ground.workspace;
        let name = || self.order.name.to_owned();
        let rootfs = |source| BuildError::Rootfs { name: name(), source };
        if let Some(request) = Request::of(self.order.recipe, &self.sources.architecture) {
            let entry = self.lock.entry(&request).ok_or_else(|| BuildError::Unlocked {
                name: name(),
                reason: Unlocked::NoEntry(Box::new(request.clone())),
            })?;
            let paths = super::fetch(&request, entry, self.sources, self.progress)?;
            let packages = super::unpack::unpack(entry, &paths, workspace, self.progress)?;
            let (recipe, architecture) = (self.order.recipe, &self.sources.architecture);
            let options = Options::new(recipe, entry, architecture);
            let mut root = Rootfs::debian(&packages, &options).map_err(rootfs)?;
            run::scripts(&mut root, architecture, ground)
                .map_err(|e| BuildError::Scripts { name: name(), source: Box::new(e) })?;
            return Ok(Foundation { root, below: None });
        }
        let below = match &self.order.recipe.base {
            Base::Debian { .. } | Base::Scratch => {
                return Ok(Foundation { root: Rootfs::scratch().map_err(rootfs)?, below: None });
            }
            Base::Tarball { path, digest } => self.tarball(path, digest, workspace),
            Base::Oci { reference } => self.registry_image(reference, workspace),
            Base::OciLayout { path, digest } => self.layout_image(path, digest, workspace),
            Base::Image { image } => match self.bases.get(&image.id) {
                Some(record) => self.lay(&record.digest, &image.id.to_string(), workspace),
                None => Err(BaseError::Missing(image.id.clone())),
            },
        };
        let founded = below.and_then(|(below, warnings)| {
            let mut root = Rootfs::inherited(below.tree.clone())?;
            root.warnings = warnings;
            Ok(Foundation { root, below: Some(below) })
        });
        founded.map_err(|source| BuildError::Base { name: name(), source: Box::new(source) })
    }

    /// Starts from an image of a registry: the one that the lock names, fetched unless it is here.
    fn registry_image(&self, text: &str, workspace: &Path) -> Result<Started, BaseError> {
        let reference: Reference = text.parse()?;
        let locked = self.lock.manifest(text, &self.sources.architecture);
        let unlocked = || BaseError::Unlocked(Unlocked::NoReference(text.to_owned()));
        let image = locked.ok_or_else(unlocked)?;
        let registry = &self.sources.registry;
        self.store.fetch_locked(registry, &reference, &image, self.progress)?;
        self.lay(&image, text, workspace)
    }

    /// The files of the images of the stack that the recipe copies from.
    pub(super) fn others(
        &self,
        workspace: &Path,
    ) -> Result<BTreeMap<ComponentId, Tree>, BaseError> {
        let mut others = BTreeMap::new();
        for step in &self.order.recipe.steps {
            let Step::Take { image, .. } = step else { continue };
            if others.contains_key(&image.id) {
                continue;
            }
            let record = self.bases.get(&image.id);
            let record = record.ok_or_else(|| BaseError::Missing(image.id.clone()))?;
            // Each keeps its contents in a directory of its own.
            let place = workspace.join(format!("other-{}", others.len()));
            std::fs::create_dir(&place)
                .map_err(|source| StoreError::Io { path: place.clone(), source })?;
            let laid = self.store.lay(&record.digest, &place, self.progress)?;
            others.insert(image.id.clone(), laid.tree);
        }
        Ok(others)
    }

    /// Starts from an image of a layout below the stack's directory.
    fn layout_image(
        &self,
        path: &str,
        digest: &Digest,
        workspace: &Path,
    ) -> Result<Started, BaseError> {
        let (directory, tag) = split_tag(path);
        let layout = self.layout(directory, digest, workspace)?;
        let image = layout.select(tag, &self.sources.architecture)?;
        layout.take(self.store, &image)?;
        self.lay(&image, path, workspace)
    }

    /// Starts from an image that is in the store.
    fn lay(&self, image: &Digest, shown: &str, workspace: &Path) -> Result<Started, BaseError> {
        self.store.check_platform(shown, image, &self.sources.architecture)?;
        let laid = self.store.lay(image, workspace, self.progress)?;
        let Laid { tree, manifest, config, notes } = laid;
        let own = |mut layer: Descriptor| {
            layer.media_type = crate::oci::oci_media_type(&layer.media_type).to_owned();
            layer.annotations.clear();
            layer
        };
        let layers = manifest.layers.into_iter().map(own).collect();
        Ok((Below { tree, layers, config }, notes))
    }

    /// The layout in the stack's directory, as it was when its digest was taken.
    fn layout(
        &self,
        directory: &str,
        digest: &Digest,
        workspace: &Path,
    ) -> Result<Layout, BaseError> {
        let entries = copy::collect(self.order.stack, directory, digest, workspace)?;
        let file = |entry: copy::Copied| match entry.kind {
            CopiedKind::File { content, .. } => Some((entry.path, content)),
            _ => None,
        };
        let files: BTreeMap<_, _> = entries.into_iter().filter_map(file).collect();
        Ok(Layout::of_files(Path::new(directory), files)?)
    }

    /// The root filesystem in an archive, which becomes a layer of its own.
    fn tarball(&self, path: &str, digest: &Digest, workspace: &Path) -> Result<Started, BaseError> {
        let mut entries = copy::collect(self.order.stack, path, digest, workspace)?;
        let Some(CopiedKind::File { content, .. }) = entries.pop().map(|entry| entry.kind) else {
            return Err(BaseError::NotAFile(path.to_owned()));
        };
        let shown = format!("tarball(\"{path}\")");
        let spool = workspace.join("tarball.tar");
        let packed = content.len();
        let opened = open(&content)
            .map_err(|source| LayerError::Io { path: self.order.stack.join(path), source })?;
        layer::unpack(&shown, opened, packed, &spool)?;
        let mut tree = Tree::new();
        let notes = layer::apply_rootfs(&mut tree, &spool, &shown)?;
        let warning = (notes.devices > 0).then(|| {
            format!("{} device files below /dev are left out: instances get a /dev", notes.devices)
        });
        let own = super::finish::write_layer(self.store, &tree, &layer::everything(&tree))?;
        let config = Config {
            architecture: go_architecture(&self.sources.architecture).to_owned(),
            variant: None,
            os: "linux".to_owned(),
            config: ImageConfig::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![own.diff_id] },
        };
        let below = Below { tree, layers: vec![own.descriptor], config };
        Ok((below, warning.into_iter().collect()))
    }
}

/// A content to be read from its beginning.
fn open(content: &Content) -> io::Result<Box<dyn Read + '_>> {
    Ok(match content {
        Content::Bytes(bytes) => Box::new(&bytes[..]),
        Content::Stored { path, offset, length } => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(*offset))?;
            Box::new(file.take(*length))
        }
    })
}
