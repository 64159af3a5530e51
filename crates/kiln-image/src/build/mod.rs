//! Building an image from a recipe and its locked inputs.

mod steps;
mod unpack;

use std::path::Path;

use kiln_model::canonical::{self, EncodeError};
use kiln_model::digest::Digest;
use kiln_model::spec::image::{ImageIdentity, Inputs, Recipe};

use crate::deb::DebError;
use crate::erofs;
use crate::fetch::FetchError;
use crate::lock::{Lock, LockEntry, Request, Sources, Unlocked};
use crate::progress::{Event, Progress};
use crate::rootfs::accounts::AccountError;
use crate::rootfs::{self, Rootfs, RootfsError};
use crate::store::{
    Config, ImageConfig, ImageFiles, ImageStore, Manifest, Record, RootFs, StoreError,
};

pub use steps::StepError;

/// The version of what this module makes of the same inputs. It is raised with each change that
/// gives other bytes, so that the index does not answer for an older one.
const BUILDER: u32 = 2;

/// An image that can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe is not locked.
    #[error("image {name} can't be built without a lock: {reason}")]
    Unlocked {
        /// The image's name.
        name: String,
        /// What is missing.
        reason: Unlocked,
    },
    /// The recipe has no digest.
    #[error("the recipe of image {name} can't be written down")]
    Encode {
        /// The image's name.
        name: String,
        /// Why.
        source: EncodeError,
    },
    /// A package has left the mirror.
    #[error(
        "package {package} {version} is no longer at {mirror} nor in the cache; lock the image anew to get its present version"
    )]
    Gone {
        /// The package.
        package: String,
        /// Its locked version.
        version: String,
        /// Where it was looked for.
        mirror: String,
        /// The answer.
        source: Box<FetchError>,
    },
    /// A package can't be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A package can't be unpacked.
    #[error("package {package} can't be unpacked")]
    Unpack {
        /// The package.
        package: String,
        /// Why.
        source: DebError,
    },
    /// The packages don't fit together.
    #[error("image {name} can't be put together")]
    Rootfs {
        /// The image's name.
        name: String,
        /// Why.
        source: RootfsError,
    },
    /// A step of the recipe can't be done.
    #[error("image {name} can't be finished")]
    Step {
        /// The image's name.
        name: String,
        /// Why.
        source: StepError,
    },
    /// The user that the program is to run as is not there.
    #[error("image {name}: user")]
    User {
        /// The image's name.
        name: String,
        /// Why.
        source: AccountError,
    },
    /// The filesystem can't be written.
    #[error("the filesystem of image {name} can't be written")]
    Write {
        /// The image's name.
        name: String,
        /// Why.
        source: erofs::WriteError,
    },
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One image to be built.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The image's name, for messages and the index.
    pub name: &'a str,
    /// What is to be done.
    pub recipe: &'a Recipe,
    /// The stack's directory, from which files are copied.
    pub stack: &'a Path,
}

/// What came of an order.
#[derive(Clone, Debug)]
pub struct Built {
    /// What the index keeps.
    pub record: Record,
    /// The image.
    pub image: ImageFiles,
    /// Whether it was there before.
    pub cached: bool,
    /// What the user should know; empty for an image that was there before.
    pub warnings: Vec<String>,
}

/// The digest of an image as a component: of its recipe and locked inputs.
pub fn component_digest(recipe: &Recipe, inputs: Digest) -> Result<Digest, EncodeError> {
    let identity = ImageIdentity { recipe: recipe.clone(), inputs: Inputs::Locked(inputs) };
    canonical::digest("kiln.image.v1", &identity, &|_| None)
}

