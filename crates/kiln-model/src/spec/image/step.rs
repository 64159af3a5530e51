//! The steps of a recipe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::BuiltFrom;
use crate::digest::Digest;

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
    /// Files from another image of the stack.
    Take {
        /// Which one.
        image: BuiltFrom,
        /// Path in that image.
        from: String,
        /// Where it goes, as for `Copy`.
        to: String,
        /// Owner, as for `Copy`; that in the other image where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Permission bits of files, where not those in the other image.
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
    /// A group without a user.
    Group {
        /// The group's name.
        name: String,
        /// The number; the next free one from 1000 where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
    },
    /// A program of the image, run in a sandbox on the tree as it is by then.
    Run {
        /// What it is called in messages.
        name: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// Environment, over the image's.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        env: BTreeMap<String, String>,
        /// Whom it runs as, as for the image's `user`; root where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// Where it starts; `/` where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workdir: Option<String>,
        /// Whether it may reach the network, which makes the image not reproducible.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        network: bool,
    },
}
