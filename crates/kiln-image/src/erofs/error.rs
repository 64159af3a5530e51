//! Why an image could not be written.

use std::io;
use std::path::PathBuf;

use super::format::MAX_BLOCKS;
use crate::tree::ShownPath;

/// Why an image could not be written. What was written so far is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A content could not be read, or is shorter than the tree says.
    #[error(
        "cannot read the content of {entry} for the image: {length} bytes from {offset} on of {}; \
         it must stay unchanged while the image is built", path.display()
    )]
    Content {
        /// The entry in the image.
        entry: ShownPath,
        /// The file that holds its content.
        path: PathBuf,
        /// Where in it the content starts, in bytes.
        offset: u64,
        /// How many bytes were asked for.
        length: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The sink took no more.
    #[error("cannot write the image; see that its disk has room and is writable")]
    Sink {
        /// What the system said.
        source: io::Error,
    },
    /// The tree is larger than EROFS can address.
    #[error("the image would have more than {MAX_BLOCKS} blocks of 4096 bytes; leave files out")]
    TooLarge,
}
