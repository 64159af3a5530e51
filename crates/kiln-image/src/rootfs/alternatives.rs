//! Alternatives: names such as `/usr/bin/awk` for which several packages can stand in.

use std::collections::BTreeMap;

use crate::tree::{Inode, Metadata, Tree, TreeError};

/// One offer for a name, as `update-alternatives --install` makes it.
struct Offer {
    priority: i64,
    /// Link, name and target: the main one, then its slaves.
    links: Vec<(String, String, String)>,
}

/// The offers for each name, in the order in which they were made.
#[derive(Default)]
pub(super) struct Alternatives(BTreeMap<String, Vec<Offer>>);

impl Alternatives {
    /// Takes in what a call of update-alternatives(1) would install; others change nothing here.
    pub(super) fn declare(&mut self, words: &[String]) {
        if let Some(offer) = read_offer(words) {
            self.0.entry(offer.links[0].1.clone()).or_default().push(offer);
        }
    }

    /// Makes the links of the best offer for each name whose target is in the tree.
    pub(super) fn link(&self, tree: &mut Tree) -> Result<(), TreeError> {
        let directory = Metadata::new(0o755);
        let symlink = |target: &str| Inode::symlink(Metadata::new(0o777), target);
        for offers in self.0.values() {
            let Some(best) = best(offers, tree) else { continue };
            for (link, name, target) in &best.links {
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
        }
        Ok(())
    }

    /// Writes what update-alternatives(1) keeps of each name below `/var/lib/dpkg/alternatives`.
    pub(super) fn record(&self, tree: &mut Tree) -> Result<(), TreeError> {
        const DIRECTORY: &str = "var/lib/dpkg/alternatives";
        tree.make_directories(DIRECTORY, &Metadata::new(0o755))?;
        for (name, offers) in &self.0 {
            let Some(best) = best(offers, tree) else { continue };
            let mut text = format!("auto\n{}\n", best.links[0].0);
            let slaves: BTreeMap<&str, &str> = offers
                .iter()
                .flat_map(|offer| &offer.links[1..])
                .map(|(link, name, _)| (name.as_str(), link.as_str()))
                .collect();
            for (name, link) in &slaves {
                text.extend([*name, "\n", *link, "\n"]);
            }
            text.push('\n');
            for offer in offers.iter().filter(|offer| tree.resolve(&offer.links[0].2).is_ok()) {
                text.extend([offer.links[0].2.as_str(), "\n"]);
                text.extend([offer.priority.to_string(), "\n".to_owned()]);
                for slave in slaves.keys() {
                    let found = offer.links[1..].iter().find(|(_, name, _)| name == slave);
                    text += found.map_or("", |(_, _, target)| target);
                    text.push('\n');
                }
            }
            text.push('\n');
            let file = Inode::file(Metadata::new(0o644), text.into_bytes());
            tree.replace(format!("{DIRECTORY}/{name}"), file)?;
        }
        Ok(())
    }
}

/// The offer with the highest priority, of several the first.
fn best<'a>(offers: &'a [Offer], tree: &Tree) -> Option<&'a Offer> {
    let there = offers.iter().filter(|offer| tree.resolve(&offer.links[0].2).is_ok());
    there.reduce(|best, offer| if offer.priority > best.priority { offer } else { best })
}

/// Reads `--install LINK NAME PATH PRIORITY [--slave LINK NAME PATH]...`.
fn read_offer(words: &[String]) -> Option<Offer> {
    let start = words.iter().position(|word| word == "--install")?;
    let mut words = words[start..].iter().map(String::as_str);
    let mut offer = Offer { priority: 0, links: Vec::new() };
    while let Some(word) = words.next() {
        if word != "--install" && word != "--slave" {
            break;
        }
        let (link, name, target) = (words.next()?, words.next()?, words.next()?);
        if word == "--install" {
            offer.priority = words.next()?.parse().ok()?;
        }
        let plain = |path: &str| path.starts_with('/');
        let plain_name = !name.contains('/') && name != "..";
        if !plain(link) || !plain(target) || !plain_name {
            return None;
        }
        offer.links.push((link.to_owned(), name.to_owned(), target.to_owned()));
    }
    (!offer.links.is_empty()).then_some(offer)
}

#[cfg(test)]
mod tests {
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
        for command in [
            "--install /usr/bin/awk awk /usr/bin/mawk 5 --slave /usr/share/man/man1/awk.1.gz \
             awk.1.gz /usr/share/man/man1/mawk.1.gz --slave /usr/bin/nawk nawk /usr/bin/mawk",
            "--install /usr/bin/awk awk /usr/bin/gawk 10",
            "--remove awk /usr/bin/gawk",
        ] {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            alternatives.declare(&words);
        }
        alternatives.link(&mut tree).unwrap();
        let target = |path: &str| format!("{:?}", tree.get(path).map(Inode::kind));
        assert!(target("etc/alternatives/awk").contains(&format!("{:?}", b"/usr/bin/gawk")));
        assert!(tree.get("usr/bin/awk").is_some());
        assert!(tree.get("usr/share/man").is_none());
    }
}
