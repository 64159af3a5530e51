//! Alternatives: names such as `/usr/bin/awk` for which several packages can stand in.

use std::collections::BTreeMap;

use super::shell::Command;
use crate::tree::{Inode, Metadata, Tree, TreeError};

/// One offer for a name, as `update-alternatives --install` makes it.
struct Offer {
    priority: i64,
    /// Link, name and target: the main one, then its slaves.
    links: Vec<(String, String, String)>,
}

/// The best offer for each name.
#[derive(Default)]
pub(super) struct Alternatives(BTreeMap<String, Offer>);

impl Alternatives {
    /// Takes in what a maintainer script would install.
    pub(super) fn declare_from_script(&mut self, commands: &[Command]) {
        for command in commands.iter().filter(|command| command[0] == "update-alternatives") {
            let Some(offer) = read_offer(command) else { continue };
            let name = offer.links[0].1.clone();
            if self.0.get(&name).is_none_or(|best| best.priority < offer.priority) {
                self.0.insert(name, offer);
            }
        }
    }

    /// Makes the links, as far as their targets are in the tree.
    pub(super) fn link(&self, tree: &mut Tree) -> Result<(), TreeError> {
        let directory = Metadata::new(0o755);
        let symlink = |target: &str| Inode::symlink(Metadata::new(0o777), target);
        for (link, name, target) in self.0.values().flat_map(|offer| &offer.links) {
            if tree.resolve(target).is_err() || tree.get(link).is_some() {
                continue;
            }
            if let Some((parent, _)) = link.rsplit_once('/') {
                tree.make_directories(parent, &directory)?;
            }
            tree.make_directories("etc/alternatives", &directory)?;
            tree.replace(format!("etc/alternatives/{name}"), symlink(target))?;
            tree.insert(link, symlink(&format!("/etc/alternatives/{name}")))?;
        }
        Ok(())
    }
}

/// Reads `--install LINK NAME PATH PRIORITY [--slave LINK NAME PATH]...`; none if a word is not
/// known before the script runs.
fn read_offer(command: &Command) -> Option<Offer> {
    let start = command.iter().position(|word| word == "--install")?;
    let mut words = command[start..].iter().map(String::as_str);
    let mut offer = Offer { priority: 0, links: Vec::new() };
    while let Some(word) = words.next() {
        if word != "--install" && word != "--slave" {
            break;
        }
        let (link, name, target) = (words.next()?, words.next()?, words.next()?);
        if word == "--install" {
            offer.priority = words.next()?.parse().ok()?;
        }
        let plain = |path: &str| path.starts_with('/') && !path.contains(['$', '`']);
        let plain_name = !name.contains(['/', '$', '`']) && name != "..";
        if !plain(link) || !plain(target) || !plain_name {
            return None;
        }
        offer.links.push((link.to_owned(), name.to_owned(), target.to_owned()));
    }
    (!offer.links.is_empty()).then_some(offer)
}

#[cfg(test)]
mod tests {
    use super::super::shell::commands;
    use super::*;

    #[test]
    fn the_highest_priority_gets_the_name() {
        let mut tree = Tree::new();
        tree.make_directories("usr/bin", &Metadata::new(0o755)).unwrap();
        for name in ["mawk", "gawk"] {
            let file = Inode::file(Metadata::new(0o755), Vec::new());
            tree.insert(format!("usr/bin/{name}"), file).unwrap();
        }
        let mut alternatives = Alternatives::default();
        alternatives.declare_from_script(&commands(
            "update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \
             --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz \
             --slave /usr/bin/nawk nawk /usr/bin/mawk\n\
             update-alternatives --install /usr/bin/awk awk /usr/bin/gawk 10 >/dev/null",
        ));
        alternatives.link(&mut tree).unwrap();
        let target = |path: &str| format!("{:?}", tree.get(path).map(Inode::kind));
        assert!(target("etc/alternatives/awk").contains(&format!("{:?}", b"/usr/bin/gawk")));
        assert!(tree.get("usr/bin/awk").is_some());
        assert!(tree.get("usr/share/man").is_none());
    }
}
