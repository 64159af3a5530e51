//! The files of PostgreSQL's log of changes ("WAL"): their names, and what stands at their beginning.
//!
//! Formats: `xlog_internal.h` of PostgreSQL 13 to 17, with segments of 16 MiB.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a segment.
pub const SIZE: u64 = 16 << 20;
/// Segments of one number in the middle of a name.
const IN_LOG: u64 = (1 << 32) / SIZE;
/// Says that the header of a page is a long one.
const LONG_HEADER: u16 = 2;

/// The log from one position to the next multiple of [`SIZE`], on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The number of the timeline; a promotion begins a new one.
    pub timeline: u32,
    /// Its number: the position of its first byte, divided by [`SIZE`].
    pub number: u64,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, number } = self;
        write!(f, "{timeline:08X}{:08X}{:08X}", number / IN_LOG, number % IN_LOG)
    }
}

/// A text that is no name of a file of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no file of the log")]
pub struct NoLogFile(String);

impl FromStr for Segment {
    type Err = NoLogFile;

    fn from_str(text: &str) -> Result<Self, NoLogFile> {
        let number = |from: usize| {
            let part = text.get(from..from + 8)?;
            let fits = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
            part.bytes().all(fits).then(|| u32::from_str_radix(part, 16).ok())?
        };
        let parts = (text.len() == 24).then(|| Some((number(0)?, number(8)?, number(16)?)));
        match parts.flatten() {
            Some((timeline, log, rest)) if u64::from(rest) < IN_LOG => {
                Ok(Self { timeline, number: u64::from(log) * IN_LOG + u64::from(rest) })
            }
            _ => Err(NoLogFile(text.to_owned())),
        }
    }
}

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogFile {
    /// A whole segment.
    Segment(Segment),
    /// The last segment of a timeline that was left, as far as it went.
    Partial(Segment),
    /// Where a timeline came from.
    History(u32),
    /// When a copy of the data began and ended; for people.
    Label(String),
}

impl FromStr for LogFile {
    type Err = NoLogFile;

    fn from_str(text: &str) -> Result<Self, NoLogFile> {
        let unknown = || NoLogFile(text.to_owned());
        match text.split_once('.') {
            None => text.parse().map(Self::Segment),
            Some((segment, "partial")) => segment.parse().map(Self::Partial),
            Some((timeline, "history")) if timeline.len() == 8 => {
                u32::from_str_radix(timeline, 16).map(Self::History).map_err(|_| unknown())
            }
            Some((segment, rest)) => {
                let offset = rest.strip_suffix(".backup").filter(|offset| offset.len() == 8);
                let offset = offset.filter(|o| o.bytes().all(|b| b.is_ascii_hexdigit()));
                segment.parse::<Segment>()?;
                offset.map(|_| Self::Label(text.to_owned())).ok_or_else(unknown)
            }
        }
    }
}

impl fmt::Display for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::History(timeline) => write!(f, "{timeline:08X}.history"),
            Self::Label(name) => f.write_str(name),
        }
    }
}

/// A position in the log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position(pub u64);

impl Position {
    /// The number of the segment that it is in.
    pub const fn segment(self) -> u64 {
        self.0 / SIZE
    }

    /// The number of the last segment that something which ends here needs.
    pub const fn last_segment(self) -> u64 {
        self.0.saturating_sub(1) / SIZE
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

impl TryFrom<String> for Position {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let part = |text| u32::from_str_radix(text, 16).ok();
            Some(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
        };
        parse().ok_or_else(|| format!("{text:?} is no position in a log"))
    }
}

/// What is wrong with the content of a segment, if anything: its length, or what its first page says of
/// where it belongs. `system` is the identifier of the cluster that it should be of.
pub fn fault(segment: Segment, system: u64, content: &[u8]) -> Option<String> {
    if content.len() as u64 != SIZE {
        return Some(format!("it has {} bytes, not {SIZE}", content.len()));
    }
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| content[at + n]));
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let flags = (word(0) >> 16) as u16;
    if flags & LONG_HEADER == 0 || u64::from(word(32)) != SIZE {
        return Some("it does not begin as a segment does".to_owned());
    }
    let (timeline, address, owner) = (word(4), long(8), long(24));
    if address != segment.number * SIZE {
        let is = Segment { timeline, number: address / SIZE };
        return Some(format!("it is the content of {is}"));
    }
    if owner != system {
        return Some(format!("it is of the cluster {owner}, not of {system}"));
    }
    // A timeline's first segment begins as the one did that it left.
    if timeline > segment.timeline {
        return Some(format!("it is of timeline {timeline}"));
    }
    None
}

/// The identifier of a cluster, by the content of its `global/pg_control`.
pub fn system_of(control: &[u8]) -> Option<u64> {
    control.get(..8)?.try_into().ok().map(u64::from_le_bytes)
}

/// A segment as its first page begins, for tests.
#[cfg(test)]
pub(crate) fn example(segment: Segment, system: u64) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(SIZE).unwrap()];
    content[..4].copy_from_slice(&[0x10, 0xd1, 2, 0]);
    content[4..8].copy_from_slice(&segment.timeline.to_le_bytes());
    content[8..16].copy_from_slice(&(segment.number * SIZE).to_le_bytes());
    content[24..32].copy_from_slice(&system.to_le_bytes());
    content[32..36].copy_from_slice(&u32::try_from(SIZE).unwrap().to_le_bytes());
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            "000000010000000000000001",
            "0000000A000000FF000000FF",
            "000000010000000000000003.partial",
            "00000002.history",
            "000000010000000000000003.00000028.backup",
        ] {
            assert_eq!(name.parse::<LogFile>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "00000001000000000000001",
            "000000010000000000000100",
            "RECOVERYXLOG",
            "xlogtemp.1",
            "0000000100000000000000ab",
            "1.history",
            "archive_status",
        ] {
            assert!(name.parse::<LogFile>().is_err(), "{name}");
        }
        let segment: Segment = "000000020000000100000003".parse().unwrap();
        assert_eq!(segment, Segment { timeline: 2, number: 259 });
        let position = Position::try_from("1/3000028".to_owned()).unwrap();
        assert_eq!((position.segment(), position.to_string()), (259, "1/3000028".to_owned()));
        assert_eq!(Position(SIZE).last_segment(), 0);
    }

    #[test]
    fn a_segment_that_is_another_is_told() {
        let segment = Segment { timeline: 3, number: 7 };
        let content = example(segment, 42);
        assert_eq!(fault(segment, 42, &content), None);
        let later = Segment { timeline: 4, ..segment };
        assert_eq!(fault(later, 42, &content), None, "the first of a timeline");
        let swapped = Segment { number: 8, ..segment };
        let told = fault(swapped, 42, &content).unwrap();
        assert_eq!(told, "it is the content of 000000030000000000000007");
        assert!(fault(segment, 43, &content).unwrap().contains("cluster 42"));
        assert!(fault(segment, 42, &content[1..]).unwrap().contains("bytes"));
        assert!(fault(segment, 42, &vec![0; content.len()]).is_some());
    }
}
