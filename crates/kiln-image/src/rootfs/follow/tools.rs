//! Commands of Debian's own: accounts, alternatives, configuration files.

use super::{Follower, Status, Value};
use crate::debian::control::stanzas;
use crate::tree::{Inode, Metadata};

impl Follower<'_> {
    pub(super) fn tool(&mut self, name: &str, words: &[Value]) -> Status {
        if name == "db_get" {
            return self.answer(words);
        }
        let Some(words) = self.known_words(name, words) else { return Status::Unknown };
        match name {
            "update-alternatives" => {
                self.scene.alternatives.declare(&words);
                Status::Yes
            }
            "dpkg-divert" => {
                self.scene.diversions.declare(self.script.package, &words);
                Status::Yes
            }
            "dpkg-statoverride" => self.override_owner(&words),
            "ucf" => self.configuration(&words),
            "add-shell" => self.add_shells(&words),
            "a2enmod" | "a2enconf" | "a2ensite" => self.enable(name, &words),
            "sh" | "bash" | "dash" => self.shell(&words),
            _ => self.account(name, &words),
        }
    }

    fn account(&mut self, name: &str, words: &[String]) -> Status {
        let Some(done) = self.scene.accounts.declare(name, words) else {
            self.miss(name);
            return Status::No;
        };
        // The home directory of an account that was added.
        if let Some((path, user)) = done.home
            && !super::files::is_fleeting(&path)
            && self.scene.tree.get(&path).is_none()
            && let Ok((uid, gid)) = self.scene.accounts.resolve(&user)
        {
            let _ = self.scene.tree.make_directories(&path, &Metadata::new(0o755));
            let own = Metadata::new(0o755).owned_by(uid, gid);
            let _ = self.scene.tree.set_metadata(&path, own);
        }
        Status::Yes
    }

    /// What debconf answers where nobody is asked: the default in the package's templates.
    fn answer(&mut self, words: &[Value]) -> Status {
        let Some(Some(question)) = words.first() else { return Status::Unknown };
        let templates = self.script.templates;
        let mut found = None;
        for stanza in stanzas(templates).map_while(Result::ok) {
            if stanza.get("Template") == Some(question) {
                found = Some(stanza.get("Default").unwrap_or_default().to_owned());
            }
        }
        let status = Status::of(found.is_some());
        self.variables.insert("RET".to_owned(), Some(found.unwrap_or_default()));
        status
    }

    /// `dpkg-statoverride --add USER GROUP MODE PATH`; others ask for what is not there.
    fn override_owner(&mut self, words: &[String]) -> Status {
        let Some(at) = words.iter().position(|word| word == "--add") else { return Status::No };
        let operands = words[at + 1..].iter().filter(|word| !word.starts_with('-'));
        let operands: Vec<&String> = operands.collect();
        let [user, group, mode, path] = operands[..] else { return Status::No };
        let owner = self.scene.accounts.resolve(&format!("{user}:{group}"));
        let (Ok((uid, gid)), Ok(mode)) = (owner, u16::from_str_radix(mode, 8)) else {
            self.miss("dpkg-statoverride");
            return Status::No;
        };
        let Some(inode) = self.scene.tree.get(path) else { return Status::Yes };
        let mask = if inode.is_directory() { 0o7777 } else { 0o1777 };
        let mut metadata = inode.metadata().clone();
        (metadata.uid, metadata.gid, metadata.mode) = (uid, gid, mode & mask);
        Status::of(self.scene.tree.set_metadata(path, metadata).is_ok())
    }

    /// `ucf NEW PLACE`: a configuration file that a person may have changed. Here nobody has.
    fn configuration(&mut self, words: &[String]) -> Status {
        if words.iter().any(|word| word == "--purge" || word == "-p") {
            return Status::Yes;
        }
        let operands: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
        let [source, place] = operands[..] else { return Status::No };
        let found = self.scene.tree.resolve(source).ok();
        let Some((content, mode)) =
            found.and_then(|inode| Some((inode.content()?.clone(), inode.metadata().mode & 0o777)))
        else {
            self.miss(&format!("ucf {source}"));
            return Status::No;
        };
        if self.scene.tree.get(place).is_some() {
            return Status::Yes;
        }
        // A temporary file's mode is not meant for its copy.
        let mode = if source.starts_with("/tmp/") { 0o644 } else { mode };
        if let Some((directory, _)) = place.rsplit_once('/') {
            let _ = self.scene.tree.make_directories(directory, &Metadata::new(0o755));
        }
        self.put(place, Inode::file(Metadata::new(mode), content))
    }

    /// `sh -c TEXT`, `sh FILE`.
    fn shell(&mut self, words: &[String]) -> Status {
        let mut words = words.iter().skip_while(|word| word.starts_with('-') && *word != "-c");
        let Some(first) = words.next() else { return Status::Yes };
        let rest: Vec<Value> = words.cloned().map(Some).collect();
        if first == "-c" {
            return match rest.first() {
                Some(_) => self.test("eval", &rest[..1]),
                None => Status::No,
            };
        }
        self.command(first, &rest)
    }

    /// Makes the links by which Apache reads a part of its configuration, as a2enmod(8) does.
    fn enable(&mut self, name: &str, words: &[String]) -> Status {
        let (kind, suffixes): (&str, &[&str]) = match name {
            "a2enmod" => ("mods", &["load", "conf"]),
            "a2enconf" => ("conf", &["conf"]),
            _ => ("sites", &["conf"]),
        };
        let mut status = Status::Yes;
        for name in words.iter().filter(|word| !word.starts_with('-')) {
            let mut found = false;
            for suffix in suffixes {
                let source = format!("{kind}-available/{name}.{suffix}");
                let place = format!("/etc/apache2/{kind}-enabled/{name}.{suffix}");
                if self.scene.tree.resolve(format!("/etc/apache2/{source}")).is_err() {
                    continue;
                }
                found = true;
                if self.scene.tree.get(&place).is_none() {
                    let target = format!("../{source}");
                    self.put(&place, Inode::symlink(Metadata::new(0o777), target));
                }
            }
            if !found {
                status = Status::No;
            }
        }
        status
    }

    /// Adds to the list of shells.
    fn add_shells(&mut self, words: &[String]) -> Status {
        let mut text = self.read("/etc/shells").unwrap_or_default();
        for shell in words {
            if !text.lines().any(|line| line == shell) {
                text.push_str(shell);
                text.push('\n');
            }
        }
        self.put("/etc/shells", Inode::file(Metadata::new(0o644), text.into_bytes()))
    }
}
