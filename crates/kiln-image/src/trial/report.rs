//! What came of a test.

use kiln_model::spec::image::{Check, ImageTest};
use serde::{Deserialize, Serialize};

/// The problem of a test that was stopped.
pub const INTERRUPTED: &str = "interrupted";

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// The test's name.
    pub name: String,
    /// Whether everything held.
    pub passed: bool,
    /// What came of each check, in the order of the test.
    pub checks: Vec<CheckReport>,
    /// Why nothing could be checked, where that is so: the instance did not start, or the test
    /// was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How the program has ended, where it has before the end of the test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// How long it took.
    pub milliseconds: u64,
    /// The last lines that the program has written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Whether it held.
    pub passed: bool,
    /// What must hold, in words.
    pub expected: String,
    /// What was found last, in words.
    pub found: String,
}

impl TestReport {
    /// Whether it was stopped before its end.
    pub fn was_interrupted(&self) -> bool {
        self.problem.as_deref() == Some(INTERRUPTED)
    }

    /// Why it has not passed, a line each; none where it has.
    pub fn complaints(&self) -> Vec<String> {
        if self.passed {
            return Vec::new();
        }
        let name = &self.name;
        let mut lines = Vec::new();
        lines.extend(self.problem.iter().map(|problem| format!("test {name}: {problem}")));
        let failed = self.checks.iter().filter(|check| !check.passed);
        lines.extend(failed.map(|check| {
            format!("test {name}: expected that {}; found: {}", check.expected, check.found)
        }));
        lines.extend(self.ended.iter().map(|ended| format!("test {name}: the program {ended}")));
        lines.extend(self.log.iter().map(|line| format!("test {name}: | {line}")));
        lines
    }

    /// The report of a test that could not be run.
    pub fn refused(test: &ImageTest, problem: impl Into<String>) -> Self {
        let not_done = |check| CheckReport {
            passed: false,
            expected: describe(check),
            found: "not checked".to_owned(),
        };
        Self {
            name: test.name.clone(),
            passed: false,
            checks: test.checks.iter().map(not_done).collect(),
            problem: Some(problem.into()),
            ended: None,
            milliseconds: 0,
            log: Vec::new(),
        }
    }
}

/// What a check wants, in words.
pub fn describe(check: &Check) -> String {
    let containing =
        |text: &Option<String>| text.as_ref().map_or_else(String::new, |t| format!(" with {t:?}"));
    match check {
        Check::Http { port, path, status, contains } => {
            let status = status.map_or_else(|| "200 to 399".to_owned(), |s| s.to_string());
            format!("GET {path} on port {port} gives {status}{}", containing(contains))
        }
        Check::Tcp { port } => format!("port {port} accepts connections"),
        Check::Exec { command, status, contains } => {
            format!("{} exits with {status}{}", command.join(" "), containing(contains))
        }
        Check::File { path, contains, mode, owner } => {
            let mode = mode.map_or_else(String::new, |mode| format!(" of mode {mode:#o}"));
            let owner = owner.as_ref().map_or_else(String::new, |owner| format!(" of {owner}"));
            format!("there is {path}{mode}{owner}{}", containing(contains))
        }
        Check::NoSuchFile { path } => format!("there is no {path}"),
        Check::PortClosed { port } => format!("nothing listens at port {port}"),
        Check::LogContains { text } => format!("it writes a line with {text:?}"),
        Check::StaysUp { time } => format!("it stays up for {time}"),
    }
}
