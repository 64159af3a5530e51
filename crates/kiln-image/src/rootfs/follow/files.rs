//! Commands that work on files.

use super::{Follower, Status, Value, pattern};
use crate::tree::{Inode, Kind, Metadata, Tree};

/// Places whose content an instance brings: what scripts put there is nothing of an image.
const FLEETING: [&str; 7] = ["/run", "/var/run", "/var/lock", "/tmp", "/var/tmp", "/dev", "/proc"];
const SYSTEM: &str = "/sys";

/// Whether a path is below a place whose content an instance brings.
pub(super) fn is_fleeting(path: &str) -> bool {
    let below = |place: &str| {
        path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    FLEETING.iter().any(|place| below(place)) || below(SYSTEM)
}

/// Options and operands of a command.
struct Split {
    letters: String,
    mode: Option<String>,
    owner: Option<String>,
    group: Option<String>,
    target: Option<String>,
    operands: Vec<String>,
}

impl Split {
    /// `with_value` are the letters of options that take a value.
    fn read(words: Vec<String>, with_value: &str) -> Self {
        let mut split = Self {
            letters: String::new(),
            mode: None,
            owner: None,
            group: None,
            target: None,
            operands: Vec::new(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
                match long.split_once('=') {
                    Some(("mode", value)) => split.mode = Some(value.to_owned()),
                    Some(("owner", value)) => split.owner = Some(value.to_owned()),
                    Some(("group", value)) => split.group = Some(value.to_owned()),
                    _ if long == "parents" => split.letters.push('p'),
                    _ if long == "recursive" => split.letters.push('R'),
                    _ if long == "directory" => split.letters.push('d'),
                    _ => {}
                }
                continue;
            }
            let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty()) else {
                split.operands.extend(Some(word).filter(|word| word != "--"));
                continue;
            };
            for (at, letter) in short.char_indices() {
                if !with_value.contains(letter) {
                    split.letters.push(letter);
                    continue;
                }
                let rest = &short[at + letter.len_utf8()..];
                let value = if rest.is_empty() { words.next() } else { Some(rest.to_owned()) };
                match letter {
                    'm' => split.mode = value,
                    'o' => split.owner = value,
                    'g' => split.group = value,
                    _ => split.target = value,
                }
                break;
            }
        }
        split
    }

    fn has(&self, letter: char) -> bool {
        self.letters.contains(letter)
    }
}

