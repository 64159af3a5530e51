//! Starting the gateway from the daemon.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::control::{Gateway, GatewayError, Refusal};
use crate::process::build_of;
use crate::process::lock::Lock;

/// How long a gateway may take to answer after its start.
const START_TIME: Duration = Duration::from_secs(10);

/// How long one question may take meanwhile.
const QUESTION_TIME: Duration = Duration::from_secs(1);

/// The size from which the log is begun anew, bytes. It only has what is out of the ordinary.
const LOG_LIMIT: u64 = 1 << 20;

/// Why no gateway could be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file or directory below the root cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The program cannot be executed.
    #[error("cannot execute {}", exe.display())]
    Execute {
        /// The program.
        exe: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The process ended before it answered.
    #[error("the gateway ended at its start ({status}); its log is {}", log.display())]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// Where it says why.
        log: PathBuf,
    },
    /// The process runs and does not answer.
    #[error("the gateway does not answer within {} s; its log is {}", after.as_secs(), log.display())]
    Silent {
        /// How long it was waited for.
        after: Duration,
        /// Where it may say why.
        log: PathBuf,
    },
    /// A gateway runs, but it cannot be talked to.
    #[error("the running gateway cannot be used")]
    Unusable(#[source] GatewayError),
}

/// Returns the root's gateway, started if none runs. One that was started from another build of
/// the program hands over to a new one first, with traffic running. Several callers at once get
/// one gateway.
///
/// The gateway is a session of its own, holds none of the caller's descriptors, and outlives
/// the caller. `exe` is this program; it is called as `exe --root ROOT gateway`.
pub fn ensure_running(root: &Path, exe: &Path) -> Result<Gateway, StartError> {
    // The gateway runs in another directory than the caller.
    let root = &std::path::absolute(root).map_err(file_error(root))?;
    let gateway = Gateway::of(root);
    let wanted = build_of(exe);
    if is_wanted(&look(&gateway)?, wanted.as_deref()) {
        return Ok(gateway);
    }
    let run = root.join("run");
    fs::create_dir_all(&run).map_err(file_error(&run))?;
    let path = run.join("gateway.start");
    let lock = Lock::take(&path, START_TIME).map_err(file_error(&path))?;
    let log = root.join("logs/gateway.log");
    if lock.is_none() {
        return Err(StartError::Silent { after: START_TIME, log });
    }
    let found = look(&gateway)?;
    if is_wanted(&found, wanted.as_deref()) {
        return Ok(gateway);
    }
    let mut child = spawn(root, exe, &log)?;
    let answered = await_answer(&gateway, &mut child, log);
    // Collects the process when it ends, so that none is left behind as a zombie.
    std::thread::spawn(move || child.wait());
    match answered {
        // The one that runs serves on, and is as good as before.
        Err(error) if matches!(found, Found::Running { .. }) => {
            eprintln!("kiln: the gateway of another build stays: {error}");
        }
        answered => answered?,
    }
    Ok(gateway)
}

/// Has the root's gateway hand over to a new process if one runs that was started from another
/// build of the program; starts none where none runs. Returns whether it did.
pub fn renew(root: &Path, exe: &Path) -> Result<bool, StartError> {
    let gateway = Gateway::of(&std::path::absolute(root).map_err(file_error(root))?);
    let found = look(&gateway)?;
    if found == Found::Nothing || is_wanted(&found, build_of(exe).as_deref()) {
        return Ok(false);
    }
    ensure_running(root, exe)?;
    Ok(true)
}

/// Which gateway runs.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// One that can be talked to.
    Running {
        build: String,
    },
    /// One that speaks another version of the control protocol.
    Foreign,
}

fn look(gateway: &Gateway) -> Result<Found, StartError> {
    match gateway.status() {
        Ok(status) => Ok(Found::Running { build: status.build }),
        Err(GatewayError::NotRunning { .. } | GatewayError::Broken { .. }) => Ok(Found::Nothing),
        Err(GatewayError::Refused(Refusal::Version { .. })) => Ok(Found::Foreign),
        Err(error) => Err(StartError::Unusable(error)),
    }
}

/// Whether the gateway that runs is of this build. Where that cannot be told, it is good enough.
fn is_wanted(found: &Found, wanted: Option<&str>) -> bool {
    match found {
        Found::Running { build } => wanted.is_none_or(|wanted| build == wanted),
        Found::Nothing | Found::Foreign => false,
    }
}

/// Waits until the process that was started is the one that answers.
fn await_answer(gateway: &Gateway, child: &mut Child, log: PathBuf) -> Result<(), StartError> {
    let deadline = Instant::now() + START_TIME;
    // One question may be lost while one process takes over from another: it is asked again.
    let gateway = gateway.patient_for(QUESTION_TIME);
    let is_it = |child: &Child| gateway.status().is_ok_and(|status| status.pid == child.id());
    while !is_it(child) {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(StartError::Ended { status, log });
        }
        if Instant::now() >= deadline {
            // It is not ended: by now it may have taken over from the one before, and traffic
            // would stop with it. Each of its own waits has an end; who comes next finds it, or
            // another starts and takes over from it.
            return Err(StartError::Silent { after: START_TIME, log });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn spawn(root: &Path, exe: &Path, log: &Path) -> Result<Child, StartError> {
    let output = open_log(log).map_err(file_error(log))?;
    let errors = output.try_clone().map_err(file_error(log))?;
    let mut command = Command::new(exe);
    command
        .arg("--root")
        .arg(root)
        .arg("gateway")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    // SAFETY: between fork and exec only two system calls are made, which is allowed there.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            keep_no_descriptors()
        });
    }
    command.spawn().map_err(|source| StartError::Execute { exe: exe.to_owned(), source })
}

/// Marks every descriptor but the standard ones to be closed at exec.
fn keep_no_descriptors() -> io::Result<()> {
    // SAFETY: close_range(2) takes no pointers, and with this flag closes nothing by itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let full = fs::metadata(path).is_ok_and(|file| file.len() > LOG_LIMIT);
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    if full {
        options.write(true).truncate(true)
    } else {
        options.append(true)
    };
    options.open(path)
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::File { path, source }
}
