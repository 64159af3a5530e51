//! Building images anew from the lock, elsewhere, to compare them with what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_image::build::Built;
use kiln_image::store::ImageStore;
use kiln_model::name::ComponentId;

use super::images::ImageProgress;
use super::{Draft, PrepareError};

impl Draft {
    /// The images that bring in what no lock pins, so that a build need not give the same bytes.
    pub fn open_images(&self) -> BTreeSet<ComponentId> {
        let open = self.recipes().filter(|(_, recipe)| recipe.is_open());
        open.map(|(id, _)| id.clone()).collect()
    }

    /// Builds the images (those named in `only`, where it is given) from the lock in `elsewhere`,
    /// a store that has none of them. `root` holds the cache of downloads. Nothing of what is
    /// there is used, and nothing is admitted.
    pub fn rebuild(
        &self,
        root: &Path,
        elsewhere: &ImageStore,
        only: Option<&ComponentId>,
        told: &dyn ImageProgress,
    ) -> Result<BTreeMap<ComponentId, Built>, PrepareError> {
        self.build_in(root, elsewhere, only, told, &|_, _| Ok(()))
    }
}
