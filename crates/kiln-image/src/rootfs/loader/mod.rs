//! The cache of the dynamic loader, `/etc/ld.so.cache`.
//!
//! The loader of Debian's glibc has the usual directories built in. Others, which packages name in
//! `/etc/ld.so.conf.d`, it finds only through the cache. So the cache is written where there are
//! such, with the libraries in them alone: for all else the loader looks itself.
//!
//! The form is that of glibc (`sysdeps/generic/dl-cache.h`, since 2.2): a header, entries of flags,
//! name and path, sorted by name from the last to the first, and a table of strings.

mod elf;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::{RootfsError, conf};
use crate::tree::{Inode, Kind, Metadata, Tree};

/// Where the dynamic loader looks by itself, together with the multiarch directories below the
/// first two.
const BUILT_IN: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];
/// Longest list of directories.
const MAX_DIRECTORIES: usize = 256;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;
const LITTLE_ENDIAN: u8 = 2;

/// One library.
struct Library {
    /// The name by which programs ask for it.
    name: String,
    path: String,
    flags: u32,
}

/// Writes the cache, if a directory needs it.
pub(super) fn write_cache(tree: &mut Tree) -> Result<(), RootfsError> {
    let directories = directories(tree)?;
    let mut libraries = Vec::new();
    for (position, directory) in directories.iter().enumerate() {
        if is_built_in(directory) {
            continue;
        }
        // What stands in a directory that is named before is found there.
        let earlier: Vec<&String> =
            directories[..position].iter().filter(|d| is_built_in(d)).collect();
        let shadowed = |tree: &Tree, name: &str| {
            earlier.iter().any(|directory| tree.resolve(format!("{directory}/{name}")).is_ok())
        };
        for library in libraries_in(tree, directory)? {
            if !shadowed(tree, &library.name) {
                libraries.push(library);
            }
        }
    }
    if libraries.is_empty() {
        return Ok(());
    }
    libraries.sort_by(|a, b| compare(&b.name, &a.name).then(b.flags.cmp(&a.flags)));
    let file = Inode::file(Metadata::new(0o644), encode(&libraries));
    tree.replace("etc/ld.so.cache", file)?;
    Ok(())
}

fn is_built_in(directory: &str) -> bool {
    BUILT_IN.iter().any(|known| {
        directory.strip_prefix(known).is_some_and(|rest| {
            rest.is_empty() || (!rest[1..].contains('/') && rest.contains("-linux-gnu"))
        })
    })
}

/// The directories that `/etc/ld.so.conf` and what it includes name, in order.
fn directories(tree: &Tree) -> Result<Vec<String>, RootfsError> {
    let mut texts: Vec<String> = Vec::new();
    // The only file that Debian's one includes is what is in the directory.
    texts.extend(conf::text_files(tree, "etc")?.remove("ld.so.conf"));
    let included = conf::text_files(tree, "etc/ld.so.conf.d")?;
    texts
        .extend(included.into_iter().filter(|(name, _)| conf::is_conf(name)).map(|(_, text)| text));
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim().trim_end_matches('/');
        let there = line.starts_with('/') && tree.resolve(line).is_ok_and(Inode::is_directory);
        if there && seen.insert(line.to_owned()) && found.len() < MAX_DIRECTORIES {
            found.push(line.to_owned());
        }
    }
    Ok(found)
}

