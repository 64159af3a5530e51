//! From a layout to bytes, front to back.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::format::{BLOCK, align};
use super::layout::{Layout, Record};
use super::output::{CopyError, Output};
use super::{Options, Summary, WriteError};
use crate::tree::{Content, Kind, Tree};

/// Writes `tree` as an EROFS image to `sink`, from its current position on, without seeking.
///
/// The sink is not synced. Contents on disk are opened when their turn comes, twice each at most.
pub fn write<W: Write>(tree: &Tree, options: Options, sink: &mut W) -> Result<Summary, WriteError> {
    let layout = Layout::new(tree, options)?;
    let mut writer = Writer { layout: &layout, output: Output::new(sink), open: None };
    writer.metadata()?;
    writer.data()?;
    Ok(Summary {
        length: u64::from(layout.superblock.blocks) * BLOCK,
        inodes: layout.superblock.inodes,
        uuid: layout.superblock.uuid,
    })
}

struct Writer<'a, 'w, W> {
    layout: &'a Layout<'a>,
    output: Output<'w, W>,
    /// The content file that was opened last: neighbours often share one.
    open: Option<(Arc<Path>, File)>,
}

impl<W: Write> Writer<'_, '_, W> {
    /// The first blocks: superblock, inodes, extended attributes, inline contents.
    fn metadata(&mut self) -> Result<(), WriteError> {
        let layout = self.layout;
        let mut sealed = false;
        for record in layout.inodes() {
            self.output.pad_to(record.at);
            if !sealed && self.output.position() >= BLOCK {
                layout.superblock.seal(self.output.pending());
                sealed = true;
            }
            layout.head(record, self.output.pending());
            self.content(record, record.outside(), record.inline())?;
            if sealed {
                self.output.flush_full().map_err(sink_error)?;
            }
        }
        self.end_block();
        if !sealed {
            layout.superblock.seal(self.output.pending());
        }
        Ok(())
    }

    /// The whole blocks of directories, then of files.
    fn data(&mut self) -> Result<(), WriteError> {
        let layout = self.layout;
        for directories in [true, false] {
            for record in &layout.records {
                let here = layout.tree.inode(record.id).is_directory() == directories;
                if here && record.outside() > 0 {
                    self.content(record, 0, record.outside())?;
                    self.end_block();
                    self.output.flush_full().map_err(sink_error)?;
                }
            }
        }
        self.output.flush().map_err(sink_error)
    }

    fn end_block(&mut self) {
        self.output.pad_to(align(self.output.position(), BLOCK));
    }

    /// Puts out `length` bytes of a record's content from `from` on.
    fn content(&mut self, record: &Record, from: u64, length: u64) -> Result<(), WriteError> {
        if length == 0 {
            return Ok(());
        }
        match self.layout.tree.inode(record.id).kind() {
            Kind::Directory(_) => {
                let bytes = self.layout.directory(record);
                self.output.put(part(&bytes, from, length)).map_err(sink_error)
            }
            Kind::Symlink(target) => {
                self.output.put(part(target, from, length)).map_err(sink_error)
            }
            Kind::File(Content::Bytes(bytes)) => {
                self.output.put(part(bytes, from, length)).map_err(sink_error)
            }
            Kind::File(Content::Stored { path, offset, .. }) => {
                self.stored(record, path, offset + from, length)
            }
            Kind::Fifo => Ok(()),
        }
    }

    /// Copies from a content on disk.
    fn stored(
        &mut self,
        record: &Record,
        path: &Arc<Path>,
        offset: u64,
        length: u64,
    ) -> Result<(), WriteError> {
        let content_error = |source| WriteError::Content {
            entry: self.layout.shown(record),
            path: path.to_path_buf(),
            offset,
            length,
            source,
        };
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            self.open = Some((path.clone(), File::open(path).map_err(content_error)?));
        }
        let Some((_, file)) = &self.open else { return Ok(()) };
        self.output.copy(file, offset, length).map_err(|error| match error {
            CopyError::Read(source) => content_error(source),
            CopyError::Write(source) => sink_error(source),
        })
    }
}

/// The `length` bytes from `from` on, as far as there are so many.
fn part(bytes: &[u8], from: u64, length: u64) -> &[u8] {
    let end = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    &bytes[end(from)..end(from + length)]
}

fn sink_error(source: io::Error) -> WriteError {
    WriteError::Sink { source }
}
