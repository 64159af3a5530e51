//! Process 1 of a sandbox: puts its file system together, gives up what a build does not need,
//! starts the program and reaps what is orphaned.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path};

use kiln_image::sandbox::HOST_NAME;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::message::{Ended, Order, Report};
use crate::launcher::base::{attach, new_mount_with};
use crate::launcher::child::{candidates, most_telling};
use crate::launcher::mounts::{self, inside};
use crate::launcher::privileges::{become_root_of_user_namespace, change_ids, limit_files};
use crate::launcher::protocol::FileMount;
use crate::launcher::sys;
use crate::launcher::user::Identity;
use crate::seccomp::Filter;

/// From the helper: ids are mapped, the network is up, and it follows.
pub(super) const GO: u8 = b'g';
/// The exit status of a process that has failed before the program ran.
const FAILED: i32 = 126;
/// Where a job's own files may be made beside those of the root.
const TEMPORARY: &str = "/tmp";
/// Room in /dev/shm, in bytes, and inodes.
const SHARED_MEMORY: (&str, &str) = ("67108864", "4096");

/// What root may do to files, accounts and its own processes.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT);

/// What the child works with, all prepared by the helper.
pub(super) struct Birth<'a> {
    pub(super) order: &'a Order,
    pub(super) socket: &'a OwnedFd,
    /// The directory as a mount, and a /dev.
    pub(super) root: &'a OwnedFd,
    pub(super) dev: &'a OwnedFd,
    pub(super) v1_tasks: &'a [File],
    pub(super) null: BorrowedFd<'a>,
    pub(super) filter: &'a Filter,
}

/// Does the work of process 1, to its end.
pub(super) fn run(birth: &Birth<'_>) -> ! {
    let report = match prepare(birth) {
        Ok(()) => start(birth),
        Err(text) => Report::Unavailable(text),
    };
    tell(birth.socket, &report);
    // SAFETY: ends the process without running the helper's exit handlers.
    unsafe { libc::_exit(FAILED) }
}

fn tell(socket: &OwnedFd, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        // Nobody is left to be told where the helper has gone.
        let _ = rustix::io::write(socket, &line);
    }
}

fn prepare(birth: &Birth<'_>) -> Result<(), String> {
    let fail = |what: &str, error: io::Error| format!("{what}: {error}");
    for mut tasks in birth.v1_tasks {
        tasks.write_all(b"0").map_err(|error| fail("join a control group", error))?;
    }
    wait_for_go(birth.socket)?;
    become_root_of_user_namespace().map_err(|error| error.to_string())?;
    detach().map_err(|error| fail("leave the helper's surroundings", error))?;
    file_system(birth)?;
    mounts::enter().map_err(|error| error.to_string())?;
    stdio(birth.null).map_err(|error| fail("connect the output", error))?;
    // Where the kernel does not know it, addresses are random as ever.
    // SAFETY: changes how the next program of this process is laid out, nothing else.
    unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
    give_up(birth.filter).map_err(|error| fail("give privileges up", error))
}

fn wait_for_go(socket: &OwnedFd) -> Result<(), String> {
    let mut byte = [0];
    loop {
        match rustix::io::read(socket, &mut byte) {
            Ok(1) if byte[0] == GO => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            _ => return Err("the helper has given up".to_owned()),
        }
    }
}

fn detach() -> io::Result<()> {
    // SAFETY: one thread, and memory is not affected.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?;
    rustix::system::sethostname(HOST_NAME.as_bytes())?;
    rustix::process::setsid()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::reset_signals();
    match sys::join_new_session_keyring() {
        // A kernel without keyrings has none to inherit.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result,
    }
}

