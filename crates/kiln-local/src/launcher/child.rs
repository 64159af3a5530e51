//! The child between clone and exec: it turns into the instance.
//!
//! It shares nothing with the launcher but a socket. It waits there for two bytes: [`GO_MOUNT`]
//! once its ids are mapped, [`GO_EXEC`] once its interface is up; in between it works side by side
//! with the launcher. It reports a failure as a JSON [`LaunchError`] and ends; [`EXECUTING`] right
//! before the exec, which closes the socket, tells success from sudden death.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::mounts::{self, CgroupView};
use super::privileges;
use super::protocol::{LaunchError, LaunchSpec, Stage};
use super::sys;
use super::user::Identity;
use crate::seccomp::Filter;

/// From the launcher: the ids are mapped.
pub(super) const GO_MOUNT: u8 = b'm';
/// From the launcher: the interface is up.
pub(super) const GO_EXEC: u8 = b'x';
/// From the child: all is done but the exec.
pub(super) const EXECUTING: u8 = b'e';

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The exit status of a child that has failed before its program ran.
const FAILED: i32 = 126;

/// What the child works with, all prepared by the launcher.
pub(super) struct Birth<'a> {
    pub(super) spec: &'a LaunchSpec,
    pub(super) identity: &'a Identity,
    /// The child's end of the socket.
    pub(super) socket: &'a OwnedFd,
    /// Mounts of the instance's own: the image and /dev.
    pub(super) image: &'a OwnedFd,
    pub(super) dev: &'a OwnedFd,
    /// Mounts of the volumes, in their order.
    pub(super) volumes: &'a [OwnedFd],
    /// `tasks` of the version 1 groups.
    pub(super) v1_tasks: &'a [File],
    pub(super) cgroups: &'a [CgroupView],
    /// Standard input, output and error.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    pub(super) user_namespace: bool,
    /// Which system calls its program may make.
    pub(super) filter: &'a Filter,
}

/// Becomes the program, or reports why not and ends.
pub(super) fn run(birth: &Birth<'_>) -> ! {
    let error = match prepare(birth) {
        Ok(()) => execute(birth),
        Err(error) => error,
    };
    // Nobody is left to tell if the launcher has gone.
    let _ = serde_json::to_writer(Socket(birth.socket.as_fd()), &error);
    // SAFETY: ends the process without running the launcher's exit handlers.
    unsafe { libc::_exit(FAILED) }
}

fn prepare(birth: &Birth<'_>) -> Result<(), LaunchError> {
    let spec = birth.spec;
    for mut tasks in birth.v1_tasks {
        let join = tasks.write_all(b"0");
        join.map_err(|error| LaunchError::os(Stage::Cgroup, "join", error))?;
    }
    adjust_oom_score(spec.limits.oom_score_adjust)
        .map_err(|error| LaunchError::os(Stage::Privileges, "set oom_score_adj", error))?;
    wait_for(birth.socket, GO_MOUNT, Stage::UserNamespace)?;
    if birth.user_namespace {
        privileges::become_root_of_user_namespace()?;
    }
    detach(spec)?;
    mounts::root(birth.image)?;
    mounts::dev(birth.dev)?;
    // A network that belongs to another instance is not to be configured, and /sys, which shows
    // a network's interfaces, can't be mounted for it.
    mounts::proc(spec.joins.is_none())?;
    if spec.joins.is_none() {
        mounts::sys(birth.cgroups)?;
    }
    mounts::writable(&spec.writable, birth.identity)?;
    mounts::volumes(&spec.volumes, birth.volumes)?;
    mounts::directories(&spec.directories)?;
    mounts::files(&spec.files)?;
    mounts::enter()?;
    set_stdio(birth.stdio)
        .map_err(|error| LaunchError::os(Stage::Privileges, "connect the output", error))?;
    wait_for(birth.socket, GO_EXEC, Stage::Network)?;
    privileges::drop_all(birth.identity, spec, birth.filter)?;
    rustix::process::chdir(&spec.workdir)
        .map_err(|error| LaunchError::os(Stage::Workdir, format!("enter {}", spec.workdir), error))
}

fn adjust_oom_score(score: u16) -> io::Result<()> {
    if score == 0 {
        return Ok(());
    }
    let mut file = File::options().write(true).open("/proc/self/oom_score_adj")?;
    file.write_all(score.to_string().as_bytes())
}

