//! Layers: what an image is made of where it travels.
//!
//! A layer is a tar archive of what differs from the layers below it (OCI image specification,
//! `layer.md`). [`write()`] makes one of a [`Tree`](crate::tree::Tree), [`unpack`] reads one back, and
//! [`apply()`] lays it over a tree; of what was written here, all three together give the very tree
//! again. Layers come from outside too, so that each length is bounded, and what has no place in an
//! image is refused by name.

mod apply;
mod archive;
mod compression;
mod diff;
mod gzip;
mod pax;
mod write;

use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;

use crate::tree::{ShownPath, TreeError};

pub use apply::{Notes, apply, apply_rootfs};
pub use compression::{Unpacked, unpack};
pub use diff::{Change, changes, everything};
pub use gzip::Gzip;
pub use write::write;

/// The longest archive that is unpacked, in bytes.
pub const MAX_UNPACKED_BYTES: u64 = 64 << 30;
/// How many times its packed length a layer may unpack to, beyond the first [`FREE_BYTES`].
/// Programs and data pack to a tenth at best, bombs to a thousandth.
pub const MAX_RATIO: u64 = 200;
/// What any layer may unpack to, in bytes.
pub const FREE_BYTES: u64 = 64 << 20;
/// How many entries one layer may have.
pub const MAX_ENTRIES: usize = 2_000_000;

/// The names of whiteouts begin with this.
const WHITEOUT: &[u8] = b".wh.";
/// The whiteout of all that is below in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A layer that can't be read or written. Each names the layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A file can't be read or written.
    #[error("can't read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is cut off, or its bytes make no sense.
    #[error("{layer} is damaged; fetch it again")]
    Damaged {
        /// The layer.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// The packed bytes are others than its name says.
    #[error("{layer} has the checksum {found}: it was altered; fetch it again")]
    Altered {
        /// The layer.
        layer: String,
        /// What it sums to.
        found: Digest,
    },
    /// The unpacked bytes are others than the configuration says.
    #[error("{layer} unpacks to {found}, but the image's configuration says {expected}")]
    Content {
        /// The layer.
        layer: String,
        /// What the configuration says.
        expected: Digest,
        /// What it unpacks to.
        found: Digest,
    },
    /// It unpacks to more than it may.
    #[error("{layer} unpacks to more than {limit_bytes} bytes and is refused")]
    TooLarge {
        /// The layer.
        layer: String,
        /// The bound in bytes.
        limit_bytes: u64,
    },
    /// It has more entries than it may.
    #[error("{layer} has more than {MAX_ENTRIES} entries and is refused")]
    TooMany {
        /// The layer.
        layer: String,
    },
    /// An entry has no place in an image.
    #[error("{layer}: {what} of {entry} has no place in an image")]
    Forbidden {
        /// The layer.
        layer: String,
        /// What is forbidden.
        what: &'static str,
        /// The entry.
        entry: ShownPath,
    },
    /// An entry does not fit into the tree.
    #[error("{layer}: {entry} can't be put into the image")]
    Place {
        /// The layer.
        layer: String,
        /// The entry.
        entry: ShownPath,
        /// Why.
        source: TreeError,
    },
    /// A file of the image has a name that a layer can't hold.
    #[error("{entry} can't be put into a layer, where names that begin with .wh. mean removals")]
    Name {
        /// The entry.
        entry: ShownPath,
    },
    /// A file of the image can't be read.
    #[error("can't read the content of {entry}")]
    Read {
        /// The entry.
        entry: ShownPath,
        /// Why.
        source: io::Error,
    },
    /// The layer can't be written.
    #[error("the layer can't be written")]
    Sink(#[source] io::Error),
}
