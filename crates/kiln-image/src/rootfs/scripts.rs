//! Maintainer scripts: which there are, in which order dpkg would run them, and what is left of
//! them where they are followed instead.

use std::collections::BTreeSet;

use super::accounts::Accounts;
use super::alternatives::Alternatives;
use super::diversions::Diversions;
use super::follow::{Followed, Scene, follow};
use super::options::Options;
use super::package::Package;
use crate::tree::Tree;

/// Where dpkg keeps scripts.
pub(super) const INFO_DIRECTORY: &str = "var/lib/dpkg/info";

/// Packages whose scripts do things that an image has no use for, although they look as if they
/// had one: this was found by reading them.
const NEEDLESS: [(&str, &str); 7] = [
    // Accounts and directories that each image gets: `accounts`, `layout`.
    ("base-passwd", "postinst"),
    ("base-files", "postinst"),
    // The bundle and the links: `certificates`.
    ("ca-certificates", "postinst"),
    // The keystore that it fills with a program in Java: `certificates::java`.
    ("ca-certificates-java", "postinst"),
    // Takes /bin/sh over from a bash that once had it, in steps that never leave the machine without
    // one. It ends with the link that the package itself brings.
    ("dash", "postinst"),
    // Guards of an upgrade, and of a move from one directory to another.
    ("libc6", "preinst"),
    // The languages that a person has chosen, which by default are none.
    ("locales", "postinst"),
];

/// A maintainer script that is to be run, with all that dpkg would give it. Its files are in the
/// tree, as are dpkg's books, in which the packages count as unpacked and configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingScript {
    /// The package's name.
    pub package: String,
    /// The package's version.
    pub version: String,
    /// The package's architecture, or `all`.
    pub architecture: String,
    /// `preinst` or `postinst`.
    pub name: &'static str,
    /// Where the script stands in the tree: debconf finds the package's questions beside it.
    pub path: String,
    /// The script itself, which begins with `#!` and its interpreter.
    pub text: Vec<u8>,
    /// The arguments that dpkg would give it.
    pub arguments: Vec<String>,
    /// The environment that dpkg would give it, beside `PATH` and what is fixed in a sandbox.
    pub environment: Vec<(String, String)>,
}

/// The scripts of packages as dpkg would run them at a first installation: those before the
/// unpacking, then those after it in the order of dependencies.
pub(super) fn pending(packages: &[Package<'_>], order: &[usize]) -> Vec<PendingScript> {
    let mut scripts = Vec::new();
    for (name, arguments) in [("preinst", &["install"][..]), ("postinst", &["configure", ""])] {
        for position in order {
            let package = &packages[*position];
            let Some(text) = package.deb.control_files.get(name) else { continue };
            scripts.push(PendingScript {
                package: package.name.to_owned(),
                version: package.version.clone(),
                architecture: package.architecture.clone(),
                name,
                path: format!("/{INFO_DIRECTORY}/{}.{name}", package.book_name()),
                text: text.clone(),
                arguments: arguments.iter().map(ToString::to_string).collect(),
                environment: environment(package, name),
            });
        }
    }
    scripts
}

fn environment(package: &Package<'_>, name: &str) -> Vec<(String, String)> {
    let architecture = package.architecture.as_str();
    [
        ("DPKG_MAINTSCRIPT_PACKAGE", package.name),
        ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
        ("DPKG_MAINTSCRIPT_ARCH", architecture),
        ("DPKG_MAINTSCRIPT_NAME", name),
        ("DPKG_ADMINDIR", "/var/lib/dpkg"),
        ("DPKG_ROOT", ""),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// The diversions that scripts before the unpacking make: they say where files go.
pub(super) fn diversions(
    packages: &[Package<'_>],
    scripts: &[PendingScript],
    options: &Options,
) -> Diversions {
    let (mut tree, mut accounts) = (Tree::new(), Accounts::debian());
    let mut alternatives = Alternatives::default();
    let mut stage = Stage::new(&mut tree, &mut accounts, &mut alternatives, options);
    let before: Vec<PendingScript> = scripts
        .iter()
        .filter(|script| script.name == "preinst" && mentions(&script.text, b"dpkg-divert"))
        .cloned()
        .collect();
    stage.follow_all(packages, &before);
    stage.diversions
}

fn mentions(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// What scripts are followed on.
pub(super) struct Stage<'a> {
    tree: &'a mut Tree,
    accounts: &'a mut Accounts,
    alternatives: &'a mut Alternatives,
    diversions: Diversions,
    options: &'a Options,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        tree: &'a mut Tree,
        accounts: &'a mut Accounts,
        alternatives: &'a mut Alternatives,
        options: &'a Options,
    ) -> Self {
        Self { tree, accounts, alternatives, diversions: Diversions::default(), options }
    }

    /// Follows the scripts, and gives a warning for each that does more than could be followed.
    pub(super) fn follow_all(
        &mut self,
        packages: &[Package<'_>],
        scripts: &[PendingScript],
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        for script in scripts {
            if NEEDLESS.contains(&(script.package.as_str(), script.name)) {
                continue;
            }
            let mut owners = packages.iter().filter(|package| package.name == script.package);
            let owner = owners.find(|package| package.architecture == script.architecture);
            let templates = owner.and_then(|package| package.control_text("templates"));
            let scene = Scene {
                tree: self.tree,
                accounts: self.accounts,
                alternatives: self.alternatives,
                diversions: &mut self.diversions,
                architecture: &self.options.architecture,
            };
            let followed = Followed {
                package: &script.package,
                architecture: &script.architecture,
                name: script.name,
                text: &String::from_utf8_lossy(&script.text),
                arguments: &script.arguments,
                templates: templates.as_deref().unwrap_or_default(),
            };
            warnings.extend(warning(script, &follow(scene, followed)));
        }
        warnings
    }
}

/// What the user should know, if a script does more than was followed.
fn warning(script: &PendingScript, missed: &BTreeSet<String>) -> Option<String> {
    const SHOWN: usize = 5;
    if missed.is_empty() {
        return None;
    }
    let mut shown: Vec<&str> = missed.iter().take(SHOWN).map(String::as_str).collect();
    if missed.len() > SHOWN {
        shown.push("...");
    }
    let PendingScript { package, name, .. } = script;
    Some(format!(
        "package {package}: its {name} script is not run, and what it does with {} is missing; \
         add it with a step, or set scripts = \"sandbox\"",
        shown.join(", ")
    ))
}
