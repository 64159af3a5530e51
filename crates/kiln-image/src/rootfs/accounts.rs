//! Users and groups of an image.
//!
//! The fixed ones are those of Debian's `base-passwd`. What packages add in their scripts or by
//! `sysusers.d` gets a number that follows from its name, so that another package in the image, or
//! another image, does not shift the owners of data that outlives them.

mod inherited;

use std::collections::BTreeMap;
use std::io;

use kiln_model::digest::Digest;

use super::shell::Command;
use crate::tree::Tree;

/// The numbers that packages' accounts get: Debian's range for system accounts.
const SYSTEM_IDS: std::ops::Range<u32> = 100..1000;
/// The first number of accounts that a recipe adds.
const FIRST_RECIPE_ID: u32 = 1000;
const NO_ONE: u32 = 65_534;
const NO_SHELL: &str = "/usr/sbin/nologin";
const NO_HOME: &str = "/nonexistent";

/// Name, uid, gid and home of the fixed users.
const DEBIAN_USERS: [(&str, u32, u32, &str); 18] = [
    ("root", 0, 0, "/root"),
    ("daemon", 1, 1, "/usr/sbin"),
    ("bin", 2, 2, "/bin"),
    ("sys", 3, 3, "/dev"),
    ("sync", 4, NO_ONE, "/bin"),
    ("games", 5, 60, "/usr/games"),
    ("man", 6, 12, "/var/cache/man"),
    ("lp", 7, 7, "/var/spool/lpd"),
    ("mail", 8, 8, "/var/mail"),
    ("news", 9, 9, "/var/spool/news"),
    ("uucp", 10, 10, "/var/spool/uucp"),
    ("proxy", 13, 13, "/bin"),
    ("www-data", 33, 33, "/var/www"),
    ("backup", 34, 34, "/var/backups"),
    ("list", 38, 38, "/var/list"),
    ("irc", 39, 39, "/run/ircd"),
    ("_apt", 42, NO_ONE, NO_HOME),
    ("nobody", NO_ONE, NO_ONE, NO_HOME),
];

/// The fixed groups.
const DEBIAN_GROUPS: [(&str, u32); 37] = [
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
];

/// An account that is not there, or can't be.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No such user.
    #[error("there is no user `{0}` in the image; add it with a `user` step, or give a number")]
    UnknownUser(String),
    /// No such group.
    #[error("there is no group `{0}` in the image; give a number")]
    UnknownGroup(String),
    /// The name has letters that no account may have.
    #[error("`{0}` can't be the name of a user: letters, digits, `-` and `_` were expected")]
    Name(String),
    /// A group's number is taken.
    #[error("group `{name}` can't have the number {gid}, which is that of `{other}`")]
    GroupTaken {
        /// The wanted name.
        name: String,
        /// The wanted number.
        gid: u32,
        /// Who has it.
        other: String,
    },
    /// The number is taken.
    #[error("user `{name}` can't have the number {uid}, which is that of `{other}`")]
    Taken {
        /// The wanted name.
        name: String,
        /// The wanted number.
        uid: u32,
        /// Who has it.
        other: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

/// The users and groups of one image.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    users: BTreeMap<String, User>,
    groups: BTreeMap<String, u32>,
    /// What stood in the files of the image that this one is built on.
    inherited: Option<inherited::Files>,
}

impl Accounts {
    /// `root` and `nobody`, for images that start from nothing.
    pub fn minimal() -> Self {
        let mut accounts = Self::default();
        accounts.add_user("root", 0, 0, "/root", "/bin/sh");
        accounts.add_user("nobody", NO_ONE, NO_ONE, NO_HOME, NO_SHELL);
        accounts.groups.insert("root".into(), 0);
        accounts.groups.insert("nogroup".into(), NO_ONE);
        accounts
    }