/// Leaves what was inherited of the launcher: control group view, name, session, keys, signals.
fn detach(spec: &LaunchSpec) -> Result<(), LaunchError> {
    // Not at clone: the namespace's root is the group of the caller, there still the launcher's.
    // SAFETY: one thread, and memory is not affected.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }
        .map_err(|error| LaunchError::os(Stage::Cgroup, "new control group namespace", error))?;
    rustix::system::sethostname(spec.hostname.as_bytes())
        .map_err(|error| LaunchError::os(Stage::Hostname, &spec.hostname, error))?;
    rustix::process::setsid()
        .map_err(|error| LaunchError::os(Stage::Privileges, "new session", error))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // The launcher has set the others to their defaults already.
    sys::reset_sigpipe();
    match sys::join_new_session_keyring() {
        // A kernel without keyrings has none to inherit.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => {
            result.map_err(|error| LaunchError::os(Stage::Privileges, "new session keyring", error))
        }
    }
}

fn set_stdio(stdio: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    rustix::stdio::dup2_stdin(stdio[0])?;
    rustix::stdio::dup2_stdout(stdio[1])?;
    rustix::stdio::dup2_stderr(stdio[2])?;
    sys::close_on_exec_from(3)
}

fn wait_for(socket: &OwnedFd, expected: u8, stage: Stage) -> Result<(), LaunchError> {
    let mut byte = [0];
    loop {
        match rustix::io::read(socket, &mut byte) {
            Ok(1) if byte[0] == expected => return Ok(()),
            Err(Errno::INTR) => {}
            Ok(_) => return Err(LaunchError::new(stage, "the launcher has given up")),
            Err(error) => return Err(LaunchError::os(stage, "wait for the launcher", error)),
        }
    }
}

fn execute(birth: &Birth<'_>) -> LaunchError {
    let spec = birth.spec;
    let strings = || -> Result<_, std::ffi::NulError> {
        let argv = spec.argv.iter().map(|text| CString::new(text.as_str()));
        let env = spec.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
        Ok((argv.collect::<Result<Vec<_>, _>>()?, env.collect::<Result<Vec<_>, _>>()?))
    };
    let Ok((argv, env)) = strings() else {
        return LaunchError::new(Stage::Spec, "arguments and environment cannot hold a zero byte");
    };
    let Some(program) = spec.argv.first() else {
        return LaunchError::new(Stage::Spec, "there is no program to run");
    };
    if let Err(error) = rustix::io::write(birth.socket, &[EXECUTING]) {
        return LaunchError::os(Stage::Exec, "report to the launcher", error);
    }
    let error = candidates(program, &spec.env)
        .iter()
        .map(|path| sys::execve(path, &argv, &env))
        .reduce(most_telling);
    let error = error.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT));
    LaunchError::os(Stage::Exec, format!("execute {program}"), error)
}

/// The paths to try for `program`, in their order.
pub(crate) fn candidates(program: &str, env: &[(String, String)]) -> Vec<CString> {
    if program.contains('/') {
        return CString::new(program).into_iter().collect();
    }
    let path = env.iter().find(|(name, _)| name == "PATH");
    let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_str());
    path.split(':')
        .map(|dir| if dir.is_empty() { "." } else { dir })
        .filter_map(|dir| CString::new(format!("{dir}/{program}")).ok())
        .collect()
}

/// A program that is there and cannot be run says more than one that is not there.
pub(crate) fn most_telling(first: io::Error, second: io::Error) -> io::Error {
    let absent =
        |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
    if absent(&first) { second } else { first }
}

/// Writes to a borrowed descriptor.
struct Socket<'a>(BorrowedFd<'a>);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(program: &str, path: Option<&str>) -> Vec<String> {
        let env: Vec<(String, String)> =
            path.into_iter().map(|path| ("PATH".to_owned(), path.to_owned())).collect();
        let show = |path: &CString| path.to_string_lossy().into_owned();
        candidates(program, &env).iter().map(show).collect()
    }

    #[test]
    fn programs_are_looked_up_in_the_path_of_the_environment() {
        assert_eq!(tried("sh", Some("/a::/b")), ["/a/sh", "./sh", "/b/sh"]);
        assert_eq!(tried("/bin/sh", Some("/a")), ["/bin/sh"]);
        assert_eq!(tried("sh", None).last().unwrap(), "/bin/sh");
    }

    #[test]
    fn a_program_that_may_not_run_outweighs_one_that_is_absent() {
        let error = |errno| io::Error::from_raw_os_error(errno);
        let told = |a, b| most_telling(error(a), error(b)).raw_os_error();
        assert_eq!(told(libc::ENOENT, libc::EACCES), Some(libc::EACCES));
        assert_eq!(told(libc::EACCES, libc::ENOENT), Some(libc::EACCES));
    }
}
