//! Admitting what was built, before anything is committed that starts it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_image::admission::{Candidate, Passed, admit, admitted, is_anothers};
use kiln_image::build::Built;
use kiln_image::debian::suite::native_architecture;
use kiln_image::sign::Signing;
use kiln_image::store::ImageStore;
use kiln_model::name::ComponentId;
use kiln_model::quantity::Timestamp;
use kiln_model::spec::image::Image;
use kiln_model::trust::{Demands, PublicKey};

use super::{Draft, PrepareError};

impl Draft {
    /// What the stack demands of images.
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// Whether an image that was built is admitted after just the tests that it has now: then
    /// they need not run. The key.
    pub fn is_admitted(
        &self,
        store: &ImageStore,
        root: &Path,
        image: &Image,
        built: &Built,
    ) -> Result<Option<PublicKey>, PrepareError> {
        let signing = Signing::of_root(root);
        Ok(admitted(store, &signing, built, &image.policy.tests).map_err(Box::new)?)
    }

    /// Refuses what the store has under the recipe of an image and was built of another.
    pub(super) fn is_its_own(
        store: &ImageStore,
        root: &Path,
        id: &ComponentId,
        built: &Built,
    ) -> Result<(), PrepareError> {
        let signing = Signing::of_root(root);
        if !built.cached || !is_anothers(store, &signing, built).map_err(Box::new)? {
            return Ok(());
        }
        let index =
            root.join("store/images").join(format!("{}.json", built.record.recipe.short(64)));
        Err(PrepareError::Swapped { image: id.clone(), digest: built.record.digest, index })
    }

    /// Admits an image with the tests that passed.
    pub fn admit_tested(
        &self,
        store: &ImageStore,
        root: &Path,
        image: &Image,
        built: &Built,
        passed: &[Passed],
    ) -> Result<PublicKey, PrepareError> {
        let candidate = Candidate {
            built,
            recipe: &image.identity.recipe,
            lock: &self.lock,
            architecture: native_architecture(),
            tests: &image.policy.tests,
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let signing = Signing::of_root(root);
        Ok(admit(store, &signing, &candidate, passed, now).map_err(Box::new)?)
    }
}
