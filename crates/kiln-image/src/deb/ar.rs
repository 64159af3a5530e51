//! The outer archive of a package, in the common `ar` format of deb(5).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;
/// A package has three members; a few more are allowed by the format.
const MAX_MEMBERS: usize = 16;

/// One file of the archive.
pub(super) struct Member {
    pub(super) name: String,
    offset: u64,
    pub(super) length: u64,
}

impl Member {
    /// Reads the member's bytes without moving the file's own position.
    pub(super) fn reader<'a>(&self, file: &'a File) -> impl Read + use<'a> {
        MemberReader { file, position: self.offset, end: self.offset + self.length }
    }
}

struct MemberReader<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl Read for MemberReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// Lists the members. An error is what is wrong with the archive.
pub(super) fn members(file: &File) -> Result<Vec<Member>, String> {
    let whole = file.metadata().map_err(|error| error.to_string())?.len();
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0).map_err(|_| "it is too short")?;
    if magic != *MAGIC {
        return Err("it is no ar archive".into());
    }
    let mut members = Vec::new();
    let mut offset = MAGIC.len() as u64;
    while offset < whole {
        if members.len() == MAX_MEMBERS {
            return Err("it has too many members".into());
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, offset).map_err(|_| "it is cut short")?;
        if &header[58..] != b"`\n" {
            return Err("a member's header is damaged".into());
        }
        let text = |range| str::from_utf8(&header[range]).unwrap_or_default().trim_end();
        let name = text(0..16).trim_end_matches('/').to_owned();
        let length: u64 = text(48..58).parse().map_err(|_| "a member's length is damaged")?;
        offset += HEADER_BYTES as u64;
        if length > whole - offset {
            return Err("it is cut short".into());
        }
        members.push(Member { name, offset, length });
        // Members start at even offsets.
        offset += length + length % 2;
    }
    if members.first().is_none_or(|first| first.name != "debian-binary") {
        return Err("its first member is not `debian-binary`".into());
    }
    Ok(members)
}
