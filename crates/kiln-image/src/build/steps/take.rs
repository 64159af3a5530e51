//! `copy` steps from another image of the stack.

use kiln_model::name::ComponentId;

use super::{StepError, Target, destination};
use crate::rootfs::Rootfs;
use crate::tree::{Inode, Kind, Tree};

/// What is to be copied from where.
pub(super) struct Order<'a> {
    /// The other image.
    pub(super) image: &'a ComponentId,
    /// The path in it.
    pub(super) from: &'a str,
    /// Where it goes, as for files of the stack.
    pub(super) to: &'a str,
    /// Who owns it, where not whoever does in the other image.
    pub(super) owner: &'a Option<String>,
    /// Permission bits of files, where not those in the other image.
    pub(super) mode: Option<u32>,
}

/// Copies a file, a link or a directory with all that is in it.
pub(super) fn take(root: &mut Rootfs, other: &Tree, order: &Order<'_>) -> Result<(), StepError> {
    let place = Target::new(root, "copy", order.to, order.owner.as_ref())?;
    let from = order.from.trim_matches('/').as_bytes();
    let not_there =
        || StepError::NotThere { path: order.from.to_owned(), image: order.image.clone() };
    let top = other.get(from).ok_or_else(not_there)?;
    let start = destination(&root.tree, order.from, order.to, top.is_directory());
    let start = start.strip_suffix(b"/").unwrap_or(&start);
    for visit in other.walk() {
        let Some(below) = visit.path.strip_prefix(from) else { continue };
        // The root of a whole tree has no name, and its entries no slash before theirs.
        let separated = from.is_empty() || below.is_empty() || below.starts_with(b"/");
        if !separated {
            continue;
        }
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let path = if below.is_empty() { start.to_vec() } else { [start, b"/", below].concat() };
        // A whole image goes onto the root, which is there.
        if path.is_empty() {
            continue;
        }
        place.put(&mut root.tree, &path, inode(&place, order, visit.inode)?)?;
    }
    Ok(())
}

/// The same thing, with another owner or mode where those were given.
fn inode(place: &Target<'_>, order: &Order<'_>, found: &Inode) -> Result<Inode, StepError> {
    let mut metadata = found.metadata().clone();
    if order.owner.is_some() {
        (metadata.uid, metadata.gid) = (place.uid, place.gid);
    }
    Ok(match found.kind() {
        Kind::Directory(_) => Inode::directory(metadata),
        Kind::File(content) => {
            if let Some(mode) = order.mode {
                metadata.mode = place.metadata(mode)?.mode;
            }
            Inode::file(metadata, content.clone())
        }
        Kind::Symlink(target) => Inode::symlink(metadata, target),
        Kind::Fifo => Inode::fifo(metadata),
    })
}
