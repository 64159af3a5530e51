//! What a recipe asks archives for.

use std::collections::BTreeSet;
use std::fmt;

use kiln_model::digest::Digest;
use kiln_model::spec::image::{Base, Keep, Pocket, Recipe, Repository, Scripts};
use serde::{Deserialize, Serialize};

use crate::debian::suite::default_pockets;

/// What a recipe asks archives for: all of it that bears on which packages are chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The suite's code name.
    pub suite: String,
    /// The architecture, as Debian calls it.
    pub architecture: String,
    /// The packages that the recipe names.
    pub packages: BTreeSet<String>,
    /// Whether what packages recommend is taken too.
    pub recommends: bool,
    /// The pockets of the suite that packages may come from.
    pub pockets: BTreeSet<Pocket>,
    /// Third parties' archives.
    pub repositories: BTreeSet<RepositoryRequest>,
    /// What is done for tools that work on packages.
    pub tools: BTreeSet<Tools>,
}

/// A third party's archive, as far as it bears on which packages are chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryRequest {
    /// The name that the recipe gives it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The suite in it.
    pub suite: String,
    /// The components of the suite.
    pub components: BTreeSet<String>,
    /// The digest of the keys that may sign it, as they stand in the recipe.
    pub keys: Digest,
}

/// Tools that work on packages, which images are without otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tools {
    /// apt and dpkg stay in the image.
    Kept,
    /// What maintainer scripts call is there while they run.
    Scripts,
}

impl Request {
    /// What a recipe asks for; nothing if it has no packages to start from.
    pub fn of(recipe: &Recipe, architecture: &str) -> Option<Self> {
        let Base::Debian { suite } = &recipe.base else { return None };
        let mut tools = BTreeSet::new();
        tools.extend(recipe.keep.contains(&Keep::Dpkg).then_some(Tools::Kept));
        tools.extend((recipe.scripts == Scripts::Sandbox).then_some(Tools::Scripts));
        Some(Self {
            suite: suite.clone(),
            architecture: architecture.to_owned(),
            packages: recipe.packages.clone(),
            recommends: recipe.recommends,
            pockets: recipe.pockets.clone().unwrap_or_else(default_pockets),
            repositories: recipe.repositories.iter().map(RepositoryRequest::of).collect(),
            tools,
        })
    }

    /// The architectures beside the own one that packages are asked for of.
    pub fn foreign(&self) -> BTreeSet<String> {
        let named = self.packages.iter().filter_map(|package| package.split_once(':'));
        let named = named.map(|(_, architecture)| architecture.to_owned());
        named.filter(|architecture| *architecture != self.architecture).collect()
    }
}

impl RepositoryRequest {
    fn of(repository: &Repository) -> Self {
        Self {
            name: repository.name.clone(),
            url: repository.url.trim_end_matches('/').to_owned(),
            suite: repository.suite.clone(),
            components: repository.components.clone(),
            keys: Digest::of(repository.key.as_bytes()),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packages: Vec<&str> = self.packages.iter().map(String::as_str).collect();
        let packages = if packages.is_empty() { "no package".into() } else { packages.join(", ") };
        write!(f, "{packages} of debian(\"{}\") for {}", self.suite, self.architecture)?;
        if self.recommends {
            write!(f, " with what they recommend")?;
        }
        if self.pockets != default_pockets() {
            let names: Vec<&str> = self.pockets.iter().map(|pocket| name_of(*pocket)).collect();
            write!(
                f,
                ", pockets {}",
                if names.is_empty() { "none".into() } else { names.join(", ") }
            )?;
        }
        for repository in &self.repositories {
            write!(f, ", repository {}", repository.name)?;
        }
        for tools in &self.tools {
            f.write_str(match tools {
                Tools::Kept => ", with apt and dpkg",
                Tools::Scripts => ", with what scripts call",
            })?;
        }
        Ok(())
    }
}

fn name_of(pocket: Pocket) -> &'static str {
    match pocket {
        Pocket::Updates => "updates",
        Pocket::Security => "security",
        Pocket::Backports => "backports",
    }
}
