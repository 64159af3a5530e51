//! Building an image from a recipe and its locked inputs.

mod base;
mod finish;
mod run;
mod steps;
mod unpack;

use std::collections::BTreeMap;
use std::path::Path;

use kiln_model::canonical::{self, EncodeError};
use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::image::{ImageIdentity, Inputs, Recipe};

use crate::deb::DebError;
use crate::erofs;
use crate::fetch::FetchError;
use crate::lock::{Lock, LockEntry, Request, Sources, Unlocked};
use crate::oci::layer::LayerError;
use crate::progress::{Event, Progress};
use crate::rootfs::RootfsError;
use crate::rootfs::accounts::AccountError;
use crate::store::{ImageFiles, ImageStore, Record, StoreError};

pub use base::BaseError;
pub use run::RunError;
pub use steps::StepError;

/// The version of what this module makes of the same inputs. It is raised with each change that
/// gives other bytes, so that the index does not answer for an older one.
const BUILDER: u32 = 3;

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
    /// A maintainer script has not done its work.
    #[error("the maintainer scripts of image {name}")]
    Scripts {
        /// The image's name.
        name: String,
        /// Why.
        source: Box<RunError>,
    },
    /// The user that the program is to run as is not there.
    #[error("image {name}: user")]
    User {
        /// The image's name.
        name: String,
        /// Why.
        source: AccountError,
    },
    /// What the image stands on can't be had.
    #[error("image {name} can't be put on its base")]
    Base {
        /// The image's name.
        name: String,
        /// Why.
        source: Box<BaseError>,
    },
    /// The image's layer can't be written.
    #[error("the layer of image {name} can't be written")]
    Layer {
        /// The image's name.
        name: String,
        /// Why.
        source: LayerError,
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

/// What was built of the images of a stack so far.
pub type Bases = BTreeMap<ComponentId, Record>;

/// The digest of an image as a component: of its recipe and locked inputs, in which the image of the
/// stack that it stands on is a digest that `bases` gives.
pub fn component_digest(
    recipe: &Recipe,
    inputs: Digest,
    bases: &dyn Fn(&ComponentId) -> Option<Digest>,
) -> Result<Digest, EncodeError> {
    let identity = ImageIdentity { recipe: recipe.clone(), inputs: Inputs::Locked(inputs) };
    canonical::digest("kiln.image.v1", &identity, bases)
}

impl ImageStore {
    /// Builds an image that stands on no other of its stack, unless it was built before. The lock
    /// must hold its request; see [`Lock::update`] and [`Lock::pin`]. Only the store and the cache
    /// are written to.
    pub fn build(
        &self,
        order: Order<'_>,
        lock: &Lock,
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<Built, BuildError> {
        self.build_on(order, &Bases::new(), lock, sources, progress)
    }

    /// The same for an image that may stand on one of `bases`.
    pub fn build_on(
        &self,
        order: Order<'_>,
        bases: &Bases,
        lock: &Lock,
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<Built, BuildError> {
        Build { store: self, order, bases, lock, sources, progress }.run()
    }

    fn built_before(
        &self,
        name: &str,
        component: &Digest,
        progress: &dyn Progress,
    ) -> Result<Option<Built>, StoreError> {
        self.touch(component)?;
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
}

/// An order on its way.
struct Build<'a> {
    store: &'a ImageStore,
    order: Order<'a>,
    bases: &'a Bases,
    lock: &'a Lock,
    sources: &'a Sources,
    progress: &'a dyn Progress,
}

impl Build<'_> {
    fn run(&self) -> Result<Built, BuildError> {
        let Order { name, recipe, .. } = self.order;
        let inputs = self
            .lock
            .inputs(recipe, &self.sources.architecture)
            .map_err(|reason| BuildError::Unlocked { name: name.to_owned(), reason })?;
        let bases = |id: &ComponentId| self.bases.get(id).map(|record| record.recipe);
        let component = component_digest(recipe, inputs, &bases)
            .map_err(|source| BuildError::Encode { name: name.to_owned(), source })?;
        if let Some(built) = self.store.built_before(name, &component, self.progress)? {
            return Ok(built);
        }
        let _held = self.store.lock_build(&component, name)?;
        if let Some(built) = self.store.built_before(name, &component, self.progress)? {
            return Ok(built);
        }
        let built = self.build_anew(component)?;
        self.progress.event(Event::Done { size_bytes: built.image.size_bytes, cached: false });
        Ok(built)
    }

    fn build_anew(&self, component: Digest) -> Result<Built, BuildError> {
        let Order { name, recipe, stack } = self.order;
        let workspace = self.store.workspace()?;
        let ground = run::Ground {
            sandbox: self.store.sandbox(),
            workspace: workspace.path(),
            env: &recipe.env,
            clock: crate::sandbox::NO_DATE,
            progress: self.progress,
        };
        let base::Foundation { mut root, below } = self.foundation(&ground)?;
        let others = self.others(workspace.path()).map_err(|source| BuildError::Base {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        let materials = steps::Materials { stack, others: &others };
        steps::apply(&mut root, recipe, &materials, &ground)
            .map_err(|source| BuildError::Step { name: name.to_owned(), source })?;
        for warning in &root.warnings {
            self.progress.event(Event::Warning(warning));
        }
        self.progress.event(Event::Write);
        let (digest, size) = self.finish(&root, below)?;
        let record = Record {
            name: name.to_owned(),
            recipe: component,
            digest,
            size,
            builder: BUILDER,
            reference: None,
        };
        self.store.note(&record)?;
        let image = self.store.get(&digest)?;
        Ok(Built { record, image, cached: false, warnings: root.warnings })
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
