//! Images: a recipe, and the inputs that it was locked to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::quantity::Bytes;

/// A root filesystem and how the program in it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// All of it: an image has no policy yet.
    pub identity: ImageIdentity,
}

/// What an image is: its recipe and its locked inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    /// What one does to get it.
    pub recipe: Recipe,
    /// The digest of the lock's entry for this recipe: every package by name, version,
    /// architecture and SHA-256.
    pub inputs: Inputs,
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
    /// Names of packages, in the base's archive.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub packages: BTreeSet<String>,
    /// What is done after the packages are in place, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Environment of the program.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The program's working directory; `/` where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The user that the program runs as: a name or `uid[:gid]`; `root` of a user namespace
    /// where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The program and its first arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Writable space that servers of this image get unless they say otherwise: path and size.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub writable: BTreeMap<String, Bytes>,
    /// Free text for people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// Packages of a Debian suite, such as `bookworm`, with what they need.
    Debian {
        /// The suite's code name.
        suite: String,
    },
    /// Nothing.
    Scratch,
}

/// One change to the tree of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Files from the stack's directory.
    Copy {
        /// Path below the stack's directory.
        from: String,
        /// Where it goes; with a final `/`, or where `from` is a directory, into it.
        to: String,
        /// Digest of what is copied: names, contents, modes, links.
        digest: Digest,
        /// Owner (`user` or `uid`, and perhaps `:group`); root where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Permission bits of files, where not those of the source (0644 or 0755).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// A file whose content stands in the configuration.
    File {
        /// Where it goes.
        path: String,
        /// What is in it.
        content: String,
        /// Owner, as for `Copy`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Permission bits; 0644 where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// A directory.
    Directory {
        /// Where it goes.
        path: String,
        /// Owner, as for `Copy`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Permission bits; 0755 where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it goes.
        path: String,
        /// What it points to.
        target: String,
    },
    /// A user with a group of the same name.
    User {
        /// The user's name.
        name: String,
        /// The number; the next free one from 1000 where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        /// The home directory; `/nonexistent` where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        home: Option<String>,
    },
}