    /// The accounts that each Debian system has.
    pub fn debian() -> Self {
        let mut accounts = Self::minimal();
        for (name, uid, gid, home) in DEBIAN_USERS {
            let shell = if uid == 0 { "/bin/sh" } else { NO_SHELL };
            accounts.add_user(name, uid, gid, home, shell);
        }
        accounts.groups.extend(DEBIAN_GROUPS.map(|(name, gid)| (name.to_owned(), gid)));
        accounts
    }

    fn add_user(&mut self, name: &str, uid: u32, gid: u32, home: &str, shell: &str) {
        let (home, shell) = (home.to_owned(), shell.to_owned());
        self.users.insert(name.to_owned(), User { uid, gid, home, shell });
    }

    /// Adds the user of a `user` step, with a group of the same name and number.
    pub fn add(
        &mut self,
        name: &str,
        uid: Option<u32>,
        home: Option<&str>,
    ) -> Result<(), AccountError> {
        if !is_account_name(name) {
            return Err(AccountError::Name(name.to_owned()));
        }
        let taken = |uid| self.users.iter().find(|(_, user)| user.uid == uid);
        let uid = match uid {
            Some(uid) => uid,
            None => (FIRST_RECIPE_ID..NO_ONE).find(|id| taken(*id).is_none()).unwrap_or(NO_ONE),
        };
        if let Some((other, _)) = taken(uid).filter(|(other, _)| *other != name) {
            let (name, other) = (name.to_owned(), other.clone());
            return Err(AccountError::Taken { name, uid, other });
        }
        self.add_user(name, uid, uid, home.unwrap_or(NO_HOME), NO_SHELL);
        self.groups.insert(name.to_owned(), uid);
        Ok(())
    }

    /// Adds the group of a `group` step.
    pub fn add_group(&mut self, name: &str, gid: Option<u32>) -> Result<(), AccountError> {
        if !is_account_name(name) {
            return Err(AccountError::Name(name.to_owned()));
        }
        let taken = |gid| self.groups.iter().find(|(_, group)| **group == gid);
        let gid = match gid {
            Some(gid) => gid,
            None => (FIRST_RECIPE_ID..NO_ONE).find(|id| taken(*id).is_none()).unwrap_or(NO_ONE),
        };
        if let Some((other, _)) = taken(gid).filter(|(other, _)| *other != name) {
            let (name, other) = (name.to_owned(), other.clone());
            return Err(AccountError::GroupTaken { name, gid, other });
        }
        self.groups.insert(name.to_owned(), gid);
        Ok(())
    }

    /// Adds a package's user, unless there is one.
    fn declare_user(&mut self, name: &str, uid: Option<u32>, home: &str, group: Option<&str>) {
        if !is_account_name(name) || self.users.contains_key(name) {
            return;
        }
        let uid = uid.unwrap_or_else(|| self.free_id(name));
        let gid = match group {
            Some(group) => self.declare_group(group, None),
            None => self.declare_group(name, Some(uid)),
        };
        self.add_user(name, uid, gid.unwrap_or(NO_ONE), home, NO_SHELL);
    }

    /// Adds a package's group, unless there is one, and gives its number.
    fn declare_group(&mut self, name: &str, gid: Option<u32>) -> Option<u32> {
        if !is_account_name(name) {
            return None;
        }
        if let Some(gid) = self.groups.get(name) {
            return Some(*gid);
        }
        let gid = gid.unwrap_or_else(|| self.free_id(name));
        self.groups.insert(name.to_owned(), gid);
        Some(gid)
    }

    /// The number that follows from a name, or the next one that is free.
    fn free_id(&self, name: &str) -> u32 {
        let digest = Digest::of(name.as_bytes());
        let start = digest.as_bytes()[..4].iter().fold(0_u32, |n, b| n << 8 | u32::from(*b));
        let length = SYSTEM_IDS.end - SYSTEM_IDS.start;
        let ids = (0..length).map(|i| SYSTEM_IDS.start + (start % length + i) % length);
        let taken = |id| {
            self.users.values().any(|user| user.uid == id) || self.groups.values().any(|g| *g == id)
        };
        ids.into_iter().find(|id| !taken(*id)).unwrap_or(NO_ONE)
    }

