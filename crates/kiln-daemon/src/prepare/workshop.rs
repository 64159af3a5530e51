//! Building the images of a stack, testing them in throw-away instances, and admitting them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kiln_image::admission::Passed;
use kiln_image::build::{Built, Order};
use kiln_image::lock::Sources;
use kiln_image::progress::{Event, Progress as _};
use kiln_image::store::{ImageStore, Record, StoreError};
use kiln_image::surface::{Finding, findings};
use kiln_image::trial::{Stop, TestReport, run_tests};
use kiln_local::laboratory::LocalLaboratory;
use kiln_local::sandbox::LocalSandbox;
use kiln_local::seccomp::Learner;
use kiln_model::name::ComponentId;
use kiln_model::quantity::Millis;
use kiln_model::spec::image::{Image, ImageTest, Surface};

use super::images::{ImageProgress, Of};
use super::{Draft, PrepareError};
use crate::server::own_program;

/// The most findings that one message names.
const MOST_NAMED: usize = 4;

/// Where images are built and tested.
struct Workshop<'a> {
    root: &'a Path,
    store: ImageStore,
    laboratory: LocalLaboratory,
    told: &'a dyn ImageProgress,
    stop: &'a Stop,
}

/// What came of the tests of an image.
#[derive(Debug, Clone)]
pub struct Tested {
    /// What was built.
    pub record: Record,
    /// What came of each test, in the order of the stack's files.
    pub reports: Vec<TestReport>,
}

impl<'a> Workshop<'a> {
    fn open(
        root: &'a Path,
        told: &'a dyn ImageProgress,
        stop: &'a Stop,
    ) -> Result<Self, PrepareError> {
        let program = own_program().map_err(PrepareError::Program)?;
        let sandbox = Arc::new(LocalSandbox::new(root, &program));
        let store = ImageStore::open(root)?.with_sandbox(sandbox);
        let laboratory = LocalLaboratory::new(root, &program);
        Ok(Self { root, store, laboratory, told, stop })
    }

    /// Runs the tests of an image: of every byte that was built.
    fn test(
        &self,
        id: &ComponentId,
        built: &Built,
        tests: &[ImageTest],
    ) -> Result<Vec<TestReport>, PrepareError> {
        let image = self.store.verify_image(&built.record.digest)?;
        let progress = Of { image: Some(id), told: self.told };
        Ok(run_tests(&self.laboratory, &image, tests, &progress, self.stop))
    }
}

impl Draft {
    /// Builds the images (the one named in `only`, where it is given) that are not in the store of
    /// `root`, each after those that it is built from, and admits each: when its tests have passed,
    /// unless just these have before. What was built, by image.
    pub fn build(
        &self,
        root: &Path,
        only: Option<&ComponentId>,
        told: &dyn ImageProgress,
        stop: &Stop,
    ) -> Result<BTreeMap<ComponentId, Record>, PrepareError> {
        let workshop = Workshop::open(root, told, stop)?;
        let prove = |id: &ComponentId, built: &Built| self.prove(&workshop, id, built);
        let built = self.build_in(root, &workshop.store, only, told, &prove)?;
        Ok(built.into_iter().map(|(id, built)| (id, built.record)).collect())
    }

    /// Builds the images as [`build`](Self::build) does, and runs all tests, also those that have
    /// passed before. An image whose tests have passed is admitted.
    pub fn test(
        &self,
        root: &Path,
        only: Option<&ComponentId>,
        told: &dyn ImageProgress,
        stop: &Stop,
    ) -> Result<BTreeMap<ComponentId, Tested>, PrepareError> {
        let workshop = Workshop::open(root, told, stop)?;
        let built = self.build_in(root, &workshop.store, only, told, &|_, _| Ok(()))?;
        let mut tested = BTreeMap::new();
        for (id, built) in built {
            let Some(image) = self.image(&id) else { continue };
            let reports = workshop.test(&id, &built, &image.policy.tests)?;
            if reports.iter().all(|report| report.passed) {
                self.admit_tested(&workshop.store, root, image, &built, &passed(image, &reports))?;
            }
            tested.insert(id, Tested { record: built.record, reports });
        }
        Ok(tested)
    }

