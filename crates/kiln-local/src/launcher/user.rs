//! Who the program runs as: names looked up in the image's own /etc/passwd and /etc/group.
//!
//! Formats: passwd(5) and group(5).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// The longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The ids a program runs with, as the image numbers them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Further groups that the user is a member of.
    pub(crate) groups: Vec<u32>,
}

/// Looks `user` (`name`, `uid`, `name:group`, `uid:gid` or empty) up in the tree under `root`.
pub(crate) fn resolve(root: impl AsFd, user: &str) -> Result<Identity, String> {
    if user.is_empty() {
        return Ok(Identity::default());
    }
    if let Some(identity) = numeric(user) {
        return Ok(identity);
    }
    let passwd = read_in(&root, "etc/passwd").map_err(|error| unreadable("/etc/passwd", &error))?;
    let group = match read_in(&root, "etc/group") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unreadable("/etc/group", &error));
        }
        text => text.unwrap_or_default(),
    };
    look_up(user, &passwd, &group)
}

fn unreadable(path: &str, error: &io::Error) -> String {
    format!("cannot read {path} of the image: {error}")
}

/// `uid:gid`, for which no file is needed.
fn numeric(user: &str) -> Option<Identity> {
    let (uid, gid) = user.split_once(':')?;
    Some(Identity { uid: uid.parse().ok()?, gid: gid.parse().ok()?, groups: Vec::new() })
}

fn read_in(root: impl AsFd, path: &str) -> io::Result<String> {
    // Links may lead anywhere inside the image, and nowhere outside it.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    let mut text = String::new();
    File::from(fd).take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn look_up(user: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let entry = records(passwd)
        .find(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name));
    let uid = match &entry {
        Some(fields) => field(fields, 2),
        None => name.parse().ok(),
    };
    let uid = uid.ok_or_else(|| {
        format!("user `{name}` is not in /etc/passwd of the image; add it there, or use a number")
    })?;
    let gid = match group_name {
        Some(wanted) => group_id(wanted, group)?,
        None => entry.as_ref().and_then(|fields| field(fields, 3)).unwrap_or(0),
    };
    let login = entry.as_ref().and_then(|fields| fields.first().copied());
    let groups = login.map(|login| memberships(login, group)).unwrap_or_default();
    Ok(Identity { uid, gid, groups })
}

fn group_id(wanted: &str, group: &str) -> Result<u32, String> {
    records(group)
        .find(|fields| fields.first() == Some(&wanted))
        .and_then(|fields| field(&fields, 2))
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| {
            format!(
                "group `{wanted}` is not in /etc/group of the image; add it there, or use a number"
            )
        })
}

fn memberships(login: &str, group: &str) -> Vec<u32> {
    records(group)
        .filter(|fields| {
            fields.get(3).is_some_and(|members| members.split(',').any(|member| member == login))
        })
        .filter_map(|fields| field(&fields, 2))
        .collect()
}

fn records(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
}

fn field(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:4:adm,www\n";

    #[test]
    fn names_and_numbers_are_looked_up() {
        let identity = |uid, gid, groups: &[u32]| Identity { uid, gid, groups: groups.to_vec() };
        for (user, expected) in [
            ("www", identity(33, 34, &[4])),
            ("33", identity(33, 34, &[4])),
            ("www:logs", identity(33, 4, &[4])),
            ("1000", identity(1000, 0, &[])),
            ("1000:logs", identity(1000, 4, &[])),
        ] {
            assert_eq!(look_up(user, PASSWD, GROUP), Ok(expected), "{user}");
        }
        assert_eq!(numeric("7:8"), Some(identity(7, 8, &[])));
    }

    #[test]
    fn unknown_names_are_errors_that_name_them() {
        assert!(look_up("nobody", PASSWD, GROUP).unwrap_err().contains("`nobody`"));
        assert!(look_up("www:nogroup", PASSWD, GROUP).unwrap_err().contains("`nogroup`"));
    }
}
