//! Locking and building the images of a stack.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kiln_image::build::Order;
use kiln_image::debian::suite::native_architecture;
use kiln_image::lock::Sources;
use kiln_image::progress::{Event, Progress};
use kiln_image::store::{ImageStore, Record};
use kiln_local::sandbox::LocalSandbox;
use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::Body;
use kiln_model::spec::image::{ImageTest, Recipe};

use super::{Draft, PrepareError};
use crate::server::own_program;

/// Is told what happens to an image; `None` while images are locked together.
pub trait ImageProgress: Sync {
    /// Takes note of one event. It must not block.
    fn event(&self, image: Option<&ComponentId>, event: Event<'_>);
}

/// The progress of one image.
struct Of<'a> {
    image: Option<&'a ComponentId>,
    told: &'a dyn ImageProgress,
}

impl Progress for Of<'_> {
    fn event(&self, event: Event<'_>) {
        self.told.event(self.image, event);
    }
}

impl Draft {
    /// The images and their recipes, in the order of the files.
    fn recipes(&self) -> impl Iterator<Item = (&ComponentId, &Recipe)> {
        self.specs.iter().filter_map(|s| Some((&s.id, &s.as_image()?.identity.recipe)))
    }

    /// Whether some image is not locked yet.
    pub fn is_unlocked(&self) -> bool {
        let architecture = native_architecture();
        self.recipes().any(|(_, recipe)| self.lock.inputs(recipe, architecture).is_err())
    }

    /// Resolves what is not locked yet; with `upgrade`, everything anew. Nothing is written until
    /// [`save_lock`](Self::save_lock). `root` holds the cache of downloads.
    pub fn lock(
        &mut self,
        root: &Path,
        upgrade: bool,
        told: &dyn ImageProgress,
    ) -> Result<(), PrepareError> {
        let sources = Sources::of_root(root)?;
        let mut lock = self.lock.clone();
        let progress = Of { image: None, told };
        lock.update(self.recipes().map(|(_, r)| r), &sources, upgrade, &progress)?;
        lock.retain(self.recipes().map(|(_, r)| r), &sources.architecture);
        for spec in &mut self.specs {
            if let Body::Image(image) = &mut spec.body {
                let inputs = lock.identity_inputs(&image.identity.recipe, &sources.architecture);
                image.identity.inputs = inputs;
            }
        }
        self.lock = lock;
        self.sealed = OnceCell::new();
        Ok(())
    }

    /// Writes `kiln.lock`, if it says something else than before; whether it does.
    pub fn save_lock(&mut self) -> Result<bool, PrepareError> {
        let changed = self.lock != self.locked;
        if changed {
            self.lock.save(&self.directory)?;
            self.locked = self.lock.clone();
        }
        Ok(changed)
    }

    /// Builds the images (those named in `only`, where it is given) that are not in the store of
    /// `root`. What was built, by image.
    pub fn build(
        &self,
        root: &Path,
        only: Option<&ComponentId>,
        told: &dyn ImageProgress,
    ) -> Result<BTreeMap<ComponentId, Record>, PrepareError> {
        let (mut store, sources) = (ImageStore::open(root)?, Sources::of_root(root)?);
        if let Ok(program) = own_program() {
            store = store.with_sandbox(Arc::new(LocalSandbox::new(root, &program)));
        }
        let mut built = BTreeMap::new();
        for (id, recipe) in self.recipes().filter(|(id, _)| only.is_none_or(|only| only == *id)) {
            let order = Order { name: &id.name, recipe, stack: &self.directory };
            let progress = Of { image: Some(id), told };
            let done = store.build(order, &self.lock, &sources, &progress).map_err(Box::new)?;
            built.insert(id.clone(), done.record);
        }
        Ok(built)
    }

    /// The tests that an image of the stack must pass.
    pub fn tests(&self, image: &ComponentId) -> &[ImageTest] {
        let spec = self.specs.iter().find(|spec| spec.id == *image);
        spec.and_then(|spec| spec.as_image()).map_or(&[], |image| &image.policy.tests)
    }

    /// The content digests of records, for a generation.
    pub fn contents(built: &BTreeMap<ComponentId, Record>) -> BTreeMap<ComponentId, Digest> {
        built.iter().map(|(id, record)| (id.clone(), record.digest)).collect()
    }
}