    /// Builds an image and runs its tests, whose system calls are learned: what came of them, and the
    /// names of the calls.
    pub fn learn(
        &self,
        root: &Path,
        only: &ComponentId,
        told: &dyn ImageProgress,
        stop: &Stop,
    ) -> Result<(Vec<TestReport>, BTreeSet<String>), PrepareError> {
        let mut workshop = Workshop::open(root, told, stop)?;
        let learner = Learner::default();
        workshop.laboratory = workshop.laboratory.learning(learner.clone());
        let built = self.build_in(root, &workshop.store, Some(only), told, &|_, _| Ok(()))?;
        let (Some(image), Some(built)) = (self.image(only), built.get(only)) else {
            return Ok((Vec::new(), BTreeSet::new()));
        };
        let reports = workshop.test(only, built, &image.policy.tests)?;
        Ok((reports, learner.names()))
    }

    /// Builds images in a store; `each` looks at one before others are built from it.
    pub(super) fn build_in(
        &self,
        root: &Path,
        store: &ImageStore,
        only: Option<&ComponentId>,
        told: &dyn ImageProgress,
        each: &dyn Fn(&ComponentId, &Built) -> Result<(), PrepareError>,
    ) -> Result<BTreeMap<ComponentId, Built>, PrepareError> {
        let sources = Sources::of_root(root)?;
        let (mut records, mut all) = (BTreeMap::new(), BTreeMap::new());
        for (id, recipe) in self.to_build(only) {
            let order = Order { name: &id.name, recipe, stack: &self.directory };
            let progress = Of { image: Some(id), told };
            let built = store.build_on(order, &records, &self.lock, &sources, &progress);
            let built = built.map_err(Box::new)?;
            each(id, &built)?;
            records.insert(id.clone(), built.record.clone());
            all.insert(id.clone(), built);
        }
        if let Some(only) = only {
            all.retain(|id, _| id == only);
        }
        Ok(all)
    }

    /// Sees to it that an image is admitted, or says why it is not.
    fn prove(
        &self,
        workshop: &Workshop<'_>,
        id: &ComponentId,
        built: &Built,
    ) -> Result<(), PrepareError> {
        let Some(image) = self.image(id) else { return Ok(()) };
        if image.policy.surface == Surface::Deny || !built.cached {
            check_surface(workshop, id, image, built)?;
        }
        if self.is_admitted(&workshop.store, workshop.root, image, built)?.is_some() {
            return Ok(());
        }
        Self::is_its_own(&workshop.store, workshop.root, id, built)?;
        let reports = workshop.test(id, built, &image.policy.tests)?;
        if reports.iter().any(|report| !report.passed) {
            return Err(PrepareError::Tests { image: id.clone(), reports });
        }
        let passed = passed(image, &reports);
        self.admit_tested(&workshop.store, workshop.root, image, built, &passed)?;
        Ok(())
    }

    /// An image of the stack.
    pub(super) fn image(&self, id: &ComponentId) -> Option<&Image> {
        self.specs.iter().find(|spec| spec.id == *id)?.as_image()
    }
}

/// Tests that have passed, as they are signed.
fn passed(image: &Image, reports: &[TestReport]) -> Vec<Passed> {
    let tests = image.policy.tests.iter().zip(reports);
    let passed = tests.map(|(test, report)| Passed {
        name: test.name.clone(),
        checks: test.checks.clone(),
        time: Millis(report.milliseconds),
    });
    passed.collect()
}

/// Warns of shells and the like, or refuses the image, as its `surface` says.
fn check_surface(
    workshop: &Workshop<'_>,
    id: &ComponentId,
    image: &Image,
    built: &Built,
) -> Result<(), PrepareError> {
    if image.policy.surface == Surface::Allow {
        return Ok(());
    }
    let found = findings(&built.image.erofs).map_err(|source| {
        let digest = built.image.erofs_digest;
        PrepareError::Images(StoreError::Foreign { digest, reason: source.to_string() })
    })?;
    if found.is_empty() {
        return Ok(());
    }
    let what = named(&found);
    if image.policy.surface == Surface::Deny {
        return Err(PrepareError::Surface { image: id.clone(), what });
    }
    let text = format!("it holds {what}; say surface = \"allow\" if that is meant");
    Of { image: Some(id), told: workshop.told }.event(Event::Warning(&text));
    Ok(())
}

/// `a shell (/usr/bin/dash), a package manager (/usr/bin/apt)`.
fn named(found: &[Finding]) -> String {
    let mut names: Vec<String> =
        found.iter().take(MOST_NAMED).map(|f| format!("{} ({})", f.what, f.path)).collect();
    if found.len() > MOST_NAMED {
        names.push(format!("and {} more", found.len() - MOST_NAMED));
    }
    names.join(", ")
}