/// The libraries in a directory. One without a link of the name by which programs ask for it
/// gets one, as ldconfig(8) makes it.
fn libraries_in(tree: &mut Tree, directory: &str) -> Result<Vec<Library>, RootfsError> {
    let Ok(Kind::Directory(children)) = tree.resolve(directory).map(Inode::kind) else {
        return Ok(Vec::new());
    };
    let is_library =
        |name: &str| (name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so");
    let names: Vec<String> = children
        .iter()
        .filter_map(|(name, _)| str::from_utf8(name).ok())
        .filter(|name| is_library(name))
        .map(str::to_owned)
        .collect();
    let mut libraries = Vec::new();
    let mut seen = BTreeSet::new();
    for file in names {
        let path = format!("{directory}/{file}");
        let Some(content) = tree.resolve(&path).ok().and_then(Inode::content).cloned() else {
            continue;
        };
        let read = elf::read(&content)
            .map_err(|source| RootfsError::Content { path: path.clone(), source })?;
        let Some(elf::Library { name, flags }) = read else { continue };
        let name = name.unwrap_or_else(|| file.clone());
        if !seen.insert((name.clone(), flags)) {
            continue;
        }
        let wanted = format!("{directory}/{name}");
        if tree.resolve(&wanted).is_err() && tree.get(&wanted).is_none() {
            tree.insert(&wanted, Inode::symlink(Metadata::new(0o777), &file))?;
        }
        libraries.push(Library { name, path: wanted, flags });
    }
    Ok(libraries)
}

/// The order of names in the cache: stretches of digits by their value, which come after all
/// else; the loader searches by halves, so that it must be exactly this one.
fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    loop {
        match (left.first(), right.first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(l), Some(r)) => match (l.is_ascii_digit(), r.is_ascii_digit()) {
                (true, true) => {
                    let order = number(&mut left).cmp(&number(&mut right));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                (true, false) => return Ordering::Greater,
                (false, true) => return Ordering::Less,
                (false, false) if l != r => return l.cmp(r),
                (false, false) => (left, right) = (&left[1..], &right[1..]),
            },
        }
    }
}

/// Takes a number off the front.
fn number(bytes: &mut &[u8]) -> u64 {
    let length = bytes.iter().take_while(|c| c.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(length);
    *bytes = rest;
    digits.iter().fold(0, |n: u64, digit| n.wrapping_mul(10) + u64::from(digit - b'0'))
}

fn encode(libraries: &[Library]) -> Vec<u8> {
    let mut strings = Vec::new();
    let mut entries = Vec::new();
    let start = HEADER_BYTES + ENTRY_BYTES * libraries.len();
    // Places in the table of strings count from the start of the file.
    let mut place = |text: &str| {
        let at = u32::try_from(start + strings.len()).unwrap_or(u32::MAX);
        strings.extend(text.as_bytes());
        strings.push(0);
        at.to_le_bytes()
    };
    for library in libraries {
        entries.extend(library.flags.to_le_bytes());
        entries.extend(place(&library.name));
        entries.extend(place(&library.path));
        // Version of the system and capabilities of the processor: none is asked for.
        entries.extend([0; 12]);
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::try_from(libraries.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(u32::try_from(strings.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.push(LITTLE_ENDIAN);
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(entries);
    bytes.extend(strings);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_the_loader_searches() {
        for (lower, higher) in [
            ("liba.so.1", "liba.so.2"),
            ("liba.so.9", "liba.so.10"),
            ("liba-x", "liba1"),
            ("a", "b"),
        ] {
            assert_eq!(compare(lower, higher), Ordering::Less, "{lower} {higher}");
            assert_eq!(compare(higher, lower), Ordering::Greater, "{lower} {higher}");
        }
    }

    #[test]
    fn the_usual_directories_need_no_cache() {
        for directory in ["/lib", "/usr/lib/x86_64-linux-gnu", "/lib/arm-linux-gnueabihf"] {
            assert!(is_built_in(directory), "{directory}");
        }
        for directory in ["/usr/local/lib", "/opt/x/lib", "/usr/lib/x86_64-linux-gnu/x"] {
            assert!(!is_built_in(directory), "{directory}");
        }
    }

    #[test]
    fn ldconfig_reads_it() {
        let listed = |path: &std::path::Path| {
            std::process::Command::new("/sbin/ldconfig").arg("-p").arg("-C").arg(path).output()
        };
        let library = |name: &str| Library {
            name: name.to_owned(),
            path: format!("/opt/lib/{name}"),
            flags: 0x0303,
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        std::fs::write(&path, encode(&[library("libb.so.1"), library("liba.so.2")])).unwrap();
        match listed(&path) {
            Err(error) => println!("skipped: ldconfig_reads_it: {error}"),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(text.starts_with("2 libs found"), "{text}");
                assert!(text.contains("liba.so.2 (libc6,x86-64) => /opt/lib/liba.so.2"), "{text}");
            }
        }
    }
}
