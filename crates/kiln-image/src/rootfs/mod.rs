//! Putting packages together to a root filesystem.
//!
//! By default no maintainer script is run. What the scripts would do at a first installation is
//! done here by following them (`follow`) and from what packages declare: accounts, directories,
//! alternatives, certificates, libraries. What can't be covered is a warning that names the
//! package and the script. Where scripts are to be run, the tree is made ready for them, and they
//! are listed in dpkg's order ([`Rootfs::pending`]).

pub mod accounts;
mod alternatives;
mod books;
mod certificates;
mod conf;
mod diversions;
mod follow;
mod layout;
mod loader;
mod options;
mod order;
mod overlap;
mod package;
mod scripts;
mod sysusers;
mod tmpfiles;
mod tools;
mod triggers;

use crate::deb::{Deb, Entry, EntryKind};
use crate::tree::{Inode, Metadata, Tree, TreeError};

pub(crate) use layout::mount_points;

use accounts::Accounts;
use alternatives::Alternatives;
use diversions::Diversions;
use overlap::Owners;
use package::Package;
use tools::Tools;

pub use options::Options;
pub use scripts::PendingScript;

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
    /// Maintainer scripts that are to be run, in this order; then
    /// [`scripts_have_run`](Self::scripts_have_run) is to be called. Empty where they are followed
    /// instead.
    pub pending: Vec<PendingScript>,
    tools: Tools,
}

impl Rootfs {
    /// An image without packages: only the places where an instance mounts what it needs.
    pub fn scratch() -> Result<Self, RootfsError> {
        let mut tree = Tree::new();
        layout::mount_points(&mut tree)?;
        let (accounts, tools) = (Accounts::minimal(), Tools::default());
        Ok(Self { tree, accounts, warnings: Vec::new(), pending: Vec::new(), tools })
    }

    /// Puts packages, each with its name, into a tree, in the given order.
    pub fn debian(packages: &[(String, Deb)], options: &Options) -> Result<Self, RootfsError> {
        let all = Package::all_of(packages)?;
        let scripts = scripts::pending(&all, &order::configure_order(&all));
        let diversions = scripts::diversions(&all, &scripts, options);
        let mut tree = unpack(&all, &diversions, options)?;
        let mut accounts = Accounts::debian();
        sysusers::declare(&mut accounts, &tree)?;
        let mut alternatives = Alternatives::default();
        let mut warnings = Vec::new();
        if options.runs_scripts() {
            // The accounts are there before the scripts ask for them, so that their numbers follow
            // from their names in each image.
            let mut tried = tree.clone();
            let mut unused = Alternatives::default();
            let mut scene = scripts::Stage::new(&mut tried, &mut accounts, &mut unused, options);
            scene.follow_all(&all, &scripts);
        } else {
            let mut scene =
                scripts::Stage::new(&mut tree, &mut accounts, &mut alternatives, options);
            warnings = scene.follow_all(&all, &scripts);
        }
        tmpfiles::create(&mut tree, &accounts)?;
        alternatives.link(&mut tree)?;
        if !options.runs_scripts() {
            triggers::php_modules(&mut tree)?;
            warnings.extend(triggers::warnings(&tree));
        }
        certificates::install(&mut tree)?;
        loader::write_cache(&mut tree)?;
        let tools = Tools::of(&all, options);
        write_books(&mut tree, &all, &tools, &diversions, options)?;
        if options.keeps_books() {
            alternatives.record(&mut tree)?;
        }
        let pending = if options.runs_scripts() { scripts } else { Vec::new() };
        Ok(Self { tree, accounts, warnings, pending, tools })
    }

