//! Errors at the edge: what is wrong, what it comes from, the way out, and the exit status.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use kiln_config::diagnostic::Report;
use kiln_daemon::client::ClientError;
use kiln_daemon::ledger::LedgerError;
use kiln_daemon::prepare::{HomeError, PrepareError};
use kiln_daemon::root::RootError;
use kiln_daemon::server::ServeError;
use kiln_image::trial::TestReport;

use crate::context::{Context, print_text, to_json};
use crate::document::failure::{Failure, Message};
use crate::progress::image::size;
use crate::render::style::Palette;

/// How a full disk is spoken of: by the system, by the store's database, and before anything is
/// fetched.
const FULL: [&str; 3] = ["No space left on device", "disk is full", "does not fit on the disk"];

/// How the program ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// It could not.
    Failed,
    /// It was asked wrongly, or the configuration has errors.
    Usage,
    /// There are differences.
    Differences,
    /// As a process of Kiln's own says.
    Process(ExitCode),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::FAILURE,
            Exit::Usage => Self::from(2),
            Exit::Differences => Self::from(3),
            Exit::Process(code) => code,
        }
    }
}

/// An error as a person sees it.
#[derive(Debug)]
pub(crate) struct CommandError {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    help: Option<String>,
    /// Messages of the configuration, which say all themselves.
    report: Option<Box<Report>>,
    /// Whether it has been shown already.
    shown: bool,
}

impl CommandError {
    /// Something did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            exit: Exit::Failed,
            message,
            causes: Vec::new(),
            help: None,
            report: None,
            shown: false,
        }
    }

    /// Something was asked wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(message) }
    }

    /// A failure of which the person has been told already.
    pub(crate) fn shown() -> Self {
        Self { shown: true, ..Self::failed(String::new()) }
    }

    /// The error `error` with all that it comes from.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        Self::failed(error.to_string()).with_sources(error)
    }

    /// Adds what it comes from.
    #[must_use]
    pub(crate) fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        self.causes.push(error.to_string());
        self.with_sources(error)
    }

    fn with_sources(mut self, error: &dyn std::error::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            self.causes.push(cause.to_string());
            source = cause.source();
        }
        self
    }

    /// Adds the way out.
    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    fn or_help(mut self, help: Option<impl Into<String>>) -> Self {
        self.help = self.help.or(help.map(Into::into));
        self
    }

    #[must_use]
    fn ending(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// How the program ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Tells the person, and with `--json` the program that reads.
    pub(crate) fn show(&self, context: &Context) {
        if self.shown {
            return;
        }
        let text = match &self.report {
            Some(report) => report.render(context.err.is_on()),
            None => self.render(context.err, context.root.path()),
        };
        context.say(text.trim_end());
        if context.json {
            // There is nobody left to tell that this can't be written.
            let document = self.document(context.root.path());
            let _ = to_json(&document).and_then(|text| print_text(&format!("{text}\n")));
        }
    }

    fn render(&self, palette: Palette, root: &Path) -> String {
        let mut text = format!("{}: {}", palette.red("error"), self.message);
        for cause in &self.causes {
            let _ = write!(text, "\n  {}: {cause}", palette.dim("caused by"));
        }
        if let Some(help) = self.way_out(root) {
            let _ = write!(text, "\n  {}: {help}", palette.cyan("help"));
        }
        text
    }

    /// The way out: what stands with the error or, where it is the same for all, what follows from
    /// a cause. What comes from the daemon has causes of text only.
    fn way_out(&self, root: &Path) -> Option<String> {
        let full = |text: &String| FULL.iter().any(|words| text.contains(words));
        let full = std::iter::once(&self.message).chain(&self.causes).any(full);
        let make_room = || {
            let said = room(root).map(|said| format!("{said}; ")).unwrap_or_default();
            format!(
                "{said}make room on that disk (`kiln image gc` shows what nobody needs), or name a \
                 root on another one with --root DIR"
            )
        };
        self.help.clone().or_else(|| full.then(make_room))
    }

    fn document(&self, root: &Path) -> Failure {
        let (message, causes, help) =
            (self.message.clone(), self.causes.clone(), self.way_out(root));
        let diagnostics = self.report.as_ref().map(|r| Message::all(r)).unwrap_or_default();
        Failure { error: crate::document::failure::Fault { message, causes, help, diagnostics } }
    }
}

