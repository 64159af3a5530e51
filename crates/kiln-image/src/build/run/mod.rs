//! Programs of an image that run while it is built: `run` steps and maintainer scripts.
//!
//! The tree so far becomes a directory of the workspace, the program runs on it in a sandbox, and
//! what has become of the directory is the tree from then on. What the program removed is simply
//! no longer there.

mod scripts;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::progress::{Event, Progress};
use crate::rootfs::accounts::AccountError;
use crate::rootfs::{Rootfs, RootfsError};
use crate::sandbox::{
    Bounds, COVERED, DirectoryError, Ending, Finished, HOST_NAME, Job, JobFile, Laid, Sandbox,
    SandboxError,
};
use crate::tree::{Inode, Kind, Metadata, Tree, TreeError};

pub(super) use scripts::run_all as scripts;

/// Where programs are looked for unless the image or the step says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many lines of a program's output its failure is told with.
const LAST_LINES: usize = 20;
/// The resolver's file, which the machine's stands over while a program has the network.
const RESOLVER: &str = "etc/resolv.conf";
/// Variables by which programs find a proxy; handed to those that have the network.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// A program of the image that has not done its work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nobody has given the store a sandbox.
    #[error("run {name:?}: programs of an image run only in a sandbox, and there is none here")]
    NoSandbox {
        /// The step's name.
        name: String,
    },
    /// The user is not there.
    #[error("run {name:?}: user")]
    User {
        /// The step's name.
        name: String,
        /// Why.
        source: AccountError,
    },
    /// What runs a maintainer script is not in the image.
    #[error(
        "script {script} needs {interpreter}, which is not in the image; add the package that has it, such as dash or perl-base, or leave `scripts` out"
    )]
    Interpreter {
        /// The package and the script.
        script: String,
        /// The program.
        interpreter: String,
    },
    /// What scripts have left can't be taken in.
    #[error("what maintainer scripts have done can't be taken in")]
    Scripts {
        /// Why.
        source: Box<RootfsError>,
    },
    /// The tree can't be laid out or read back.
    #[error("run {name:?}: the image's files")]
    Directory {
        /// The step's name.
        name: String,
        /// Why.
        source: DirectoryError,
    },
    /// The accounts that the program has left can't be read.
    #[error("run {name:?}: can't read /{path} back")]
    Accounts {
        /// The step's name.
        name: String,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The job was not done to its end.
    #[error("run {name:?}: {}{}", command.join(" "), shown(lines))]
    Sandbox {
        /// The step's name.
        name: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// The last lines of its output.
        lines: Vec<String>,
        /// Why.
        source: SandboxError,
    },
    /// The program has failed.
    #[error(
        "run {name:?}: {} {ending}{}{}", command.join(" "),
        if *out_of_memory { " (out of memory)" } else { "" }, shown(lines)
    )]
    Failed {
        /// The step's name.
        name: String,
        /// The program and its arguments.
        command: Vec<String>,
        /// How it has ended.
        ending: Ending,
        /// Whether it wanted more memory than there was for it.
        out_of_memory: bool,
        /// The last lines of its output.
        lines: Vec<String>,
    },
}

/// The last lines of a program, each below the message.
fn shown(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |text, line| text + "\n  | " + line)
}

/// What programs of an image run on.
pub(super) struct Ground<'a> {
    /// Who runs them.
    pub(super) sandbox: Option<&'a dyn Sandbox>,
    /// A directory for this build alone, which only its owner may enter. What is made in it must
    /// stay until the image is written.
    pub(super) workspace: &'a Path,
    /// The image's environment.
    pub(super) env: &'a BTreeMap<String, String>,
    /// What the clock of the wall stands at, in seconds since 1970.
    pub(super) clock: i64,
    /// Who is told of output.
    pub(super) progress: &'a dyn Progress,
}

