//! What triggers of packages would make of the files of all packages together: made here, or
//! warned of.

use super::{RootfsError, conf};
use crate::tree::{Inode, Kind, Metadata, Tree};

/// A cache without which programs miss something, and what it is made from.
struct Cache {
    /// The directory of what it is made from; `*` stands for one name.
    directory: &'static str,
    suffix: &'static str,
    /// The cache, below the directory or its parent.
    file: &'static str,
    missing: &'static str,
    command: &'static str,
}

const CACHES: [Cache; 3] = [
    Cache {
        directory: "usr/share/glib-2.0/schemas",
        suffix: ".gschema.xml",
        file: "gschemas.compiled",
        missing: "programs that keep settings with GLib end at once",
        command: "glib-compile-schemas",
    },
    Cache {
        directory: "usr/share/mime/packages",
        suffix: ".xml",
        file: "../mime.cache",
        missing: "types of files are not known by their names",
        command: "update-mime-database",
    },
    Cache {
        directory: "usr/lib/*/gdk-pixbuf-2.0/2.10.0/loaders",
        suffix: ".so",
        file: "../loaders.cache",
        missing: "GdkPixbuf reads few kinds of pictures",
        command: "gdk-pixbuf-query-loaders",
    },
];

/// Warns of caches that would be made by a program.
pub(super) fn warnings(tree: &Tree) -> Vec<String> {
    let mut warnings = Vec::new();
    for cache in CACHES {
        for directory in directories(tree, cache.directory) {
            let path = match cache.file.strip_prefix("../") {
                None => format!("{directory}/{}", cache.file),
                Some(name) => {
                    let parent = directory.rsplit_once('/').map_or("", |(parent, _)| parent);
                    format!("{parent}/{name}")
                }
            };
            let sources = names_in(tree, &directory);
            let any = sources.iter().any(|name| name.ends_with(cache.suffix));
            if any && tree.resolve(&path).is_err() {
                warnings.push(format!(
                    "/{path} is not there, since {} is not run: {}; \
                     run it in a `run` step, or set scripts = \"sandbox\"",
                    cache.command, cache.missing
                ));
            }
        }
    }
    warnings
}

/// The directories that a pattern with at most one `*` means.
fn directories(tree: &Tree, pattern: &str) -> Vec<String> {
    let Some((before, after)) = pattern.split_once("/*/") else { return vec![pattern.to_owned()] };
    let names = names_in(tree, before).into_iter().map(|name| format!("{before}/{name}/{after}"));
    names.filter(|path| tree.resolve(path).is_ok()).collect()
}

fn names_in(tree: &Tree, directory: &str) -> Vec<String> {
    match tree.resolve(directory).map(Inode::kind) {
        Ok(Kind::Directory(children)) => {
            children.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
        }
        _ => Vec::new(),
    }
}

/// Makes the links by which PHP loads its modules, as phpenmod(8) does for each module that a
/// package brings, for each way in which PHP can be run.
pub(super) fn php_modules(tree: &mut Tree) -> Result<(), RootfsError> {
    const USUAL_PRIORITY: &str = "20";
    for version in names_in(tree, "etc/php") {
        let modules = conf::text_files(tree, &format!("etc/php/{version}/mods-available"))?;
        for way in names_in(tree, &format!("usr/lib/php/{version}/sapi")) {
            let directory = format!("etc/php/{version}/{way}/conf.d");
            for (name, text) in
                modules.iter().filter(|(name, _)| name.strip_suffix(".ini").is_some())
            {
                let priority =
                    text.lines().find_map(|line| line.trim().strip_prefix("; priority="));
                let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
                let priority = priority.map(str::trim).filter(digits).unwrap_or(USUAL_PRIORITY);
                tree.make_directories(&directory, &Metadata::new(0o755))?;
                let path = format!("{directory}/{priority}-{name}");
                if tree.get(&path).is_none() {
                    let target = format!("/etc/php/{version}/mods-available/{name}");
                    tree.insert(path, Inode::symlink(Metadata::new(0o777), target))?;
                }
            }
        }
    }
    Ok(())
}
