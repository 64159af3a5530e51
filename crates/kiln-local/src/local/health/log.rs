//! The probe that waits for a line of an instance's output.

use std::path::Path;

use kiln_model::spec::server::LogLine;
use regex::Regex;

use crate::logs::Follow;

/// Reads what an instance writes until the line has come.
pub(super) struct LogWatch {
    wanted: Result<Wanted, String>,
    /// What is still to be read; none once the line has come.
    follow: Option<Follow>,
}

enum Wanted {
    Text(String),
    Pattern(Regex),
}

impl Wanted {
    fn is_in(&self, line: &str) -> bool {
        match self {
            Self::Text(text) => line.contains(text),
            Self::Pattern(pattern) => pattern.is_match(line),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Text(text) => format!("with {text:?}"),
            Self::Pattern(pattern) => format!("that matches {:?}", pattern.as_str()),
        }
    }
}

impl LogWatch {
    /// Waits for `line` in the log at `directory`, also where it has come already; or for nothing,
    /// where it was `seen` before.
    pub(super) fn new(directory: &Path, line: &LogLine, seen: bool) -> Self {
        let wanted = match line {
            LogLine::Contains(text) => Ok(Wanted::Text(text.clone())),
            LogLine::Matches(pattern) => {
                Regex::new(pattern).map(Wanted::Pattern).map_err(|e| e.to_string())
            }
        };
        Self { wanted, follow: (!seen).then(|| Follow::from_start(directory)) }
    }

    /// Reads what is new; well once the line has come.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let Some(follow) = &mut self.follow else { return Ok(()) };
        let wanted = self.wanted.as_ref().map_err(Clone::clone)?;
        let lines = follow.poll().map_err(|e| format!("its log cannot be read: {e}"))?;
        if lines.iter().any(|line| wanted.is_in(&line.text)) {
            self.follow = None;
            return Ok(());
        }
        Err(format!("it has not written a line {}", wanted.name()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::logs::{LogWriter, Stream};

    #[test]
    fn it_waits_for_a_whole_line_and_remembers_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch =
            LogWatch::new(dir.path(), &LogLine::Matches("^ready in [0-9]+".to_owned()), false);
        let said = watch.look().unwrap_err();
        assert_eq!(said, "it has not written a line that matches \"^ready in [0-9]+\"");
        let mut log = LogWriter::new(dir.path());
        log.write(Stream::Stderr, UNIX_EPOCH, b"not ready in 5 s\nready in 1").unwrap();
        assert!(watch.look().is_err(), "the line has not ended");
        log.write(Stream::Stderr, UNIX_EPOCH, b"2 ms\n").unwrap();
        assert_eq!(watch.look(), Ok(()));
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(watch.look(), Ok(()));
    }

    #[test]
    fn what_was_written_before_counts_also_in_the_older_segment() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::with_segments_of(dir.path(), 1000);
        log.write(Stream::Stdout, UNIX_EPOCH, b"listening [::]:80 (*)\n").unwrap();
        for _ in 0..20 {
            log.write(Stream::Stdout, UNIX_EPOCH, b"a request, and what became of it\n").unwrap();
        }
        let contains = |text: &str| LogLine::Contains(text.to_owned());
        assert!(dir.path().join("log.1").exists());
        assert_eq!(LogWatch::new(dir.path(), &contains("[::]:80 (*)"), false).look(), Ok(()));
        let said = LogWatch::new(dir.path(), &contains("nothing"), false).look().unwrap_err();
        assert!(said.ends_with("a line with \"nothing\""), "{said}");
        assert_eq!(LogWatch::new(dir.path(), &contains("nothing"), true).look(), Ok(()));
    }
}
