//! The reading side: the last lines of a log, and the lines to come.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Stream, segments};

/// How much is read at a time while following, in bytes.
const CHUNK_BYTES: u64 = 64 << 10;

/// How long a line gets, in bytes, give or take a record: one that never ends must not fill the
/// memory.
const LONGEST_LINE: usize = 1 << 20;

/// A line that an instance has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When the launcher received it (its last part), UTC in RFC 3339.
    pub time: String,
    /// Where it was written to.
    pub stream: Stream,
    /// The text, without the line's end. What is not UTF-8 is replaced.
    pub text: String,
    /// Whether the line has ended; only the last one of a stream may not have.
    pub complete: bool,
}

/// The last `count` lines in `directory`, oldest first. No log is an empty log.
pub fn tail(directory: &Path, count: usize) -> io::Result<Vec<Line>> {
    let mut lines = Assembler::default();
    let mut last = VecDeque::new();
    for segment in segments(directory) {
        let bytes = match fs::read(segment) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        for line in lines.feed(&bytes) {
            last.push_back(line);
            if last.len() > count {
                last.pop_front();
            }
        }
    }
    last.extend(lines.unfinished());
    Ok(last.split_off(last.len().saturating_sub(count)).into())
}

/// Reads lines as they are written, across segments. Made by [`Follow::new`].
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    current: Option<File>,
    lines: Assembler,
}

impl Follow {
    /// Follows the log in `directory` from its present end, or from its beginning if it does not
    /// exist yet.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let [_, path] = segments(directory);
        let current = match open(&path)? {
            Some(mut file) => {
                file.seek(SeekFrom::End(0))?;
                Some(file)
            }
            None => None,
        };
        Ok(Self { path, current, lines: Assembler::default() })
    }

    /// Follows the log in `directory` from the oldest line that is kept.
    pub fn from_start(directory: &Path) -> Self {
        let [older, path] = segments(directory);
        let current = open(&older).ok().flatten();
        Self { path, current, lines: Assembler::default() }
    }

    /// The complete lines that have come since the last call; none when there is nothing new.
    /// Lines are lost only when two segments fill up between two calls.
    pub fn poll(&mut self) -> io::Result<Vec<Line>> {
        let mut found = Vec::new();
        loop {
            if self.current.is_none() {
                self.current = open(&self.path)?;
            }
            let Some(file) = &mut self.current else { return Ok(found) };
            let mut bytes = Vec::new();
            file.take(CHUNK_BYTES).read_to_end(&mut bytes)?;
            if !bytes.is_empty() {
                found.extend(self.lines.feed(&bytes));
                continue;
            }
            if !self.turned_over()? {
                return Ok(found);
            }
            self.current = None;
        }
    }

    /// Whether the file at the path is no longer the one that was read to its end.
    fn turned_over(&self) -> io::Result<bool> {
        let Some(file) = &self.current else { return Ok(false) };
        match fs::metadata(&self.path) {
            Ok(meta) => Ok(meta.ino() != file.metadata()?.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// Puts lines together from bytes of the log, which may end anywhere.
#[derive(Debug, Default)]
struct Assembler {
    record: Vec<u8>,
    partial: [Option<Line>; 2],
}

impl Assembler {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut found = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.record.extend_from_slice(piece);
            if self.record.pop_if(|last| *last == b'\n').is_some() {
                let record = std::mem::take(&mut self.record);
                found.extend(self.record(&String::from_utf8_lossy(&record)));
            }
        }
        found
    }

    /// Takes one record in; gives the line that it completes.
    fn record(&mut self, record: &str) -> Option<Line> {
        let mut fields = record.splitn(4, ' ');
        let (time, stream, tag) = (fields.next()?, fields.next()?, fields.next()?);
        let (stream, text) = (Stream::from_name(stream)?, fields.next().unwrap_or_default());
        let slot = &mut self.partial[usize::from(stream == Stream::Stderr)];
        let mut line = slot.take().unwrap_or_else(|| Line {
            time: String::new(),
            stream,
            text: String::new(),
            complete: false,
        });
        time.clone_into(&mut line.time);
        if line.text.len() < LONGEST_LINE {
            line.text.push_str(text);
        }
        line.complete = tag == "F";
        if line.complete {
            return Some(line);
        }
        *slot = Some(line);
        None
    }

    fn unfinished(&mut self) -> impl Iterator<Item = Line> {
        self.partial.iter_mut().filter_map(Option::take)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::LogWriter;
    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_come_back_whole_whatever_pieces_they_came_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path());
        let mut follow = Follow::new(dir.path()).unwrap();
        log.write(Stream::Stdout, UNIX_EPOCH, b"one\ntw").unwrap();
        log.write(Stream::Stderr, UNIX_EPOCH, b"err\n").unwrap();
        log.write(Stream::Stdout, UNIX_EPOCH, b"o\n\nthr").unwrap();
        let all = tail(dir.path(), 10).unwrap();
        assert_eq!(texts(&all), ["one", "err", "two", "", "thr"]);
        assert!(!all[4].complete);
        assert_eq!(texts(&tail(dir.path(), 2).unwrap()), ["", "thr"]);
        assert_eq!(texts(&follow.poll().unwrap()), ["one", "err", "two", ""]);
        assert_eq!(follow.poll().unwrap(), []);
    }

    #[test]
    fn two_segments_bound_a_log_and_following_crosses_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::with_segments_of(dir.path(), 1000);
        let mut follow = Follow::new(dir.path()).unwrap();
        let mut seen = 0;
        for number in 0..200 {
            log.write(Stream::Stdout, UNIX_EPOCH, format!("line {number}\n").as_bytes()).unwrap();
            seen += follow.poll().unwrap().len();
        }
        assert_eq!(seen, 200);
        let bytes: u64 =
            segments(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!((1000..=2000).contains(&bytes), "{bytes}");
        let last = tail(dir.path(), 1000).unwrap();
        assert!((20..60).contains(&last.len()), "{}", last.len());
        assert_eq!(last.last().unwrap().text, "line 199");
    }

    #[test]
    fn a_log_that_is_not_there_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tail(&dir.path().join("none"), 5).unwrap(), []);
    }
}