impl ImageStore {
    /// Builds an image unless it was built before. The lock must hold its request; see
    /// [`Lock::update`]. Only the store and the cache are written to.
    pub fn build(
        &self,
        order: Order<'_>,
        lock: &Lock,
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<Built, BuildError> {
        let name = || order.name.to_owned();
        let inputs = lock
            .inputs(order.recipe, &sources.architecture)
            .map_err(|reason| BuildError::Unlocked { name: name(), reason })?;
        let component = component_digest(order.recipe, inputs)
            .map_err(|source| BuildError::Encode { name: name(), source })?;
        if let Some(built) = self.built_before(order.name, &component, progress)? {
            return Ok(built);
        }
        let _held = self.lock_build(&component, order.name)?;
        if let Some(built) = self.built_before(order.name, &component, progress)? {
            return Ok(built);
        }
        let built = self.build_anew(order, component, lock, sources, progress)?;
        progress.event(Event::Done { size_bytes: built.image.size_bytes, cached: false });
        Ok(built)
    }

    fn built_before(
        &self,
        name: &str,
        component: &Digest,
        progress: &dyn Progress,
    ) -> Result<Option<Built>, StoreError> {
        let found = self.find(component)?.filter(|record| record.builder == BUILDER);
        let Some(mut record) = found else { return Ok(None) };
        if record.name != name {
            name.clone_into(&mut record.name);
            self.note_other_name(&record)?;
        }
        let image = self.get(&record.digest)?;
        progress.event(Event::Done { size_bytes: image.size_bytes, cached: true });
        Ok(Some(Built { record, image, cached: true, warnings: Vec::new() }))
    }

    fn build_anew(
        &self,
        order: Order<'_>,
        component: Digest,
        lock: &Lock,
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<Built, BuildError> {
        let name = || order.name.to_owned();
        let workspace = self.workspace()?;
        let failed = |source| BuildError::Rootfs { name: name(), source };
        let mut root = match Request::of(order.recipe, &sources.architecture) {
            None => Rootfs::scratch().map_err(failed)?,
            Some(request) => {
                let entry = lock.entry(&request);
                let reason = || Unlocked::NoEntry(Box::new(request.clone()));
                let entry =
                    entry.ok_or_else(|| BuildError::Unlocked { name: name(), reason: reason() })?;
                let paths = fetch(&request, entry, sources, progress)?;
                let packages = unpack::unpack(entry, &paths, workspace.path(), progress)?;
                let options = rootfs::Options::new(order.recipe, entry, &sources.architecture);
                Rootfs::debian(&packages, &options).map_err(failed)?
            }
        };
        steps::apply(&mut root, order.recipe, order.stack, workspace.path())
            .map_err(|source| BuildError::Step { name: name(), source })?;
        for warning in &root.warnings {
            progress.event(Event::Warning(warning));
        }
        progress.event(Event::Write);
        let mut unfinished = self.unfinished()?;
        let options = erofs::Options::default();
        let mut sink = std::io::BufWriter::with_capacity(1 << 20, &mut unfinished);
        let write = |source| BuildError::Write { name: name(), source };
        let _summary = erofs::write(&root.tree, options, &mut sink).map_err(write)?;
        let flushed = std::io::Write::flush(&mut sink);
        flushed.map_err(|source| write(erofs::WriteError::Sink { source }))?;
        drop(sink);
        let filesystem = self.publish(unfinished)?;
        let config = image_config(order, &root)?;
        let digest = self.publish_image(&sources.architecture, config, filesystem)?;
        let record = Record {
            name: name(),
            recipe: component,
            digest,
            size: filesystem.1,
            builder: BUILDER,
        };
        self.note(&record)?;
        let image = self.get(&digest)?;
        Ok(Built { record, image, cached: false, warnings: root.warnings })
    }

    /// Publishes configuration and manifest, in this order, so that a manifest that is there has
    /// all that it names.
    fn publish_image(
        &self,
        architecture: &str,
        config: ImageConfig,
        filesystem: (Digest, u64),
    ) -> Result<Digest, StoreError> {
        let config = Config {
            architecture: go_architecture(architecture).to_owned(),
            os: "linux".to_owned(),
            config,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![filesystem.0] },
        };
        let config = self.publish_bytes(&to_json(&config))?;
        let manifest = Manifest::new(config, filesystem);
        Ok(self.publish_bytes(&to_json(&manifest))?.0)
    }
}

fn to_json<T: serde::Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("strings, numbers and lists of them can be written as JSON")
}

/// The OCI specification names architectures as Go does.
fn go_architecture(debian: &str) -> &str {
    match debian {
        "i386" => "386",
        "armhf" => "arm",
        "ppc64el" => "ppc64le",
        other => other,
    }
}

/// Fetches all packages of a lock's entry, in its order.
fn fetch(
    request: &Request,
    entry: &LockEntry,
    sources: &Sources,
    progress: &dyn Progress,
) -> Result<Vec<std::path::PathBuf>, BuildError> {
    let downloads = entry.downloads(request, &sources.mirrors);
    sources.fetcher.download_all(&downloads, progress).map_err(|error| match error {
        FetchError::Absent { ref url, .. } => {
            let at = downloads.iter().position(|d| d.urls.contains(url));
            match at.map(|at| &entry.packages[at]) {
                Some(package) => BuildError::Gone {
                    package: package.name.clone(),
                    version: package.version.clone(),
                    mirror: url.trim_end_matches(&package.filename).to_owned(),
                    source: Box::new(error),
                },
                None => error.into(),
            }
        }
        error => error.into(),
    })
}

/// How the program is started, with its user as numbers.
fn image_config(order: Order<'_>, root: &Rootfs) -> Result<ImageConfig, BuildError> {
    let recipe = order.recipe;
    let user = match &recipe.user {
        None => String::new(),
        Some(user) => {
            let resolved = root.accounts.resolve(user);
            let (uid, gid) = resolved
                .map_err(|source| BuildError::User { name: order.name.to_owned(), source })?;
            format!("{uid}:{gid}")
        }
    };
    let mut config = ImageConfig {
        user,
        env: recipe.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        entrypoint: recipe.entrypoint.clone(),
        cmd: Vec::new(),
        working_dir: recipe.workdir.clone().unwrap_or_default(),
        labels: recipe.labels.clone(),
    };
    for (path, size) in &recipe.writable {
        config.set_writable(path, *size);
    }
    Ok(config)
}
