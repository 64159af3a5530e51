//! What the dynamic loader wants to know of a library (elf(5)).

use std::io;
use std::os::unix::fs::FileExt;

use crate::tree::Content;

/// A shared library.
pub(super) struct Library {
    /// The name that it gives itself.
    pub(super) name: Option<String>,
    /// How glibc calls its kind: C library and machine.
    pub(super) flags: u32,
}

const SHARED: u16 = 3;
const DYNAMIC: u32 = 2;
const LOADED: u32 = 1;
const TAG_STRINGS: u64 = 5;
const TAG_NAME: u64 = 14;
/// Longest name that is read, in bytes.
const MAX_NAME_BYTES: u64 = 256;
/// Longest table that is read, in bytes.
const MAX_TABLE_BYTES: u64 = 1 << 20;

/// Reads a file; none if it is no library of a machine that is known. One whose tables lead
/// nowhere counts as none.
pub(super) fn read(content: &Content) -> io::Result<Option<Library>> {
    let Some(header) = part(content, 0, 64)? else { return Ok(None) };
    // Little endian only: no other machine has been met.
    if header[..4] != *b"\x7fELF" || header[5] != 1 || !matches!(header[4], 1 | 2) {
        return Ok(None);
    }
    let elf = Elf { content, wide: header[4] == 2 };
    let machine = number(&header[18..20]);
    let wide_at = |narrow: usize, wide: usize| if elf.wide { wide } else { narrow };
    let at = wide_at(36, 48);
    let flags = flags(machine, elf.wide, number(&header[at..at + 4]));
    let Some(flags) = flags.filter(|_| number(&header[16..18]) == u64::from(SHARED)) else {
        return Ok(None);
    };
    let table = number(if elf.wide { &header[32..40] } else { &header[28..32] });
    let at = wide_at(42, 54);
    let (size, count) = (number(&header[at..at + 2]), number(&header[at + 2..at + 4]));
    let Some(table) = part(content, table, size.saturating_mul(count))? else { return Ok(None) };
    let wanted = if elf.wide { 56 } else { 32 };
    if size != wanted {
        return Ok(None);
    }
    let segments: Vec<Segment> =
        table.chunks_exact(if elf.wide { 56 } else { 32 }).map(|raw| elf.segment(raw)).collect();
    let name = elf.name(&segments)?;
    Ok(Some(Library { name, flags }))
}

struct Elf<'a> {
    content: &'a Content,
    wide: bool,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
}

impl Elf<'_> {
    fn segment(&self, raw: &[u8]) -> Segment {
        let kind = u32::try_from(number(&raw[..4])).unwrap_or(0);
        let (offset, address, length) =
            if self.wide { (8..16, 16..24, 32..40) } else { (4..8, 8..12, 16..20) };
        let field = |range: std::ops::Range<usize>| number(&raw[range]);
        Segment { kind, offset: field(offset), address: field(address), length: field(length) }
    }

    fn name(&self, segments: &[Segment]) -> io::Result<Option<String>> {
        let Some(dynamic) = segments.iter().find(|segment| segment.kind == DYNAMIC) else {
            return Ok(None);
        };
        let Some(table) = part(self.content, dynamic.offset, dynamic.length)? else {
            return Ok(None);
        };
        let width = if self.wide { 8 } else { 4 };
        let tagged = |wanted: u64| {
            let mut entries = table.chunks_exact(2 * width);
            let found = entries.find(|entry| number(&entry[..width]) == wanted)?;
            Some(number(&found[width..]))
        };
        let Some((strings, name)) = tagged(TAG_STRINGS).zip(tagged(TAG_NAME)) else {
            return Ok(None);
        };
        // The table of strings is named by its address in memory.
        let loaded = segments.iter().find(|segment| {
            segment.kind == LOADED
                && (segment.address..segment.address.saturating_add(segment.length))
                    .contains(&strings)
        });
        let Some(loaded) = loaded else { return Ok(None) };
        let start = (strings - loaded.address).saturating_add(loaded.offset).saturating_add(name);
        let length = MAX_NAME_BYTES.min(self.content.len().saturating_sub(start));
        let Some(bytes) = part(self.content, start, length)? else { return Ok(None) };
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let name =
            str::from_utf8(bytes).ok().filter(|name| !name.is_empty() && !name.contains('/'));
        Ok(name.map(str::to_owned))
    }
}

/// How glibc calls a machine's libraries (`sysdeps/generic/ldconfig.h`).
fn flags(machine: u64, wide: bool, own: u64) -> Option<u32> {
    const LIBC6: u32 = 3;
    Some(
        LIBC6
            | match (machine, wide) {
                (3, false) => 0,
                (62, true) => 0x0300,
                (62, false) => 0x0800,
                (183, true) => 0x0a00,
                (40, false) if own & 0x400 != 0 => 0x0900,
                (40, false) => 0x0b00,
                (21, true) => 0x0500,
                (243, true) if own & 6 == 4 => 0x1000,
                _ => return None,
            },
    )
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Some bytes of a file; none if it has not so many.
fn part(content: &Content, offset: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
    let end = offset.checked_add(length);
    if length > MAX_TABLE_BYTES || end.is_none_or(|end| end > content.len()) {
        return Ok(None);
    }
    let (start, size) = (usize::try_from(offset), usize::try_from(length));
    let (Ok(start), Ok(size)) = (start, size) else { return Ok(None) };
    match content {
        Content::Bytes(bytes) => Ok(Some(bytes[start..start + size].to_vec())),
        Content::Stored { path, offset: from, .. } => {
            let mut bytes = vec![0; size];
            std::fs::File::open(path)?.read_exact_at(&mut bytes, from + offset)?;
            Ok(Some(bytes))
        }
    }
}