/// How much room there is on the disk of a root, by which time what was begun there is gone.
fn room(root: &Path) -> Option<String> {
    let disk = rustix::fs::statvfs(root).ok()?;
    let bytes = |blocks: u64| size(blocks.saturating_mul(disk.f_frsize));
    let (path, free, all) = (root.display(), bytes(disk.f_bavail), bytes(disk.f_blocks));
    Some(format!("the disk of {path} has {free} free of {all} when nothing is being done"))
}

impl From<Box<Report>> for CommandError {
    fn from(report: Box<Report>) -> Self {
        Self { report: Some(report), ..Self::usage("the configuration of the stack has errors") }
    }
}

impl From<RootError> for CommandError {
    fn from(error: RootError) -> Self {
        Self::of(&error).or_help(error.help())
    }
}

impl From<LedgerError> for CommandError {
    fn from(error: LedgerError) -> Self {
        let denied = matches!(&error, LedgerError::Unreadable { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied);
        let help = "run the command as root, or name another root with --root DIR";
        Self::of(&error).or_help(denied.then_some(help)).or_help(error.help())
    }
}

impl From<HomeError> for CommandError {
    fn from(error: HomeError) -> Self {
        let elsewhere = matches!(error, HomeError::Elsewhere { .. });
        let help = "say --adopt if this directory is to take the stack over, or give it another \
                    name with `stack { name = … }`";
        Self::of(&error).or_help(elsewhere.then_some(help)).ending(if elsewhere {
            Exit::Usage
        } else {
            Exit::Failed
        })
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let mut shown = Self::of(&error).or_help(error.help());
        match error {
            ClientError::Refused(fault) => shown.causes = fault.causes,
            ClientError::NotStarted { last_line: Some(line), .. } => shown.causes.push(line),
            _ => {}
        }
        shown
    }
}

impl From<ServeError> for CommandError {
    fn from(error: ServeError) -> Self {
        Self::of(&error).or_help(error.help())
    }
}

impl From<PrepareError> for CommandError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Configuration(report) => report.into(),
            PrepareError::Ledger(error) => error.into(),
            PrepareError::Home(error) => error.into(),
            PrepareError::Seal(errors) => {
                let mut texts = errors.iter().map(ToString::to_string);
                let mut error = Self::usage(texts.next().unwrap_or_default());
                error.causes = texts.collect();
                error
            }
            PrepareError::NoAddresses(_) | PrepareError::NotCarried(_) => {
                Self::of(&error).ending(Exit::Usage)
            }
            PrepareError::NoMemory(_) => Self::of(&error)
                .with_help("lower `memory`, `replicas` or the surge of the rollout, or free some"),
            PrepareError::Swapped { ref index, .. } => {
                let help = format!("remove {}: the image is then built anew", index.display());
                Self::of(&error).with_help(help)
            }
            PrepareError::Tests { reports, .. }
                if reports.iter().any(TestReport::was_interrupted) =>
            {
                Self::failed("interrupted")
            }
            PrepareError::Tests { ref reports, .. } => {
                let mut shown = Self::of(&error)
                    .with_help("`kiln image test` runs the tests alone; what serves is untouched");
                shown.causes = reports.iter().flat_map(TestReport::complaints).collect();
                shown
            }
            error => Self::of(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CommandError;

    #[test]
    fn a_full_disk_has_a_way_out_unless_a_better_one_is_known() {
        let full = std::io::Error::from_raw_os_error(28);
        let error = CommandError::failed("it can't be unpacked").caused_by(&full);
        let root = std::path::Path::new("/");
        let help = error.way_out(root).unwrap();
        assert!(help.contains("make room") && help.contains("iB free of "), "{help}");
        assert_eq!(error.with_help("wait").way_out(root).unwrap(), "wait");
        assert_eq!(CommandError::failed("it can't be found").way_out(root), None);
    }
}
