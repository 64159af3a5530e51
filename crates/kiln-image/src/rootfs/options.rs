//! What a recipe wishes of the packages' files and scripts.

use std::collections::BTreeSet;

use kiln_model::spec::image::{Keep, Recipe, Scripts};

use crate::lock::LockEntry;

/// How packages are put together.
#[derive(Clone, Debug)]
pub struct Options {
    /// The architecture of the image, as Debian calls it.
    pub architecture: String,
    /// What is kept of packages that is left out otherwise.
    pub keep: BTreeSet<Keep>,
    /// What becomes of maintainer scripts.
    pub scripts: Scripts,
    /// Packages that are there only while maintainer scripts run: name and architecture.
    pub tools: BTreeSet<(String, String)>,
}

impl Options {
    /// What `recipe` wishes, whose packages are those of `entry`.
    pub fn new(recipe: &Recipe, entry: &LockEntry, architecture: &str) -> Self {
        let tools = entry.packages.iter().filter(|package| package.tool);
        Self {
            architecture: architecture.to_owned(),
            keep: recipe.keep.clone(),
            scripts: recipe.scripts,
            tools: tools.map(|p| (p.name.clone(), p.architecture.clone())).collect(),
        }
    }

    pub(super) fn keeps(&self, what: Keep) -> bool {
        self.keep.contains(&what)
    }

    /// Whether dpkg's books are wanted, for the image or for scripts.
    pub(super) fn keeps_books(&self) -> bool {
        self.keeps(Keep::Dpkg) || self.runs_scripts()
    }

    pub(super) fn runs_scripts(&self) -> bool {
        self.scripts == Scripts::Sandbox
    }
}
