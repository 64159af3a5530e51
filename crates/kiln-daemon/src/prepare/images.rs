//! Locking the images of a stack, and the order in which they are built.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kiln_image::debian::suite::native_architecture;
use kiln_image::lock::{EntryDifference, Request, Sources};
use kiln_image::progress::{Event, Progress};
use kiln_image::store::Record;
use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::seal::building_order;
use kiln_model::spec::image::Recipe;
use kiln_model::spec::{Body, Spec};

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
pub(super) struct Of<'a> {
    pub(super) image: Option<&'a ComponentId>,
    pub(super) told: &'a dyn ImageProgress,
}

impl Progress for Of<'_> {
    fn event(&self, event: Event<'_>) {
        self.told.event(self.image, event);
    }
}

impl Draft {
    /// The images and their recipes, in the order of the files.
    pub(super) fn recipes(&self) -> impl Iterator<Item = (&ComponentId, &Recipe)> {
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
        let all = *upgrade == Upgrade::All;
        let (registry, architecture) = (&sources.registry, &sources.architecture);
        if let Upgrade::Only(image) = upgrade {
            let chosen = || self.recipes().filter(|(id, _)| *id == image).map(|(_, r)| r);
            lock.update(chosen(), &sources, true, &progress)?;
            lock.pin(chosen(), registry, architecture, true, &progress)?;
        }
        lock.update(self.recipes().map(|(_, r)| r), &sources, all, &progress)?;
        lock.pin(self.recipes().map(|(_, r)| r), registry, architecture, all, &progress)?;
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
        let found = self.recipes().filter(|(_, recipe)| makes(recipe));
        found.map(|(id, _)| id.name.clone()).collect()
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

    /// The images and their recipes, each after those that it is built from; of `only` one of them,
    /// that and what it is built from.
    pub(super) fn to_build(&self, only: Option<&ComponentId>) -> Vec<(&ComponentId, &Recipe)> {
        let specs: BTreeMap<ComponentId, Arc<Spec>> =
            self.specs.iter().map(|spec| (spec.id.clone(), Arc::new(spec.clone()))).collect();
        let mut wanted = BTreeSet::new();
        let mut ahead: Vec<&ComponentId> = only.into_iter().collect();
        while let Some(id) = ahead.pop() {
            if wanted.insert(id)
                && let Some(spec) = specs.get(id)
            {
                ahead.extend(spec.built_from());
            }
        }
        let recipes: BTreeMap<&ComponentId, &Recipe> = self.recipes().collect();
        let order = building_order(&specs);
        let found = order.iter().filter_map(|id| recipes.get_key_value(id).map(|(i, r)| (*i, *r)));
        found.filter(|(id, _)| only.is_none() || wanted.contains(id)).collect()
    }

    /// The content digests of records, for a generation.
    pub fn contents(built: &BTreeMap<ComponentId, Record>) -> BTreeMap<ComponentId, Digest> {
        built.iter().map(|(id, record)| (id.clone(), record.digest)).collect()
    }
}