impl Ground<'_> {
    /// A path in the workspace that nothing has yet.
    fn place(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        self.workspace.join(format!("run-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }
}

/// What is to be run.
pub(super) struct Program<'a> {
    /// What the step is called.
    pub(super) name: &'a str,
    /// The program and its arguments.
    pub(super) command: &'a [String],
    /// Environment, over the image's.
    pub(super) env: &'a BTreeMap<String, String>,
    /// Whom it runs as; root where not given.
    pub(super) user: Option<&'a str>,
    /// Where it starts.
    pub(super) workdir: &'a str,
    /// Whether it has the machine's network.
    pub(super) network: bool,
}

/// Does a `run` step.
pub(super) fn run(
    root: &mut Rootfs,
    program: &Program<'_>,
    ground: &Ground<'_>,
) -> Result<(), RunError> {
    let name = || program.name.to_owned();
    let resolved = program.user.map_or(Ok((0, 0)), |user| root.accounts.resolve(user));
    let user = resolved.map_err(|source| RunError::User { name: name(), source })?;
    let mut env = environment(root, user.0, ground, program.network);
    env.extend(program.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut files = vec![JobFile {
        path: "/etc/hosts".to_owned(),
        content: format!("127.0.0.1 localhost {HOST_NAME}\n::1 localhost\n"),
        executable: false,
    }];
    if program.network
        && let Ok(content) = std::fs::read_to_string("/etc/resolv.conf")
    {
        files.push(JobFile { path: format!("/{RESOLVER}"), content, executable: false });
    }
    on_directory(root, program.name, ground, |sandbox, directory| {
        let job = Job {
            root: directory,
            argv: program.command,
            env: &env,
            workdir: program.workdir,
            user,
            files: &files,
            network: program.network,
            clock: ground.clock,
            bounds: Bounds::default(),
        };
        execute(sandbox, &job, program.name, ground.progress)
    })
}

/// The environment of a program: what is fixed, and the image's over it.
fn environment(
    root: &Rootfs,
    uid: u32,
    ground: &Ground<'_>,
    network: bool,
) -> BTreeMap<String, String> {
    let home = root.accounts.home(uid).unwrap_or("/");
    let mut env: BTreeMap<String, String> = [
        ("PATH", PATH),
        ("HOME", home),
        ("LANG", "C.UTF-8"),
        ("SOURCE_DATE_EPOCH", &ground.clock.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if network {
        let set = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok()?));
        env.extend(PROXIES.iter().filter_map(set));
    }
    env.extend(ground.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env
}

/// Lets `work` happen on the tree as a directory, and takes what has become of it.
fn on_directory(
    root: &mut Rootfs,
    name: &str,
    ground: &Ground<'_>,
    work: impl FnOnce(&dyn Sandbox, &Path) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let Some(sandbox) = ground.sandbox else {
        return Err(RunError::NoSandbox { name: name.to_owned() });
    };
    let failed = |source| RunError::Directory { name: name.to_owned(), source };
    let (before, added) = with_places(&root.tree).map_err(|error| failed(error.into()))?;
    let laid = Laid::out(&before, &ground.place()).map_err(failed)?;
    work(sandbox, laid.path())?;
    let mut after = laid.gather(&before, ground.clock).map_err(failed)?;
    for path in added {
        if is_bare(&after.tree, path) {
            after.tree.remove(path).map_err(|error| failed(error.into()))?;
        }
    }
    root.accounts.learn(&after.tree).map_err(|(path, source)| RunError::Accounts {
        name: name.to_owned(),
        path,
        source,
    })?;
    root.tree = after.tree;
    root.warnings.extend(after.warnings);
    Ok(())
}

/// The tree with all that something is mounted on while a program runs, and what was added.
fn with_places(tree: &Tree) -> Result<(Tree, Vec<&'static str>), TreeError> {
    let (mut tree, mut added) = (tree.clone(), Vec::new());
    for path in COVERED {
        if tree.get(path).is_none() {
            tree.insert(path, Inode::directory(Metadata::new(0o755)))?;
            added.push(path);
        }
    }
    for path in ["etc/hosts", RESOLVER] {
        if tree.get(path).is_none() {
            if tree.get("etc").is_none() {
                tree.insert("etc", Inode::directory(Metadata::new(0o755)))?;
                added.push("etc");
            }
            tree.insert(path, Inode::file(Metadata::new(0o644), Vec::new()))?;
            // Before the directory that may have been added for it.
            added.insert(0, path);
        }
    }
    Ok((tree, added))
}

/// Whether a place that was added is still as it was.
fn is_bare(tree: &Tree, path: &str) -> bool {
    tree.get(path).is_some_and(|inode| match inode.kind() {
        Kind::Directory(children) => children.is_empty(),
        Kind::File(content) => content.is_empty(),
        _ => false,
    })
}

/// Runs a job and refuses all but its success.
fn execute(
    sandbox: &dyn Sandbox,
    job: &Job<'_>,
    name: &str,
    progress: &dyn Progress,
) -> Result<(), RunError> {
    let last = Mutex::new(VecDeque::new());
    progress.event(Event::Run { step: name, line: None });
    let told = sandbox.run(job, &|line| {
        progress.event(Event::Run { step: name, line: Some(line) });
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    });
    let lines = last.into_inner().unwrap_or_else(PoisonError::into_inner).into();
    let (name, command) = (name.to_owned(), job.argv.to_vec());
    match told {
        Ok(Finished { ending: Ending::Status(0), .. }) => Ok(()),
        Ok(Finished { ending, out_of_memory }) => {
            Err(RunError::Failed { name, command, ending, out_of_memory, lines })
        }
        Err(source) => Err(RunError::Sandbox { name, command, lines, source }),
    }
}