impl Follower<'_> {
    pub(super) fn file_command(&mut self, name: &str, words: &[Value]) -> Status {
        if matches!(name, "mktemp" | "tempfile") {
            return self.temporary_file(words);
        }
        let Some(words) = self.known_words(name, words) else { return Status::Unknown };
        match name {
            "mkdir" => self.mkdir(Split::read(words, "m")),
            "install" => self.install(Split::read(words, "mogt")),
            "chown" | "chgrp" | "chmod" => self.change(name, words),
            "ln" => self.link(Split::read(words, "t")),
            "touch" => self.touch(Split::read(words, "drt")),
            "rm" | "rmdir" => self.remove(name, Split::read(words, "")),
            "cp" | "mv" => self.copy(name, Split::read(words, "t")),
            _ => self.find(&words),
        }
    }

    /// Puts something at a path, if the directory for it is there.
    pub(super) fn put(&mut self, path: &str, inode: Inode) -> Status {
        Status::of(self.scene.tree.replace(path, inode).is_ok())
    }

    fn temporary_file(&mut self, words: &[Value]) -> Status {
        let path = format!("/tmp/kiln-{}", self.temporary);
        self.temporary += 1;
        let directory = words.iter().flatten().any(|word| word == "-d");
        let metadata = Metadata::new(if directory { 0o700 } else { 0o600 });
        let inode =
            if directory { Inode::directory(metadata) } else { Inode::file(metadata, Vec::new()) };
        self.put(&path, inode);
        self.print(&format!("{path}\n"));
        Status::Yes
    }

    fn mkdir(&mut self, split: Split) -> Status {
        let metadata = Metadata::new(octal(split.mode.as_deref()).unwrap_or(0o755));
        let mut status = Status::Yes;
        for path in split.operands.iter().filter(|path| !is_fleeting(path)) {
            let there = self.scene.tree.get(path).is_some();
            if split.has('p') {
                if self.scene.tree.make_directories(path, &Metadata::new(0o755)).is_err() {
                    status = Status::No;
                } else if !there && split.mode.is_some() {
                    let _ = self.scene.tree.set_metadata(path, metadata.clone());
                }
            } else if there || self.put(path, Inode::directory(metadata.clone())) != Status::Yes {
                status = Status::No;
            }
        }
        status
    }

    /// `install -d DIR...`, `install FILE... PLACE`
    fn install(&mut self, split: Split) -> Status {
        let mode = octal(split.mode.as_deref()).unwrap_or(0o755);
        let owner = split.owner.as_deref().unwrap_or("0");
        let owner = format!("{owner}:{}", split.group.as_deref().unwrap_or("0"));
        let Ok((uid, gid)) = self.scene.accounts.resolve(&owner) else {
            self.miss("install");
            return Status::No;
        };
        let metadata = Metadata::new(mode).owned_by(uid, gid);
        if split.has('d') {
            for path in split.operands.iter().filter(|path| !is_fleeting(path)) {
                let parents = self.scene.tree.make_directories(path, &Metadata::new(0o755));
                if parents.is_err() || self.scene.tree.set_metadata(path, metadata.clone()).is_err()
                {
                    return Status::No;
                }
            }
            return Status::Yes;
        }
        let mut sources = split.operands;
        let Some(place) = split.target.or_else(|| sources.pop()) else { return Status::No };
        let mut status = Status::Yes;
        for source in sources {
            let found = self.scene.tree.resolve(&source).ok().and_then(Inode::content).cloned();
            let Some(content) = found else {
                status = Status::No;
                continue;
            };
            let path = self.inside(&place, &source);
            if !is_fleeting(&path) {
                status = self.put(&path, Inode::file(metadata.clone(), content));
            }
        }
        status
    }

    /// Where a file goes that is put at or into a place.
    fn inside(&self, place: &str, source: &str) -> String {
        let directory = self.scene.tree.resolve(place).is_ok_and(Inode::is_directory);
        let name = source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if directory { format!("{}/{name}", place.trim_end_matches('/')) } else { place.to_owned() }
    }

    /// `chown`, `chgrp`, `chmod`.
    fn change(&mut self, name: &str, words: Vec<String>) -> Status {
        // A mode may begin like an option: `chmod -x`.
        let (options, rest): (Vec<String>, Vec<String>) = words.into_iter().partition(|word| {
            let letters = word.strip_prefix('-').unwrap_or_default();
            word.starts_with("--")
                || (!letters.is_empty() && letters.chars().all(|c| "RhfvcPLH".contains(c)))
        });
        let deep = options.iter().any(|option| option.contains('R') || option == "--recursive");
        let Some((what, paths)) = rest.split_first() else { return Status::No };
        let mut status = Status::Yes;
        for path in paths.iter().filter(|path| !is_fleeting(path)) {
            for path in self.with_children(path, deep) {
                let old = self.scene.tree.get(&path);
                let Some((metadata, directory)) =
                    old.map(|inode| (inode.metadata().clone(), inode.is_directory()))
                else {
                    status = Status::No;
                    continue;
                };
                let Some(changed) = self.changed_metadata(name, what, metadata, directory) else {
                    self.miss(name);
                    return Status::No;
                };
                let _ = self.scene.tree.set_metadata(&path, changed);
            }
        }
        status
    }

    fn changed_metadata(
        &self,
        name: &str,
        what: &str,
        mut metadata: Metadata,
        directory: bool,
    ) -> Option<Metadata> {
        if name == "chmod" {
            let mode = match u16::from_str_radix(what, 8) {
                Ok(mode) => mode,
                Err(_) => symbolic(what, metadata.mode, directory)?,
            };
            // Set-id programs gain nothing in an instance.
            metadata.mode = if directory { mode & 0o7777 } else { mode & 0o1777 };
            return Some(metadata);
        }
        let what = what.replace('.', ":");
        let (user, group) = match (name, what.split_once(':')) {
            ("chgrp", _) => ("", what.as_str()),
            (_, Some((user, group))) => (user, group),
            (_, None) => (what.as_str(), ""),
        };
        if !user.is_empty() {
            let (uid, own) = self.scene.accounts.resolve(user).ok()?;
            metadata.uid = uid;
            if what.ends_with(':') {
                metadata.gid = own;
            }
        }
        if !group.is_empty() {
            metadata.gid = self.scene.accounts.resolve(&format!("0:{group}")).ok()?.1;
        }
        Some(metadata)
    }

    /// A path, and all below it where that is wanted. Links are not followed, but for the path.
    fn with_children(&self, path: &str, deep: bool) -> Vec<String> {
        let mut paths = vec![path.to_owned()];
        let mut next = 0;
        while deep && next < paths.len() {
            if let Some(Kind::Directory(children)) =
                self.scene.tree.get(&paths[next]).map(Inode::kind)
            {
                let names = children.iter().filter_map(|(name, _)| str::from_utf8(name).ok());
                let more: Vec<String> =
                    names.map(|name| format!("{}/{name}", paths[next])).collect();
                paths.extend(more);
            }
            next += 1;
        }
        paths
    }

    fn link(&mut self, split: Split) -> Status {
        let (target, path) = match &split.operands[..] {
            [target] => (target.clone(), self.inside(".", target)),
            [target, place] if split.has('n') || split.has('T') => (target.clone(), place.clone()),
            [target, place] => (target.clone(), self.inside(place, target)),
            _ => {
                self.miss("ln");
                return Status::No;
            }
        };
        if is_fleeting(&path) {
            return Status::Yes;
        }
        if self.scene.tree.get(&path).is_some() && !split.has('f') {
            return Status::No;
        }
        if !split.has('s') {
            return Status::of(self.scene.tree.link(&target, &path).is_ok());
        }
        self.put(&path, Inode::symlink(Metadata::new(0o777), &target))
    }

    fn touch(&mut self, split: Split) -> Status {
        let mut status = Status::Yes;
        for path in split.operands.iter().filter(|path| !is_fleeting(path)) {
            if self.scene.tree.get(path).is_none() {
                status = self.put(path, Inode::file(Metadata::new(0o644), Vec::new()));
            }
        }
        status
    }

    fn remove(&mut self, name: &str, split: Split) -> Status {
        let mut status = Status::Yes;
        let deep = split.has('r') || split.has('R');
        for path in &split.operands {
            let parts = path.split('/').filter(|part| !part.is_empty()).count();
            let directory = match self.scene.tree.get(path).map(Inode::kind) {
                None => {
                    status = Status::of(split.has('f') && status == Status::Yes);
                    continue;
                }
                Some(Kind::Directory(children)) => Some(children.is_empty()),
                Some(_) => None,
            };
            let allowed = match (name, directory) {
                ("rmdir", empty) => empty == Some(true),
                (_, None) => true,
                // What a script sweeps away at the top would be a mistake of this module's.
                (_, Some(_)) => deep && parts > 1,
            };
            if !allowed || self.scene.tree.remove(path).is_err() {
                status = Status::No;
            }
        }
        status
    }

    /// `cp`, `mv`
    fn copy(&mut self, name: &str, split: Split) -> Status {
        let mut sources = split.operands.clone();
        let Some(place) = split.target.clone().or_else(|| sources.pop()) else {
            return Status::No;
        };
        let keep = name == "mv" || split.has('a') || split.has('p');
        let links = name == "mv" || split.has('a') || split.has('d') || split.has('P');
        let mut status = Status::Yes;
        for source in sources {
            let found = if links {
                self.scene.tree.get(&source)
            } else {
                self.scene.tree.resolve(&source).ok()
            };
            let Some(inode) = found.cloned() else {
                status = Status::No;
                continue;
            };
            if inode.is_directory() {
                // No script that is followed copies whole directories.
                self.miss(name);
                return Status::No;
            }
            let path = if split.has('T') { place.clone() } else { self.inside(&place, &source) };
            if split.has('n') && self.scene.tree.get(&path).is_some() || is_fleeting(&path) {
                continue;
            }
            let copy = match inode.content() {
                Some(content) if !keep => {
                    let mode = inode.metadata().mode & 0o777;
                    Inode::file(Metadata::new(mode), content.clone())
                }
                _ => inode,
            };
            status = self.put(&path, copy);
            if name == "mv" && status == Status::Yes {
                let _ = self.scene.tree.remove(&source);
            }
        }
        status
    }

    /// `find` in the form that scripts use: paths below some directories by type and name.
    fn find(&mut self, words: &[String]) -> Status {
        let starts: Vec<&String> = words.iter().take_while(|word| !word.starts_with('-')).collect();
        let acts =
            words.iter().any(|word| matches!(word.as_str(), "-delete" | "-exec" | "-execdir"));
        let there = starts.iter().any(|start| {
            let children = self.with_children(start, true).len();
            self.scene.tree.get(start.as_str()).is_some() && children > 1
        });
        if !there {
            return Status::Yes;
        }
        let mut tests = words[starts.len()..].iter();
        let (mut kind, mut name) = (None, None);
        while let Some(test) = tests.next() {
            match test.as_str() {
                "-type" => kind = tests.next(),
                "-name" => name = tests.next(),
                "-print" | "-print0" => {}
                "-maxdepth" | "-mindepth" => drop(tests.next()),
                "-empty" if acts => return Status::Yes,
                _ => {
                    if acts {
                        self.miss("find");
                    }
                    self.print_unknown();
                    return Status::Unknown;
                }
            }
        }
        let mut pieces = Vec::new();
        pattern::read(name.map_or("*", String::as_str), &mut pieces);
        let paths: Vec<String> =
            starts.iter().flat_map(|start| self.with_children(start, true)).collect();
        for path in paths {
            let base = path.rsplit('/').next().unwrap_or_default();
            if pattern::matches(&pieces, base) && is_kind(self.scene.tree, &path, kind) {
                self.print(&format!("{path}\n"));
            }
        }
        Status::Yes
    }
}