    /// Takes in what the pending scripts have done to the tree: the accounts that they have added,
    /// and what was there for them alone is taken away.
    pub fn scripts_have_run(&mut self) -> Result<(), RootfsError> {
        self.pending.clear();
        let read = |path: &str| {
            let content = self.tree.resolve(path).ok().and_then(Inode::content);
            let read = content.map(crate::tree::Content::read).transpose();
            let bytes =
                read.map_err(|source| RootfsError::Content { path: path.to_owned(), source })?;
            Ok::<_, RootfsError>(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
        };
        let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
        self.accounts.adopt(&passwd, &group);
        self.tools.clear(&mut self.tree)?;
        loader::write_cache(&mut self.tree)
    }

    /// A tree that comes with its own accounts: those of another image.
    pub fn inherited(tree: Tree) -> Result<Self, RootfsError> {
        let accounts = Accounts::of_tree(&tree)
            .map_err(|(path, source)| RootfsError::Content { path, source })?;
        let (warnings, pending, tools) = (Vec::new(), Vec::new(), Tools::default());
        Ok(Self { tree, accounts, warnings, pending, tools })
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

/// The files of all packages in one tree, with the frame that each image has.
fn unpack(
    packages: &[Package<'_>],
    diversions: &Diversions,
    options: &Options,
) -> Result<Tree, RootfsError> {
    let mut tree = Tree::new();
    layout::merged_usr(&mut tree)?;
    let mut owners = Owners::new(packages);
    for (position, package) in packages.iter().enumerate() {
        let entries = package.deb.entries.iter();
        for entry in entries.filter(|entry| layout::is_wanted(&entry.path, options)) {
            let diverted = diversions.place(package.name, &entry.path);
            let placed = if let Some(path) = diverted {
                place(&mut tree, package.deb, &path, entry)
            } else {
                owners.claim(&tree, position, entry)?;
                place(&mut tree, package.deb, &entry.path, entry)
            };
            placed.map_err(|source| {
                let package = package.name.to_owned();
                RootfsError::Place { package, source }
            })?;
        }
    }
    layout::mount_points(&mut tree)?;
    layout::base_files(&mut tree)?;
    Ok(tree)
}

fn write_books(
    tree: &mut Tree,
    packages: &[Package<'_>],
    tools: &Tools,
    diversions: &Diversions,
    options: &Options,
) -> Result<(), TreeError> {
    let stanzas: Vec<String> = packages.iter().map(books::stanza).collect();
    books::status(tree, &stanzas)?;
    books::architectures(tree, packages, options)?;
    if options.keeps_books() {
        books::info(tree, packages)?;
        diversions.record(tree)?;
        tools.prepare(tree)?;
    }
    Ok(())
}

/// Adds one entry of a package to the tree, at `path`.
fn place(tree: &mut Tree, deb: &Deb, path: &[u8], entry: &Entry) -> Result<(), TreeError> {
    if path.is_empty() {
        return Ok(());
    }
    if let Some(slash) = path.iter().rposition(|c| *c == b'/') {
        tree.make_directories(&path[..slash], &Metadata::new(0o755))?;
    }
    layout::merge_top_level(tree, path)?;
    let metadata = entry.metadata.clone();
    let inode = match &entry.kind {
        // A directory that is there, or reached through a link, stays as the first package that
        // has it made it.
        EntryKind::Directory if tree.resolve(path).is_ok_and(Inode::is_directory) => {
            return Ok(());
        }
        EntryKind::HardLink(target) => return hard_link(tree, deb, target, path),
        EntryKind::Directory => Inode::directory(metadata),
        EntryKind::File(content) => Inode::file(metadata, content.clone()),
        // A link to a directory that is there as a directory already changes nothing.
        EntryKind::Symlink(_) if tree.get(path).is_some_and(Inode::is_directory) => {
            return Ok(());
        }
        EntryKind::Symlink(target) => Inode::symlink(metadata, target),
        EntryKind::Fifo => Inode::fifo(metadata),
    };
    tree.replace(path, inode).map(drop)
}

/// Gives a file of a package its other name. Where the first one is left out, the content stands
/// under the other alone.
fn hard_link(tree: &mut Tree, deb: &Deb, target: &[u8], path: &[u8]) -> Result<(), TreeError> {
    match tree.link(target, path) {
        Err(TreeError::NotFound { path: missing }) => {
            let first = deb.entries.iter().find(|entry| entry.path == target);
            match first.map(|first| (&first.kind, first.metadata.clone())) {
                Some((EntryKind::File(content), metadata)) => {
                    tree.replace(path, Inode::file(metadata, content.clone())).map(drop)
                }
                _ => Err(TreeError::NotFound { path: missing }),
            }
        }
        linked => linked.map(drop),
    }
}
