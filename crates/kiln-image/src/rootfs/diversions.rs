//! Diversions: files of one package that go elsewhere because another has its own in their place
//! (dpkg-divert(1)).

use std::collections::BTreeMap;

use crate::tree::{Inode, Metadata, Tree, TreeError};

/// Where files go instead, by path from the root with `/usr` merged.
#[derive(Debug, Default)]
pub(super) struct Diversions(BTreeMap<String, Diversion>);

#[derive(Debug)]
struct Diversion {
    /// As the package names them.
    from: String,
    to: String,
    package: String,
}

impl Diversions {
    /// Takes in a call of dpkg-divert(1) by a script of `package`.
    pub(super) fn declare(&mut self, package: &str, words: &[String]) {
        let (mut owner, mut to, mut path, mut remove) = (package, None, None, false);
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value))) {
                ("--package", value) => owner = value.or_else(|| words.next()).unwrap_or(package),
                ("--divert", value) => to = value.or_else(|| words.next()),
                ("--remove", _) => remove = true,
                // Questions, and other roots.
                ("--list" | "--listpackage" | "--truename" | "--root" | "--admindir", _) => return,
                (_, _) if word.starts_with('/') => path = Some(word),
                _ => {}
            }
        }
        let Some(path) = path else { return };
        if remove {
            self.0.remove(&merged(path));
            return;
        }
        let (from, to) =
            (path.to_owned(), to.map_or_else(|| format!("{path}.distrib"), str::to_owned));
        let plain = |path: &str| path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if plain(&from) && plain(&to) {
            let package = owner.to_owned();
            self.0.insert(merged(&from), Diversion { from, to, package });
        }
    }

    /// Where a file of `package` goes.
    pub(super) fn place(&self, package: &str, path: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let diversion = self.0.get(&merged(str::from_utf8(path).ok()?))?;
        let elsewhere = diversion.package != package;
        elsewhere.then(|| diversion.to.trim_start_matches('/').as_bytes().to_vec())
    }

    /// Writes dpkg's list of them.
    pub(super) fn record(&self, tree: &mut Tree) -> Result<(), TreeError> {
        let line = |d: &Diversion| format!("{}\n{}\n{}\n", d.from, d.to, d.package);
        let text: String = self.0.values().map(line).collect();
        let file = Inode::file(Metadata::new(0o644), text.into_bytes());
        tree.replace("var/lib/dpkg/diversions", file).map(drop)
    }
}

/// A path from the root, where `/bin` and `/usr/bin` are one.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let top = path.split('/').next().unwrap_or_default();
    if super::layout::MERGED.contains(&top) { format!("usr/{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_go_elsewhere() {
        let mut diversions = Diversions::default();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        diversions.declare("a", &words("--package a --rename --divert /bin/x.real --add /bin/x"));
        diversions.declare("a", &words("--add --rename /usr/bin/y"));
        diversions.declare("a", &words("--list /bin/z"));
        assert_eq!(diversions.place("b", b"usr/bin/x").unwrap(), b"bin/x.real");
        assert_eq!(diversions.place("b", b"bin/y").unwrap(), b"usr/bin/y.distrib");
        assert!(diversions.place("a", b"bin/x").is_none());
        assert!(diversions.place("b", b"bin/z").is_none());
        diversions.declare("a", &words("--remove --rename /bin/x"));
        assert!(diversions.place("b", b"bin/x").is_none());
    }
}
