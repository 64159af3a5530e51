//! Users and groups of an image.
//!
//! The fixed ones are those of Debian's `base-passwd`. What packages add in their scripts or in
//! `sysusers.d` gets a number that follows from its name, so that another package in the image, or
//! another image, does not shift the owners of data that outlives them.

mod inherited;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use kiln_model::digest::Digest;

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
    /// By group: users who are in it beside those whose own group it is.
    members: BTreeMap<String, BTreeSet<String>>,
}

/// A package's user, as far as the package says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Declared<'a> {
    pub(super) uid: Option<u32>,
    pub(super) home: Option<&'a str>,
    pub(super) shell: Option<&'a str>,
    /// Its group, by name or number; one of its own where none is given.
    pub(super) group: Option<&'a str>,
}

/// What comes of a command about accounts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// The home directory that is to be made, and whose it is.
    pub(super) home: Option<(String, String)>,
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

    /// Adds a package's user, unless there is one; whether it was added.
    pub(super) fn declare_user(&mut self, name: &str, declared: Declared<'_>) -> bool {
        if !is_account_name(name) || self.users.contains_key(name) {
            return false;
        }
        let free = declared.uid.filter(|uid| self.users.values().all(|user| user.uid != *uid));
        let uid = free.unwrap_or_else(|| self.free_id(name));
        let gid = match declared.group.map(|group| (group.parse::<u32>(), group)) {
            Some((Ok(gid), _)) => Some(gid),
            Some((_, group)) => self.declare_group(group, None),
            None => self.declare_group(name, Some(uid)),
        };
        let home = declared.home.unwrap_or(NO_HOME);
        let shell = declared.shell.unwrap_or(NO_SHELL);
        self.add_user(name, uid, gid.unwrap_or(NO_ONE), home, shell);
        true
    }

    /// Adds a package's group, unless there is one, and gives its number.
    pub(super) fn declare_group(&mut self, name: &str, gid: Option<u32>) -> Option<u32> {
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

    /// Puts a user into a group; both are made where they are missing, as sysusers.d(5) says.
    pub(super) fn declare_member(&mut self, user: &str, group: &str) {
        self.declare_group(group, None);
        self.declare_user(user, Declared::default());
        if is_account_name(user) && is_account_name(group) {
            self.members.entry(group.to_owned()).or_default().insert(user.to_owned());
        }
    }

    /// The names of the groups that a user is in.
    pub(super) fn groups_of(&self, user: &str) -> Vec<String> {
        let own = self.users.get(user).map(|user| user.gid);
        let first = self.groups.iter().filter(|(_, gid)| Some(**gid) == own);
        let more = self.members.iter().filter(|(_, users)| users.contains(user));
        first.map(|(name, _)| name.clone()).chain(more.map(|(name, _)| name.clone())).collect()
    }

    /// Does what a maintainer script does by `adduser`, `useradd`, `addgroup`, `groupadd`,
    /// `usermod` or `gpasswd`. None where that is not understood.
    pub(super) fn declare(&mut self, command: &str, words: &[String]) -> Option<Done> {
        let (options, names) = read_options(words);
        let option = |names: &[&str]| {
            names.iter().find_map(|name| options.get(name).copied().filter(|v| !v.is_empty()))
        };
        let has = |names: &[&str]| names.iter().any(|name| options.contains_key(name));
        let name = *names.first()?;
        let id = |names: &[&str]| option(names).and_then(|id| id.parse().ok());
        match (command, &names[..]) {
            ("adduser", [user, group]) => self.declare_member(user, group),
            ("adduser", _) if has(&["group"]) && !has(&["system"]) => {
                self.declare_group(name, id(&["gid", "g"]));
            }
            ("adduser" | "useradd", _) => {
                let home = option(&["home", "home-dir", "d", "h"]);
                let own_group = has(&["group", "U", "user-group"]) || command == "useradd";
                // adduser(8): a system user without a word about its group is in `nogroup`.
                let group = option(&["ingroup", "gid", "g"]).or((!own_group).then_some("nogroup"));
                let (uid, shell) = (id(&["uid", "u"]), option(&["shell", "s"]));
                let added = self.declare_user(name, Declared { uid, home, shell, group });
                for group in option(&["groups", "G"]).into_iter().flat_map(|all| all.split(',')) {
                    self.declare_member(name, group);
                }
                let wanted = match command {
                    "adduser" => !has(&["no-create-home"]),
                    _ => has(&["m", "create-home"]),
                };
                let home = home.filter(|home| wanted && added && *home != NO_HOME);
                return Some(Done { home: home.map(|home| (home.to_owned(), name.to_owned())) });
            }
            ("addgroup" | "groupadd", _) => {
                self.declare_group(name, id(&["gid", "g"]));
            }
            ("gpasswd", _) => {
                let user = option(&["a", "add"])?;
                self.declare_member(user, name);
            }
            ("usermod", _) => self.declare_changes(name, &options)?,
            _ => return None,
        }
        Some(Done::default())
    }

    /// Takes in what stands in `/etc/passwd` and `/etc/group` after scripts have run. Lines that
    /// can't be read are passed over.
    pub(super) fn adopt(&mut self, passwd: &str, group: &str) {
        for line in passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = fields[..] else { continue };
            if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
                && is_account_name(name)
            {
                self.add_user(name, uid, gid, home, shell);
            }
        }
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = fields[..] else { continue };
            let Ok(gid) = gid.parse() else { continue };
            if is_account_name(name) {
                self.groups.insert(name.to_owned(), gid);
                let members = members.split(',').filter(|member| is_account_name(member));
                let members: BTreeSet<String> = members.map(str::to_owned).collect();
                self.members.insert(name.to_owned(), members);
            }
        }
    }

    fn declare_changes(&mut self, name: &str, options: &BTreeMap<&str, &str>) -> Option<()> {
        let user = self.users.get_mut(name)?;
        let mut groups = None;
        for (option, value) in options {
            match *option {
                "d" | "home" => (*value).clone_into(&mut user.home),
                "s" | "shell" => (*value).clone_into(&mut user.shell),
                "G" | "groups" | "aG" => groups = Some(*value),
                "a" | "append" | "c" | "comment" | "L" | "U" => {}
                _ => return None,
            }
        }
        for group in groups.into_iter().flat_map(|groups| groups.split(',')) {
            self.declare_member(name, group);
        }
        Some(())
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
        self.adopt(&passwd?, &group?);
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
        let members = |name: &String| {
            let members: Vec<&str> =
                self.members.get(name).into_iter().flatten().map(String::as_str).collect();
            members.join(",")
        };
        let line = |(name, gid): (&String, &u32)| format!("{name}:x:{gid}:{}\n", members(name));
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
    const WITH_VALUE: [&str; 20] = [
        "home", "home-dir", "d", "uid", "u", "gid", "g", "ingroup", "shell", "s", "gecos", "c",
        "comment", "G", "groups", "aG", "add", "K", "firstuid", "lastuid",
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
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn commands_declare_accounts() {
        let mut accounts = Accounts::debian();
        let command = words("--system --home /var/lib/redis --quiet --group redis");
        let made = accounts.declare("adduser", &command).unwrap();
        assert_eq!(made.home, Some(("/var/lib/redis".to_owned(), "redis".to_owned())));
        let (uid, gid) = accounts.resolve("redis").unwrap();
        assert!(SYSTEM_IDS.contains(&uid) && uid == gid);
        assert!(accounts.passwd().contains(&format!("redis:x:{uid}:{uid}:redis:/var/lib/redis:")));
        accounts.declare("adduser", &words("redis www-data")).unwrap();
        accounts.declare("addgroup", &words("--system ssl-cert")).unwrap();
        accounts.declare("usermod", &words("-aG ssl-cert redis")).unwrap();
        assert!(accounts.group().contains("www-data:x:33:redis\n"));
        assert_eq!(accounts.groups_of("redis"), ["redis", "ssl-cert", "www-data"]);
        accounts.declare("adduser", &words("--system --no-create-home --home /x lonely")).unwrap();
        assert_eq!(accounts.resolve("lonely").unwrap().1, NO_ONE);
        assert!(accounts.declare("usermod", &words("--uid 5 redis")).is_none());
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
