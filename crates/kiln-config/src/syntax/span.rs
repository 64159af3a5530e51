//! Where a piece of source text stands: file ids, byte ranges, and the table of sources.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The number of a file in a [`Sources`] table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A half-open range of bytes, `start..end`, of one file.
///
/// Ordered by file, then start, then end, which is the order in which errors are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The file in which the range stands.
    pub file: FileId,
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Span {
    /// The range `start..end` of `file`.
    pub const fn new(file: FileId, start: u32, end: u32) -> Self {
        Self { file, start, end }
    }

    /// The smallest range that covers both; `other` is of the same file.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The empty range at the end of this one.
    #[must_use]
    pub const fn end_point(self) -> Self {
        Self { file: self.file, start: self.end, end: self.end }
    }
}

/// A position as people count it: both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in Unicode scalar values, from 1.
    pub column: u32,
}

/// One source: the name shown in messages and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    text: Arc<str>,
    /// Offsets of the starts of the lines, once a position has been asked for.
    line_starts: OnceLock<Box<[u32]>>,
}

impl Source {
    /// The path as it is shown in messages, or a description such as `--var region`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole text.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The position of the byte at `offset`; behind the end it is the end.
    pub fn position(&self, offset: u32) -> Position {
        let offset = self.floor_boundary(offset);
        let (line, start) = self.line_of(offset);
        let column = self.text[start..offset].chars().count() + 1;
        Position { line: clamp(line + 1), column: clamp(column) }
    }

    /// The line in which `offset` stands, without its line break, and the offset of its start.
    pub fn line_at(&self, offset: u32) -> (&str, u32) {
        let offset = self.floor_boundary(offset);
        let (_, start) = self.line_of(offset);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |found| offset + found);
        (self.text[start..end].trim_end_matches('\r'), clamp(start))
    }

    /// The number of the line of `offset`, from 0, and the offset of its start.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let starts = self.line_starts.get_or_init(|| {
            let breaks = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0).chain(breaks.map(|(at, _)| clamp(at + 1))).collect()
        });
        let line = starts.partition_point(|start| *start as usize <= offset).saturating_sub(1);
        (line, starts[line] as usize)
    }

    fn floor_boundary(&self, offset: u32) -> usize {
        let mut offset = (offset as usize).min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// `value` as `u32`; a text never reaches the bound, see [`Sources::MAX_FILE_BYTES`].
fn clamp(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// All texts of one run, by [`FileId`].
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// The largest text that is read, in bytes. Beyond it a file is refused, not parsed.
    pub const MAX_FILE_BYTES: usize = 64 << 20;

    /// Adds a text under the name `path` and returns its id.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: impl Into<Arc<str>>) -> FileId {
        let id = FileId(clamp(self.files.len()));
        let line_starts = OnceLock::new();
        self.files.push(Source { path: path.into(), text: text.into(), line_starts });
        id
    }

    /// The source with this id, if it is of this table.
    pub fn get(&self, file: FileId) -> Option<&Source> {
        self.files.get(file.0 as usize)
    }

    /// The text of `span`; empty if the span is not of this table.
    pub fn slice(&self, span: Span) -> &str {
        self.get(span.file)
            .and_then(|source| source.text.get(span.start as usize..span.end as usize))
            .unwrap_or_default()
    }
}
