//! Accounts of the image that another one is built on: its files stay as they are, line by line,
//! but for those whose accounts are made anew.

use std::collections::BTreeMap;
use std::io;

use super::{Accounts, User};
use crate::tree::Tree;

/// The longest file of accounts that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The files as they were.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    passwd: String,
    group: String,
}

impl Accounts {
    /// The accounts that a tree has in `/etc/passwd` and `/etc/group`; none where these are missing.
    pub(in crate::rootfs) fn of_tree(tree: &Tree) -> Result<Self, (String, io::Error)> {
        let read = |path: &str| -> Result<String, (String, io::Error)> {
            let content = tree.resolve(path).ok().and_then(|inode| inode.content().cloned());
            let Some(content) = content else { return Ok(String::new()) };
            if content.len() > MAX_FILE_BYTES {
                let error = io::Error::other("it is too long for a list of accounts");
                return Err((path.to_owned(), error));
            }
            let bytes = content.read().map_err(|source| (path.to_owned(), source))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let files = Files { passwd: read("etc/passwd")?, group: read("etc/group")? };
        let (users, groups) = (files.users(), files.groups());
        Ok(Self { users, groups, inherited: Some(files), ..Self::default() })
    }

    /// The group that a user's number has in the inherited file; 0 where it has none, as other
    /// programs have it.
    pub fn group_of(&self, uid: u32) -> u32 {
        self.users.values().find(|user| user.uid == uid).map_or(0, |user| user.gid)
    }

    /// Whether there is an account that the inherited files do not have.
    pub(in crate::rootfs) fn has_news(&self) -> bool {
        self.inherited.is_none() || self.new_users().count() + self.new_groups().count() > 0
    }

    pub(super) fn new_users(&self) -> impl Iterator<Item = (&String, &User)> {
        let old = self.inherited.as_ref().map(Files::users).unwrap_or_default();
        self.users.iter().filter(move |(name, user)| old.get(*name) != Some(*user))
    }

    pub(super) fn new_groups(&self) -> impl Iterator<Item = (&String, &u32)> {
        let old = self.inherited.as_ref().map(Files::groups).unwrap_or_default();
        self.groups.iter().filter(move |(name, gid)| old.get(*name) != Some(*gid))
    }

    /// The inherited lines of users that are as they were.
    pub(super) fn kept_users(&self) -> String {
        let new: Vec<&String> = self.new_users().map(|(name, _)| name).collect();
        kept(self.inherited.as_ref().map_or("", |files| &files.passwd), &new)
    }

    /// The inherited lines of groups that are as they were.
    pub(super) fn kept_groups(&self) -> String {
        let new: Vec<&String> = self.new_groups().map(|(name, _)| name).collect();
        kept(self.inherited.as_ref().map_or("", |files| &files.group), &new)
    }
}

impl Files {
    /// `NAME:PASSWORD:UID:GID:TEXT:HOME:SHELL`, of several with a name the first (passwd(5)).
    fn users(&self) -> BTreeMap<String, User> {
        let mut users = BTreeMap::new();
        for line in self.passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = fields[..] else { continue };
            if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) {
                let (home, shell) = (home.to_owned(), shell.to_owned());
                users.entry(name.to_owned()).or_insert(User { uid, gid, home, shell });
            }
        }
        users
    }

    /// `NAME:PASSWORD:GID:MEMBERS` (group(5)).
    fn groups(&self) -> BTreeMap<String, u32> {
        let mut groups = BTreeMap::new();
        for line in self.group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, gid, ..] = fields[..]
                && let Ok(gid) = gid.parse()
            {
                groups.entry(name.to_owned()).or_insert(gid);
            }
        }
        groups
    }
}

/// The lines of a file but for those of some names, each with its end.
fn kept(text: &str, without: &[&String]) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let name = line.split(':').next().unwrap_or_default();
        if !without.iter().any(|other| *other == name) {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Inode, Metadata};

    #[test]
    fn inherited_lines_stay_as_they_are() {
        let mut tree = Tree::new();
        tree.make_directories("etc", &Metadata::new(0o755)).unwrap();
        let passwd = "root:*:0:0:Mother:/root:/bin/ash\napp:!:5:7::/:/bin/sh\n+nis\n";
        let group = "root:x:0:root,app\nstaff:x:7:app\n";
        for (path, text) in [("etc/passwd", passwd), ("etc/group", group)] {
            let file = Inode::file(Metadata::new(0o644), text.as_bytes().to_vec());
            tree.insert(path, file).unwrap();
        }
        let mut accounts = Accounts::of_tree(&tree).unwrap();
        assert!(!accounts.has_news());
        assert_eq!((accounts.passwd(), accounts.group()), (passwd.to_owned(), group.to_owned()));
        assert_eq!(accounts.resolve("app").unwrap(), (5, 7));
        assert_eq!((accounts.group_of(5), accounts.group_of(6)), (7, 0));
        accounts.add("new", None, None).unwrap();
        assert!(accounts.has_news() && accounts.passwd().starts_with(passwd));
        assert!(
            accounts.passwd().ends_with("new:x:1000:1000:new:/nonexistent:/usr/sbin/nologin\n")
        );
        assert_eq!(accounts.group(), format!("{group}new:x:1000:\n"));
        accounts.add("app", Some(9), None).unwrap();
        assert!(!accounts.passwd().contains("app:!:5"));
    }

    #[test]
    fn a_tree_without_accounts_gets_those_that_are_added() {
        let mut accounts = Accounts::of_tree(&Tree::new()).unwrap();
        assert!(!accounts.has_news() && accounts.passwd().is_empty());
        accounts.add("app", None, None).unwrap();
        assert!(accounts.has_news() && accounts.group().starts_with("app:x:1000:"));
    }
}