fn file_system(birth: &Birth<'_>) -> Result<(), String> {
    let text = |error: crate::launcher::protocol::LaunchError| error.to_string();
    mounts::root(birth.root).map_err(text)?;
    mounts::dev(birth.dev).map_err(text)?;
    let (size, inodes) = SHARED_MEMORY;
    let plain = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    tmpfs(&[("size", size), ("nr_inodes", inodes), ("mode", "1777")], plain, "/dev/shm")?;
    mounts::proc(!birth.order.network).map_err(text)?;
    let size = birth.order.memory_bytes.to_string();
    tmpfs(&[("size", &size), ("mode", "1777")], plain, TEMPORARY)?;
    let mut over = Vec::new();
    for (path, content, executable) in &birth.order.files {
        if Path::new(path).starts_with(TEMPORARY) {
            temporary_file(path, content, *executable)
                .map_err(|error| format!("make {path}: {error}"))?;
        } else {
            let (path, content) = (path.clone(), content.clone());
            over.push(FileMount { path, content, mode: 0o644 });
        }
    }
    mounts::files(&over).map_err(text)
}

fn tmpfs(options: &[(&str, &str)], attributes: MountAttrFlags, at: &str) -> Result<(), String> {
    new_mount_with("tmpfs", options, attributes)
        .and_then(|mount| attach(&mount, &inside(at)))
        .map_err(|error| format!("mount on {at} (a directory of the image): {error}"))
}

/// Makes a file below the new /tmp, where there are no links yet.
fn temporary_file(path: &str, content: &str, executable: bool) -> io::Result<()> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !Path::new(path).components().all(plain) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = inside(path);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mode = if executable { 0o755 } else { 0o644 };
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file?.write_all(content.as_bytes())
}

/// The output is the helper's own, which stands at descriptors 1 and 2.
fn stdio(null: BorrowedFd<'_>) -> io::Result<()> {
    rustix::stdio::dup2_stdin(null)?;
    sys::close_on_exec_from(3)
}

fn give_up(filter: &Filter) -> io::Result<()> {
    limit_files(None)?;
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if CAPABILITIES.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Beyond the last capability that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            result => result?,
        }
    }
    let none = CapabilitySet::empty();
    let sets =
        CapabilitySets { effective: CAPABILITIES, permitted: CAPABILITIES, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    filter.install()
}

/// Starts the program and waits for its end; what is orphaned is reaped meanwhile.
fn start(birth: &Birth<'_>) -> Report {
    // SAFETY: one thread; the child runs on with memory of its own.
    let program = match unsafe { libc::fork() } {
        0 => {
            tell(birth.socket, &Report::Program(execute(birth.order)));
            // SAFETY: ends the process without running the helper's exit handlers.
            unsafe { libc::_exit(FAILED) }
        }
        -1 => return Report::Unavailable(format!("fork: {}", io::Error::last_os_error())),
        program => program,
    };
    loop {
        let mut status = 0;
        // SAFETY: the status is written to a live variable.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if ended == program {
            return Report::Ended(if libc::WIFSIGNALED(status) {
                Ended::Signal(libc::WTERMSIG(status))
            } else {
                Ended::Status(libc::WEXITSTATUS(status))
            });
        }
        if ended < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Report::Unavailable(format!("wait: {}", io::Error::last_os_error()));
        }
    }
}

/// Becomes the program. Returns only why not.
fn execute(order: &Order) -> String {
    let (uid, gid) = order.user;
    let identity = Identity { uid, gid, groups: Vec::new() };
    if let Err(error) = change_ids(&identity) {
        return format!("become user {uid}:{gid}: {error}");
    }
    if let Err(error) = rustix::process::chdir(&order.workdir) {
        return format!("enter {}: {error}", order.workdir);
    }
    let Some(program) = order.argv.first() else { return "no program is given".to_owned() };
    let strings = || -> Result<_, std::ffi::NulError> {
        let argv = order.argv.iter().map(|text| CString::new(text.as_str()));
        let env = order.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
        Ok((argv.collect::<Result<Vec<_>, _>>()?, env.collect::<Result<Vec<_>, _>>()?))
    };
    let Ok((argv, env)) = strings() else {
        return "arguments and environment cannot hold a zero byte".to_owned();
    };
    let error = candidates(program, &order.env)
        .iter()
        .map(|path| sys::execve(path, &argv, &env))
        .reduce(most_telling);
    let error = error.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT));
    format!("execute {program}: {error}")
}

/// Opens what standard input is connected to.
pub(super) fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// The descriptors that the program writes to.
pub(super) fn output() -> [BorrowedFd<'static>; 2] {
    [rustix::stdio::stdout(), rustix::stdio::stderr()]
}
