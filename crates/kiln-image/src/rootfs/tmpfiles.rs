//! Directories, files and links that packages declare in `tmpfiles.d` (tmpfiles.d(5)).
//!
//! What is below `/run`, `/tmp` and the like is left to instances, which start with these empty
//! or with writable space in their place.

use super::accounts::Accounts;
use super::{RootfsError, conf};
use crate::tree::{Inode, Metadata, Tree, TreeError};

const DIRECTORIES: [&str; 2] = ["usr/lib/tmpfiles.d", "etc/tmpfiles.d"];

/// Places whose content an instance brings.
const FLEETING: [&str; 8] =
    ["/run", "/var/run", "/var/lock", "/tmp", "/var/tmp", "/dev", "/proc", "/sys"];

/// One line.
struct Line<'a> {
    kind: char,
    /// Whether what is there is replaced: `L+`, `f+`.
    replaces: bool,
    path: String,
    mode: Option<&'a str>,
    user: Option<&'a str>,
    group: Option<&'a str>,
    argument: Option<String>,
}

/// Makes what `systemd-tmpfiles --create` would make in an image that does not run.
pub(super) fn create(tree: &mut Tree, accounts: &Accounts) -> Result<(), RootfsError> {
    let lines = conf::lines(tree, &DIRECTORIES)?;
    let mut lines: Vec<Line<'_>> = lines.iter().filter_map(|line| read(line)).collect();
    // A directory comes before what is in it, whatever file declares it.
    lines.sort_by(|a, b| a.path.cmp(&b.path));
    for line in &lines {
        // What does not fit (a file where a directory is declared) stays as its package has it.
        match create_one(tree, accounts, line) {
            Ok(()) | Err(TreeError::NotADirectory { .. } | TreeError::IsADirectory { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads the line, if it is about something in an image.
fn read(fields: &[String]) -> Option<Line<'_>> {
    let [kind, path, rest @ ..] = fields else { return None };
    let letter = kind.chars().next()?;
    let given = |at: usize| rest.get(at).map(String::as_str).filter(|text| *text != "-");
    let path = expand(path)?;
    let below = |place: &str| {
        path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let fleeting = FLEETING.iter().any(|place| below(place));
    // A pattern names what others made; an unclean path names nothing.
    let plain = path.starts_with('/')
        && !path.contains(['*', '?', '['])
        && !path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
    if fleeting || !plain || !"dDvqQefFLCzZmp".contains(letter) {
        return None;
    }
    Some(Line {
        kind: letter,
        replaces: kind.contains('+'),
        argument: rest.get(4..).filter(|rest| !rest.is_empty()).map(|rest| rest.join(" ")),
        mode: given(0),
        user: given(1),
        group: given(2),
        path,
    })
}

/// Puts in specifiers; none if one depends on the machine.
fn expand(text: &str) -> Option<String> {
    let mut expanded = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            expanded.push(letter);
            continue;
        }
        expanded.push_str(match letters.next()? {
            '%' => "%",
            'C' => "/var/cache",
            'L' => "/var/log",
            'S' => "/var/lib",
            't' => "/run",
            'T' => "/tmp",
            'V' => "/var/tmp",
            'h' => "/root",
            'u' | 'U' | 'g' | 'G' => "root",
            _ => return None,
        });
    }
    Some(expanded)
}

fn create_one(tree: &mut Tree, accounts: &Accounts, line: &Line<'_>) -> Result<(), TreeError> {
    let path = line.path.as_str();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let there = tree.get(path).map(|inode| inode.metadata().clone());
    match (line.kind, &there) {
        ('d' | 'D' | 'v' | 'q' | 'Q', _) => {
            tree.make_directories(path, &Metadata::new(0o755))?;
            let old = there.unwrap_or_else(|| Metadata::new(0o755));
            adjust(tree, accounts, line, old)
        }
        ('e' | 'z' | 'Z' | 'm', Some(old)) => adjust(tree, accounts, line, old.clone()),
        ('f' | 'F', _) if there.is_none() || line.replaces || line.kind == 'F' => {
            tree.make_directories(parent, &Metadata::new(0o755))?;
            let text = line.argument.clone().unwrap_or_default();
            tree.replace(path, Inode::file(Metadata::new(0o644), text.into_bytes()))?;
            adjust(tree, accounts, line, Metadata::new(0o644))
        }
        ('L', _) if there.is_none() || line.replaces => {
            let target = line.argument.clone().and_then(|argument| expand(&argument));
            let target = target.unwrap_or_else(|| format!("../usr/share/factory{path}"));
            if target.starts_with("../usr/share/factory")
                && tree.resolve(format!("usr/share/factory{path}")).is_err()
            {
                return Ok(());
            }
            tree.make_directories(parent, &Metadata::new(0o755))?;
            tree.replace(path, Inode::symlink(Metadata::new(0o777), target)).map(drop)
        }
        ('C', None) => {
            let source = line.argument.clone().and_then(|argument| expand(&argument));
            let source = source.unwrap_or_else(|| format!("/usr/share/factory{path}"));
            let Some(content) = tree.resolve(&source).ok().and_then(Inode::content).cloned() else {
                return Ok(());
            };
            tree.make_directories(parent, &Metadata::new(0o755))?;
            tree.replace(path, Inode::file(Metadata::new(0o644), content))?;
            adjust(tree, accounts, line, Metadata::new(0o644))
        }
        ('p', None) => {
            tree.make_directories(parent, &Metadata::new(0o755))?;
            tree.insert(path, Inode::fifo(Metadata::new(0o644)))?;
            adjust(tree, accounts, line, Metadata::new(0o644))
        }
        _ => Ok(()),
    }
}

/// Gives what is at the path the owner and mode of the line, as far as it names them.
fn adjust(
    tree: &mut Tree,
    accounts: &Accounts,
    line: &Line<'_>,
    mut metadata: Metadata,
) -> Result<(), TreeError> {
    let directory = tree.get(&line.path).is_some_and(Inode::is_directory);
    let digits = line.mode.map(|mode| mode.trim_start_matches(['~', ':']));
    if let Some(mode) = digits.and_then(|digits| u16::from_str_radix(digits, 8).ok()) {
        metadata.mode = if directory { mode & 0o7777 } else { mode & 0o1777 };
    }
    // An account that is not there is one of a package that is not there.
    if let Some(user) = line.user.map(|user| user.trim_start_matches(':'))
        && let Ok((uid, _)) = accounts.resolve(user)
    {
        metadata.uid = uid;
    }
    if let Some(group) = line.group.map(|group| group.trim_start_matches(':'))
        && let Ok((_, gid)) = accounts.resolve(&format!("0:{group}"))
    {
        metadata.gid = gid;
    }
    if tree
        .get(&line.path)
        .is_some_and(|inode| matches!(inode.kind(), crate::tree::Kind::Symlink(_)))
    {
        return Ok(());
    }
    tree.set_metadata(&line.path, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_an_image_is_made() {
        let mut tree = Tree::new();
        tree.make_directories("usr/lib/tmpfiles.d", &Metadata::new(0o755)).unwrap();
        tree.make_directories("etc/tmpfiles.d", &Metadata::new(0o755)).unwrap();
        let mut put = |path: &str, text: &str| {
            let file = Inode::file(Metadata::new(0o644), text.as_bytes().to_vec());
            tree.replace(path, file).unwrap();
        };
        put(
            "usr/lib/tmpfiles.d/a.conf",
            "d /var/lib/a 0750 www-data adm -\nf /var/lib/a/x 0600 - - - one\\ntwo\n\
             L /etc/a - - - - /usr/lib/a\nd /run/a\nd %S/b\nd /var/%m\nr! /var/lib/*\n",
        );
        put("usr/lib/tmpfiles.d/b.conf", "d /var/lib/hidden\n");
        put("etc/tmpfiles.d/b.conf", "d /var/lib/shown 2775 root nobody-knows\n");
        create(&mut tree, &Accounts::debian()).unwrap();
        let a = tree.get("var/lib/a").unwrap().metadata();
        assert_eq!((a.mode, a.uid, a.gid), (0o750, 33, 4));
        let x = tree.get("var/lib/a/x").unwrap();
        assert_eq!(x.content().unwrap().read().unwrap(), b"one\ntwo");
        assert!(tree.get("etc/a").is_some() && tree.get("var/lib/b").is_some());
        assert_eq!(tree.get("var/lib/shown").unwrap().metadata().mode, 0o2775);
        assert!(tree.get("run").is_none() && tree.get("var/lib/hidden").is_none());
    }
}
