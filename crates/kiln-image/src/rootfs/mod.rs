//! Putting packages together to a root filesystem, without running their maintainer scripts.
//!
//! What such scripts would do is done here from what can be read: accounts, alternatives, the
//! bundle of certificates, the files that base packages put in place. What can't be covered is
//! a warning that names the package and the script.

pub mod accounts;
mod alternatives;
mod finish;
mod layout;
mod overlap;
mod scripts;
mod shell;

use std::collections::BTreeMap;

use crate::deb::{Deb, Entry, EntryKind};
use crate::debian::control::stanzas;
use crate::tree::{Inode, Metadata, Tree, TreeError};

pub(crate) use layout::mount_points;

use accounts::Accounts;
use overlap::Owners;

/// A root filesystem that can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A file of a package does not fit into the tree.
    #[error("package {package} can't be put into the image")]
    Place {
        /// The package's name.
        package: String,
        /// Why.
        source: TreeError,
    },
    /// A file that the image itself needs does not fit into the tree.
    #[error("the image's own files can't be put in place")]
    Own(#[from] TreeError),
    /// Two packages have a file of the same name and neither says that it replaces the other.
    #[error("packages {first} and {second} both contain /{path}; leave one of them out")]
    Overlap {
        /// The package that came first.
        first: String,
        /// The package that came second.
        second: String,
        /// The path from the root.
        path: String,
    },
    /// A package's description can't be read.
    #[error("the description of package {package} can't be read")]
    Control {
        /// The package's name.
        package: String,
        /// Why.
        source: crate::debian::control::ControlError,
    },
    /// A file of a package can't be read back.
    #[error("can't read {path} back from the unpacked packages")]
    Content {
        /// The path from the root.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What came of the packages.
#[derive(Debug)]
pub struct Rootfs {
    /// The files.
    pub tree: Tree,
    /// Users and groups; not yet written into the tree.
    pub accounts: Accounts,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Rootfs {
    /// An image without packages: only the places where an instance mounts what it needs.
    pub fn scratch() -> Result<Self, RootfsError> {
        let mut tree = Tree::new();
        layout::mount_points(&mut tree)?;
        Ok(Self { tree, accounts: Accounts::minimal(), warnings: Vec::new() })
    }

    /// Puts packages, each with its name, into a tree, in the given order.
    pub fn debian(packages: &[(String, Deb)]) -> Result<Self, RootfsError> {
        let mut tree = Tree::new();
        layout::merged_usr(&mut tree)?;
        let mut owners = Owners::new(packages)?;
        for (position, (name, deb)) in packages.iter().enumerate() {
            for entry in deb.entries.iter().filter(|entry| layout::is_wanted(&entry.path)) {
                owners.claim(&tree, position, entry)?;
                place(&mut tree, entry)
                    .map_err(|source| RootfsError::Place { package: name.clone(), source })?;
            }
        }
        layout::mount_points(&mut tree)?;
        layout::base_files(&mut tree)?;
        let mut accounts = Accounts::debian();
        let mut warnings = Vec::new();
        let mut alternatives = alternatives::Alternatives::default();
        for (name, deb) in packages {
            for script in scripts::Script::all_of(name, deb) {
                let commands = shell::commands(&script.text);
                accounts.declare_from_script(&commands);
                alternatives.declare_from_script(&commands);
                warnings.extend(script.warning());
            }
        }
        accounts.declare_from_sysusers(&tree).map_err(content_error)?;
        alternatives.link(&mut tree)?;
        finish::known_links(&mut tree, packages)?;
        finish::certificates(&mut tree)?;
        finish::dpkg_status(&mut tree, packages)?;
        warnings.extend(finish::library_paths(&tree).map_err(content_error)?);
        Ok(Self { tree, accounts, warnings })
    }

    /// A tree that comes with its own accounts: those of another image.
    pub fn inherited(tree: Tree) -> Result<Self, RootfsError> {
        let accounts = Accounts::of_tree(&tree).map_err(content_error)?;
        Ok(Self { tree, accounts, warnings: Vec::new() })
    }

    /// Writes `/etc/passwd` and `/etc/group`. Those of another image stay as they are unless an
    /// account was added.
    pub fn write_accounts(&mut self) -> Result<(), TreeError> {
        if !self.accounts.has_news() {
            return Ok(());
        }
        let etc = Metadata::new(0o755);
        self.tree.make_directories("etc", &etc)?;
        for (path, text) in
            [("etc/passwd", self.accounts.passwd()), ("etc/group", self.accounts.group())]
        {
            self.tree.replace(path, Inode::file(Metadata::new(0o644), text.into_bytes()))?;
        }
        Ok(())
    }
}

fn content_error((path, source): (String, std::io::Error)) -> RootfsError {
    RootfsError::Content { path, source }
}

/// Adds one entry of a package to the tree.
fn place(tree: &mut Tree, entry: &Entry) -> Result<(), TreeError> {
    if entry.path.is_empty() {
        return Ok(());
    }
    if let Some(slash) = entry.path.iter().rposition(|c| *c == b'/') {
        tree.make_directories(&entry.path[..slash], &Metadata::new(0o755))?;
    }
    layout::merge_top_level(tree, &entry.path)?;
    let metadata = entry.metadata.clone();
    let inode = match &entry.kind {
        // A directory that is there, or reached through a link, stays as the first package that
        // has it made it.
        EntryKind::Directory if tree.resolve(&entry.path).is_ok_and(Inode::is_directory) => {
            return Ok(());
        }
        EntryKind::HardLink(target) => return tree.link(target, &entry.path).map(drop),
        EntryKind::Directory => Inode::directory(metadata),
        EntryKind::File(content) => Inode::file(metadata, content.clone()),
        // A link to a directory that is there as a directory already changes nothing.
        EntryKind::Symlink(_) if tree.get(&entry.path).is_some_and(Inode::is_directory) => {
            return Ok(());
        }
        EntryKind::Symlink(target) => Inode::symlink(metadata, target),
        EntryKind::Fifo => Inode::fifo(metadata),
    };
    tree.replace(&entry.path, inode).map(drop)
}

/// The fields of a package's description.
fn fields(package: &str, deb: &Deb) -> Result<BTreeMap<String, String>, RootfsError> {
    let Some(stanza) = stanzas(&deb.control).next() else { return Ok(BTreeMap::new()) };
    let stanza =
        stanza.map_err(|source| RootfsError::Control { package: package.to_owned(), source })?;
    Ok(stanza.fields().iter().map(|(k, v)| ((*k).to_owned(), v.trim().to_owned())).collect())
}