    /// Adds what a maintainer script would add by `adduser`, `useradd`, `addgroup`, `groupadd`.
    pub(super) fn declare_from_script(&mut self, commands: &[Command]) {
        for command in commands {
            let (options, names) = read_options(&command[1..]);
            let option = |names: &[&str]| {
                names.iter().find_map(|name| options.get(name).copied().filter(|v| !v.is_empty()))
            };
            let Some(name) = names.first() else { continue };
            match command[0].rsplit('/').next() {
                // With two names, an existing user is put into a group.
                Some("adduser" | "useradd") if names.len() == 1 => {
                    let uid = option(&["uid", "u"]).and_then(|uid| uid.parse().ok());
                    let home = option(&["home", "home-dir", "d"]).unwrap_or(NO_HOME);
                    let group = option(&["ingroup", "gid", "g"]);
                    self.declare_user(name, uid, home, group);
                }
                Some("addgroup" | "groupadd") => {
                    let gid = option(&["gid", "g"]).and_then(|gid| gid.parse().ok());
                    self.declare_group(name, gid);
                }
                _ => {}
            }
        }
    }

    /// Adds what `systemd-sysusers` would add (sysusers.d(5)).
    pub(super) fn declare_from_sysusers(&mut self, tree: &Tree) -> Result<(), (String, io::Error)> {
        const DIRECTORY: &str = "usr/lib/sysusers.d";
        for text in super::finish::text_files(tree, DIRECTORY)?.values() {
            for command in super::shell::commands(text) {
                let [kind, name, rest @ ..] = &command[..] else { continue };
                let id = rest.first().map_or("-", String::as_str);
                let number = id.split([':', '/']).next().and_then(|id| id.parse().ok());
                let home = rest.get(2).map_or(NO_HOME, |h| if h == "-" { NO_HOME } else { h });
                match kind.trim_end_matches('!') {
                    "u" => self.declare_user(name, number, home, None),
                    "g" => drop(self.declare_group(name, number)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Takes over the accounts that stand in the tree: what a program of the image may have added.
    pub(crate) fn learn(&mut self, tree: &Tree) -> Result<(), (String, io::Error)> {
        let [passwd, group] = ["etc/passwd", "etc/group"].map(|path| {
            let Some(content) = tree.resolve(path).ok().and_then(|inode| inode.content()) else {
                return Ok(String::new());
            };
            let bytes = content.read().map_err(|error| (path.to_owned(), error))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        });
        for line in group?.lines() {
            if let [name, _, gid, ..] = line.split(':').collect::<Vec<_>>()[..]
                && let Ok(gid) = gid.parse()
            {
                self.groups.insert(name.to_owned(), gid);
            }
        }
        for line in passwd?.lines() {
            if let [name, _, uid, gid, _, home, shell] = line.split(':').collect::<Vec<_>>()[..]
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                self.add_user(name, uid, gid, home, shell);
            }
        }
        Ok(())
    }

    /// The home directory of the user with this number.
    pub(crate) fn home(&self, uid: u32) -> Option<&str> {
        let user = self.users.values().find(|user| user.uid == uid)?;
        Some(&user.home)
    }

    /// The numbers of `USER`, `USER:GROUP`, each a name or a number. A number without a group
    /// gets the group of the same number.
    pub fn resolve(&self, owner: &str) -> Result<(u32, u32), AccountError> {
        let (user, group) = match owner.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (owner, None),
        };
        let (uid, own_group) = match (user.parse::<u32>(), self.users.get(user)) {
            (Ok(uid), _) => (uid, uid),
            (_, Some(user)) => (user.uid, user.gid),
            _ => return Err(AccountError::UnknownUser(user.to_owned())),
        };
        let gid = match group.map(|group| (group.parse::<u32>(), self.groups.get(group), group)) {
            None => own_group,
            Some((Ok(gid), ..) | (_, Some(&gid), _)) => gid,
            Some((_, None, name)) => return Err(AccountError::UnknownGroup(name.to_owned())),
        };
        Ok((uid, gid))
    }

    /// The text of `/etc/passwd`: what is inherited, then the others by number.
    pub fn passwd(&self) -> String {
        let mut users: Vec<_> = self.new_users().collect();
        users.sort_by_key(|(name, user)| (user.uid, name.as_str()));
        let line = |(name, User { uid, gid, home, shell }): (&String, &User)| {
            format!("{name}:x:{uid}:{gid}:{name}:{home}:{shell}\n")
        };
        users.into_iter().map(line).fold(self.kept_users(), |text, line| text + &line)
    }

    /// The text of `/etc/group`, in the same way.
    pub fn group(&self) -> String {
        let mut groups: Vec<_> = self.new_groups().collect();
        groups.sort_by_key(|(name, gid)| (**gid, name.as_str()));
        let line = |(name, gid): (&String, &u32)| format!("{name}:x:{gid}:\n");
        groups.into_iter().map(line).fold(self.kept_groups(), |text, line| text + &line)
    }
}

fn is_account_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// Tells options from names. The options that take a value are those of adduser(8) and
/// useradd(8) that matter here.
fn read_options(words: &[String]) -> (BTreeMap<&str, &str>, Vec<&str>) {
    const WITH_VALUE: [&str; 13] = [
        "home", "home-dir", "d", "uid", "u", "gid", "g", "ingroup", "shell", "s", "gecos", "c",
        "comment",
    ];
    let (mut options, mut names) = (BTreeMap::new(), Vec::new());
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        // Redirections end the command's own words.
        if word.contains(['>', '<']) {
            break;
        }
        match word.strip_prefix("--").or_else(|| word.strip_prefix('-')) {
            None => names.push(word),
            Some(option) => match option.split_once('=') {
                Some((name, value)) => drop(options.insert(name, value)),
                None if WITH_VALUE.contains(&option) => {
                    options.insert(option, words.next().unwrap_or_default());
                }
                None => drop(options.insert(option, "")),
            },
        }
    }
    (options, names)
}

#[cfg(test)]
mod tests {
    use super::super::shell::commands;
    use super::*;

    #[test]
    fn scripts_declare_accounts() {
        let mut accounts = Accounts::debian();
        accounts.declare_from_script(&commands(
            "adduser --system --home /var/lib/redis --quiet --group redis || true\n\
             adduser --system $UNKNOWN\nadduser redis www-data\naddgroup --system ssl-cert 2>/dev/null",
        ));
        let (uid, gid) = accounts.resolve("redis").unwrap();
        assert!(SYSTEM_IDS.contains(&uid) && uid == gid);
        assert!(accounts.passwd().contains(&format!("redis:x:{uid}:{uid}:redis:/var/lib/redis:")));
        assert!(accounts.group().contains("ssl-cert:x:"));
        assert!(!accounts.passwd().contains("UNKNOWN"));
    }

    #[test]
    fn owners_are_names_or_numbers() {
        let mut accounts = Accounts::debian();
        accounts.add("app", None, None).unwrap();
        assert_eq!(accounts.resolve("app").unwrap(), (1000, 1000));
        assert_eq!(accounts.resolve("www-data:adm").unwrap(), (33, 4));
        assert_eq!(accounts.resolve("5").unwrap(), (5, 5));
        assert_eq!(accounts.resolve("5:0").unwrap(), (5, 0));
        assert!(accounts.resolve("nope").is_err() && accounts.resolve("root:nope").is_err());
        assert!(accounts.add("other", Some(33), None).is_err());
        assert!(accounts.add("a:b", None, None).is_err());
    }
}
