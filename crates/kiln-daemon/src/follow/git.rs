//! Running the `git` program so that a repository is data only.
//!
//! No configuration of the machine or of a person is read, no hook, filter, helper, pager, prompt or
//! lazy fetch can run, one transport is allowed, and what is received is checked object by object.
//! Each run has a bound in time and output.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where programs are looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin";

/// The most bytes that are kept of what git says of an error.
const SAID: u64 = 64 << 10;

/// What git is told on each run, beside the transport.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.sshCommand=ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=20",
    "credential.helper=",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "transfer.bundleURI=false",
    "protocol.allow=never",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "gc.autoDetach=false",
    "gpg.x509.program=/bin/false",
];

/// Why git did not do it.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is none.
    #[error("git is not installed, and it is what repositories are read with")]
    NotInstalled,
    /// It can't be run.
    #[error("git cannot be run")]
    Run(#[source] io::Error),
    /// It refused.
    #[error("{said}")]
    Failed {
        /// What it said.
        said: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It took too long.
    #[error("git {what} was not done within {} s", .bound.as_secs())]
    TooLong {
        /// What it was to do.
        what: String,
        /// How long it had.
        bound: Duration,
    },
}

impl GitError {
    /// The way out.
    pub fn help(&self) -> Option<&'static str> {
        let Self::Failed { said, .. } = self else {
            let missing = matches!(self, Self::NotInstalled);
            return missing.then_some("install it: `apt install git`");
        };
        let ways = [
            (
                "Host key verification failed",
                "the server's key is not known: check it, and add it to root's known_hosts \
                 (`ssh-keyscan HOST`)",
            ),
            ("Permission denied (publickey", "name a key that may read it with --identity FILE"),
            ("could not read Username", "a token is asked for: name a file with --token-file"),
            ("Authentication failed", "the token is not accepted: see --token-file"),
            ("dubious ownership", "let the directory and its .git belong to one user"),
            (
                "does not appear to be a git repository",
                "name the directory that holds .git or HEAD",
            ),
        ];
        ways.iter().find(|(sign, _)| said.contains(sign)).map(|(_, way)| *way)
    }
}

/// How git is run for one repository.
#[derive(Debug, Clone)]
pub(super) struct Git {
    /// A directory of Kiln's that stands for a home: nothing is in it.
    pub(super) home: PathBuf,
    /// The one transport that may be used, if any.
    pub(super) protocol: Option<&'static str>,
    /// Further settings.
    pub(super) settings: Vec<String>,
    /// Further settings that other users of the machine must not see.
    pub(super) secret_settings: Vec<(String, String)>,
    /// `GNUPGHOME`.
    pub(super) gnupg: Option<PathBuf>,
}

impl Git {
    /// Git without any transport.
    pub(super) fn offline(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            protocol: None,
            settings: Vec::new(),
            secret_settings: Vec::new(),
            gnupg: None,
        }
    }

    /// A command that is hardened, with its arguments.
    pub(super) fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("HOME", &self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS", "/bin/false")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOW_PROTOCOL", self.protocol.unwrap_or("none"))
            .current_dir(&self.home)
            .stdin(Stdio::null());
        if let Some(gnupg) = &self.gnupg {
            command.env("GNUPGHOME", gnupg);
        }
        // Unlike arguments, an environment can be read by its user only.
        command.env("GIT_CONFIG_COUNT", self.secret_settings.len().to_string());
        for (index, (key, value)) in self.secret_settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        if let Some(protocol) = self.protocol {
            command.args(["-c", &format!("protocol.{protocol}.allow=always")]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.args(arguments);
        command
    }

    /// Runs git, which must succeed within `bound`; what it printed, at most `most` bytes of it.
    pub(super) fn run<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str> + Clone,
        bound: Duration,
        most: u64,
    ) -> Result<Vec<u8>, GitError> {
        let what = arguments.clone().into_iter().find(|a| !a.starts_with('-')).unwrap_or_default();
        let output = bounded(self.command(arguments.clone()), what, bound, most)?;
        if output.status.success() {
            return Ok(output.printed);
        }
        Err(GitError::Failed { said: output.said, status: output.status })
    }
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Standard output.
    pub(super) printed: Vec<u8>,
    /// Standard error, its lines joined.
    pub(super) said: String,
}

/// Starts a program; one that is not there is told apart.
pub(super) fn start(command: &mut Command) -> Result<Child, GitError> {
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => GitError::NotInstalled,
        _ => GitError::Run(error),
    })
}

/// Runs a command to its end, which is brought about at the bound.
pub(super) fn bounded(
    mut command: Command,
    what: &str,
    bound: Duration,
    most: u64,
) -> Result<Ended, GitError> {
    let mut child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let printed = child.stdout.take().map(|out| gather(out, most));
    let said = child.stderr.take().map(|err| gather(err, SAID));
    let status = wait(&mut child, what, bound)?;
    let of = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    Ok(Ended { status, printed: of(printed), said: joined(&of(said)) })
}

/// Reads to the end; what is beyond `most` bytes is dropped.
fn gather(mut from: impl io::Read + Send + 'static, most: u64) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks ends what there is to read.
        let _ = from.by_ref().take(most).read_to_end(&mut bytes);
        let _ = io::copy(&mut from, &mut io::sink());
        bytes
    })
}

fn wait(child: &mut Child, what: &str, bound: Duration) -> Result<ExitStatus, GitError> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().map_err(GitError::Run)? {
            return Ok(status);
        }
        if begun.elapsed() > bound {
            // It may have ended in this very moment.
            let _ = child.kill();
            let _ = child.wait();
            return Err(GitError::TooLong { what: what.to_owned(), bound });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// What a program said, in one line that can be shown.
fn joined(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text: String = lines.join("; ").chars().filter(|c| !c.is_control()).take(2_000).collect();
    if text.is_empty() { "git failed and said nothing".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_bounded_in_time_and_output() {
        let mut slow = Command::new("sleep");
        slow.arg("30");
        let error = bounded(slow, "sleep", Duration::from_millis(50), 10).unwrap_err();
        assert!(matches!(error, GitError::TooLong { .. }), "{error}");
        let mut loud = Command::new("sh");
        loud.args(["-c", "yes | head -c 100000; echo a >&2; echo b >&2; exit 3"]);
        let ended = bounded(loud, "yes", Duration::from_secs(20), 10).unwrap();
        assert_eq!((ended.printed.len(), ended.said.as_str()), (10, "a; b"));
        assert_eq!(ended.status.code(), Some(3));
        let none = bounded(Command::new("/no/such/git"), "x", Duration::from_secs(1), 1);
        assert!(matches!(none, Err(GitError::NotInstalled)));
    }
}