fn is_kind(tree: &Tree, path: &str, wanted: Option<&String>) -> bool {
    match (tree.get(path).map(Inode::kind), wanted.map(String::as_str)) {
        (None, _) => false,
        (Some(Kind::Directory(_)), Some("d"))
        | (Some(Kind::File(_)), Some("f"))
        | (Some(Kind::Symlink(_)), Some("l"))
        | (_, None) => true,
        _ => false,
    }
}

fn octal(mode: Option<&str>) -> Option<u16> {
    u16::from_str_radix(mode?, 8).ok().map(|mode| mode & 0o7777)
}

/// A mode such as `u+x,g-w`; none if it is not understood.
fn symbolic(text: &str, mut mode: u16, directory: bool) -> Option<u16> {
    for part in text.split(',') {
        let sign_at = part.find(['+', '-', '='])?;
        let (who, rest) = part.split_at(sign_at);
        let mut mask = 0;
        for letter in who.chars() {
            mask |= match letter {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                'a' => 0o777,
                _ => return None,
            };
        }
        let mask = if who.is_empty() { 0o777 } else { mask };
        let mut bits = 0;
        for letter in rest[1..].chars() {
            bits |= match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if directory || mode & 0o111 != 0 => 0o111,
                'X' | 's' | 't' => 0,
                _ => return None,
            };
        }
        match &rest[..1] {
            "+" => mode |= bits & mask,
            "-" => mode &= !(bits & mask),
            _ => mode = mode & !mask | bits & mask,
        }
    }
    Some(mode)
}
