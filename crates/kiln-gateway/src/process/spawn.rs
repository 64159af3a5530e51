//! Starting the gateway from the daemon.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::control::{Gateway, GatewayError};
use crate::process::lock::Lock;

/// How long a gateway may take to answer after its start.
const START_TIME: Duration = Duration::from_secs(10);

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

/// Returns the root's gateway, started if none runs. Several callers at once get one gateway.
///
/// The gateway is a session of its own, holds none of the caller's descriptors, and outlives
/// the caller. `exe` is this program; it is called as `exe --root ROOT gateway`.
pub fn ensure_running(root: &Path, exe: &Path) -> Result<Gateway, StartError> {
    // The gateway runs in another directory than the caller.
    let root = &std::path::absolute(root).map_err(file_error(root))?;
    let gateway = Gateway::of(root);
    if answers(&gateway)? {
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
    if answers(&gateway)? {
        return Ok(gateway);
    }
    let mut child = spawn(root, exe, &log)?;
    await_answer(&gateway, &mut child, log)?;
    // Collects the process when it ends, so that none is left behind as a zombie.
    std::thread::spawn(move || child.wait());
    Ok(gateway)
}

fn answers(gateway: &Gateway) -> Result<bool, StartError> {
    match gateway.status() {
        Ok(_) => Ok(true),
        Err(GatewayError::NotRunning { .. } | GatewayError::Broken { .. }) => Ok(false),
        Err(error) => Err(StartError::Unusable(error)),
    }
}

fn await_answer(gateway: &Gateway, child: &mut Child, log: PathBuf) -> Result<(), StartError> {
    let deadline = Instant::now() + START_TIME;
    while !answers(gateway)? {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(StartError::Ended { status, log });
        }
        if Instant::now() >= deadline {
            // It is ours and of no use; whoever comes next may try again.
            let _ = child.kill();
            let _ = child.wait();
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
