//! What an image itself says of its packages: who maintains them, and under which licences they
//! are.

use std::collections::BTreeMap;

use super::licence::{self, Licence};
use crate::debian::control::stanzas;
use crate::erofs::read::{Entry, EntryKind, Image, ReadError};

/// How many links are followed to a copyright file.
const MAX_LINKS: usize = 4;

/// What an image says of one package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// `NAME <EMAIL>`, as Debian writes it.
    pub(super) maintainer: Option<String>,
    /// Where the program is at home.
    pub(super) homepage: Option<String>,
    /// What its copyright file says.
    pub(super) licence: Licence,
}

/// What an image says of each of its packages, by name.
pub(super) fn of(image: &Image) -> Result<BTreeMap<String, About>, ReadError> {
    let mut found = BTreeMap::new();
    let Some(status) = image.find("var/lib/dpkg/status")?.filter(is_file) else {
        return Ok(found);
    };
    let text = String::from_utf8_lossy(&image.content(&status)?).into_owned();
    // A list that can't be read on ends here: the rest is not known.
    for stanza in stanzas(&text).map_while(Result::ok) {
        let Some(name) = stanza.get("Package") else { continue };
        let owned = |field| stanza.get(field).map(str::to_owned);
        let copyright = copyright(image, name)?;
        let about = About {
            maintainer: owned("Maintainer"),
            homepage: owned("Homepage"),
            licence: copyright.map(|text| licence::of(&text)).unwrap_or_default(),
        };
        found.insert(name.to_owned(), about);
    }
    Ok(found)
}

/// A package's copyright file. Packages of one source share theirs by a link.
fn copyright(image: &Image, package: &str) -> Result<Option<String>, ReadError> {
    let mut directory = package.to_owned();
    for _ in 0..MAX_LINKS {
        let base = format!("usr/share/doc/{directory}");
        let (path, entry) = match image.find(&base)? {
            Some(entry) if matches!(entry.kind, EntryKind::Symlink(_)) => (base, Some(entry)),
            _ => {
                let path = format!("{base}/copyright");
                let entry = image.find(&path)?;
                (path, entry)
            }
        };
        let Some(entry) = entry else { return Ok(None) };
        if is_file(&entry) {
            return Ok(Some(String::from_utf8_lossy(&image.content(&entry)?).into_owned()));
        }
        let EntryKind::Symlink(target) = &entry.kind else { return Ok(None) };
        // `../other/copyright`, `other`, `/usr/share/doc/other`: the package is what counts.
        let target = String::from_utf8_lossy(target).into_owned();
        let target = target.trim_end_matches("/copyright");
        let next = target.rsplit('/').next().unwrap_or_default();
        if next.is_empty() || next == ".." || path.ends_with(&format!("/{next}")) {
            return Ok(None);
        }
        next.clone_into(&mut directory);
    }
    Ok(None)
}

fn is_file(entry: &Entry) -> bool {
    entry.kind == EntryKind::File
}
