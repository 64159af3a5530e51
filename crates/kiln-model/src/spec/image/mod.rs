//! Images: a recipe, the inputs that it was locked to, and the tests that admit what comes of it.

mod step;
mod test;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::canonical::BuiltFrom;
use crate::digest::Digest;
use crate::quantity::Bytes;

pub use step::Step;
pub use test::{Check, ImageTest};

/// A root filesystem and how the program in it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What it is.
    pub identity: ImageIdentity,
    /// How it is handled.
    #[serde(default, skip_serializing_if = "ImagePolicy::is_default")]
    pub policy: ImagePolicy,
}

impl Image {
    /// The images of the stack that it stands on or takes files from; one may stand more than
    /// once.
    pub fn built_from(&self) -> impl Iterator<Item = &BuiltFrom> {
        let recipe = &self.identity.recipe;
        let base = match &recipe.base {
            Base::Image { image } => Some(image),
            _ => None,
        };
        base.into_iter().chain(recipe.steps.iter().filter_map(|step| match step {
            Step::Take { image, .. } => Some(image),
            _ => None,
        }))
    }
}

/// What an image is: its recipe and its locked inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    /// What one does to get it.
    pub recipe: Recipe,
    /// The digest of the lock's entry for this recipe: every package by name, version,
    /// architecture and SHA-256; the digest of what comes from a registry.
    pub inputs: Inputs,
}

/// How an image is handled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePolicy {
    /// What must hold in a throw-away instance before the image is admitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<ImageTest>,
    /// What is done about shells, package managers and set-id programs in the image.
    #[serde(default, skip_serializing_if = "Surface::is_default")]
    pub surface: Surface,
}

impl ImagePolicy {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is done about files that an attacker would be glad to find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Surface {
    /// They are named in a warning.
    #[default]
    Warn,
    /// The image is not admitted.
    Deny,
    /// Nothing.
    Allow,
}

impl Surface {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of an image's locked inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inputs {
    /// The recipe takes nothing from outside the stack (or it is locked): this digest.
    Locked(Digest),
    /// There is no lock for this recipe yet; `image lock`, `image build` and `apply` make it.
    Unlocked,
}

/// How an image is made. Paths are absolute paths inside the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What it starts from.
    pub base: Base,
    /// Further signed archives that packages may come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// The pockets of the suite that packages may come from beside the suite itself; updates and
    /// security where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pockets: Option<BTreeSet<Pocket>>,
    /// Names of packages, in the base's archive; `name:architecture` for another architecture.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub packages: BTreeSet<String>,
    /// Whether what packages recommend is installed too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recommends: bool,
    /// What is kept of packages that is left out otherwise.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub keep: BTreeSet<Keep>,
    /// What becomes of the packages' maintainer scripts.
    #[serde(default, skip_serializing_if = "Scripts::is_default")]
    pub scripts: Scripts,
    /// What is done after the packages are in place, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Environment of the program, over the base's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The program's working directory; the base's, or `/`, where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The user that the program runs as: a name or `uid[:gid]`; the base's, or `root` of a user
    /// namespace, where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The program and its first arguments; the base's where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Writable space that servers of this image get unless they say otherwise: path and size.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub writable: BTreeMap<String, Bytes>,
    /// Free text for people and tools, over the base's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Recipe {
    /// The recipe that takes everything from `base` as it is.
    pub fn on(base: Base) -> Self {
        Self {
            base,
            repositories: Vec::new(),
            pockets: None,
            packages: BTreeSet::new(),
            recommends: false,
            keep: BTreeSet::new(),
            scripts: Scripts::default(),
            steps: Vec::new(),
            env: BTreeMap::new(),
            workdir: None,
            user: None,
            entrypoint: Vec::new(),
            writable: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Whether a step may bring in what no lock pins, so that the same lock need not give the
    /// same bytes.
    pub fn is_open(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Run { network: true, .. }))
    }
}

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// Packages of a Debian suite, such as `bookworm`, with what they need.
    Debian {
        /// The suite's code name.
        suite: String,
    },
    /// Nothing.
    Scratch,
    /// An image of a registry, such as `registry.example/app:1.2` or one with `@sha256:…`. Which
    /// image a tag stands for is locked.
    Oci {
        /// The reference as it was written.
        reference: String,
    },
    /// An OCI image layout below the stack's directory.
    OciLayout {
        /// The directory, perhaps with `:TAG` behind it.
        path: String,
        /// The digest of all that is in the directory.
        digest: Digest,
    },
    /// A root filesystem as a tar archive below the stack's directory, perhaps compressed.
    Tarball {
        /// The file.
        path: String,
        /// Its digest.
        digest: Digest,
    },
    /// Another image of the stack.
    Image {
        /// Which one.
        image: BuiltFrom,
    },
}

/// A third party's signed archive of Debian packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// The name that it has in messages and in the lock.
    pub name: String,
    /// Where it is, without `/dists`.
    pub url: String,
    /// The suite in it, such as `bookworm-pgdg`.
    pub suite: String,
    /// Which components of the suite.
    pub components: BTreeSet<String>,
    /// The `OpenPGP` keys that may sign it, armoured.
    pub key: String,
}

/// A part of a Debian release that comes after its publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pocket {
    /// `SUITE-updates`.
    Updates,
    /// `SUITE-security`.
    Security,
    /// `SUITE-backports`; its packages are taken only where no other part has what is needed.
    Backports,
}

/// What packages bring that no program needs to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Documentation beside licences, and information pages.
    Docs,
    /// Manual pages.
    Man,
    /// Translations.
    Locales,
    /// apt and dpkg, with what dpkg knows of each package.
    Dpkg,
}

/// What becomes of maintainer scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scripts {
    /// They are not run; what they would do is done declaratively, or warned of.
    #[default]
    Skip,
    /// They are run in a sandbox without a network and with a fixed clock.
    Sandbox,
}

impl Scripts {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
