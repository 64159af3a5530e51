//! Locking and building the images of a stack.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;

use kiln_image::build::Order;
use kiln_image::debian::suite::native_architecture;
use kiln_image::lock::{EntryDifference, Request, Sources};
use kiln_image::progress::{Event, Progress};
use kiln_image::store::{ImageStore, Record};
use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::Body;
use kiln_model::spec::image::Recipe;

use super::{Draft, PrepareError};

/// What of a lock is chosen anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgrade {
    /// Only what is not locked yet is chosen.
    Nothing,
    /// Everything.
    All,
    /// What one image asks for, and with it others that ask for the same.
    Only(ComponentId),
}

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
        self.lock_with(root, if upgrade { &Upgrade::All } else { &Upgrade::Nothing }, told)
    }

    /// The same, with a say in what is chosen anew.
    pub fn lock_with(
        &mut self,
        root: &Path,
        upgrade: &Upgrade,
        told: &dyn ImageProgress,
    ) -> Result<(), PrepareError> {
        let sources = Sources::of_root(root)?;
        let mut lock = self.lock.clone();
        let progress = Of { image: None, told };
        if let Upgrade::Only(image) = upgrade {
            let chosen = self.recipes().filter(|(id, _)| *id == image).map(|(_, r)| r);
            lock.update(chosen, &sources, true, &progress)?;
        }
        let all = *upgrade == Upgrade::All;
        lock.update(self.recipes().map(|(_, r)| r), &sources, all, &progress)?;
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

    /// What the lock says otherwise than its file did.
    pub fn lock_differences(&self) -> Vec<EntryDifference> {
        self.lock.since(&self.locked)
    }

    /// The names of the images that make a request of packages.
    pub fn images_of(&self, request: &Request) -> Vec<String> {
        let makes = |recipe: &Recipe| {
            Request::of(recipe, &request.architecture).is_some_and(|own| own == *request)
        };
        let makers = self.recipes().filter(|(_, recipe)| makes(recipe));
        makers.map(|(id, _)| id.name.to_string()).collect()
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
        let (store, sources) = (ImageStore::open(root)?, Sources::of_root(root)?);
        let mut built = BTreeMap::new();
        for (id, recipe) in self.recipes().filter(|(id, _)| only.is_none_or(|only| only == *id)) {
            let order = Order { name: &id.name, recipe, stack: &self.directory };
            let progress = Of { image: Some(id), told };
            let done = store.build(order, &self.lock, &sources, &progress).map_err(Box::new)?;
            built.insert(id.clone(), done.record);
        }
        Ok(built)
    }

    /// The content digests of records, for a generation.
    pub fn contents(built: &BTreeMap<ComponentId, Record>) -> BTreeMap<ComponentId, Digest> {
        built.iter().map(|(id, record)| (id.clone(), record.digest)).collect()
    }
}
