//! The helper: makes one sandbox, follows it, and leaves nothing of it.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kiln_netns::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid};
use rustix::mount::OpenTreeFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit, Signal, pidfd_send_signal, setrlimit};

use super::child::{self, Birth, GO};
use super::message::{Answer, Ended, Order, Report, receive, send};
use super::{CLOCK_IS_FIXED, COUNT, IDS};
use crate::cgroup::{Cgroups, Group, Hierarchies};
use crate::launcher::base::Base;
use crate::launcher::protocol::Limits;
use crate::launcher::root_id;
use crate::launcher::sys::{self, Cloned};
use crate::network;
use crate::seccomp::Filter;

/// How long killed processes may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Serves one job that is told on standard input. To be called by a process with one thread, which
/// has nothing else to do.
pub fn run(root: &Path) -> ExitCode {
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let Ok(mut asker) = input.map(UnixStream::from) else { return ExitCode::FAILURE };
    let Ok(Some(order)) = receive::<Order>(&mut asker) else {
        eprintln!("sandbox: there is no job on standard input; image builds start this program");
        return ExitCode::FAILURE;
    };
    let answer = serve(root, &order, &asker).unwrap_or_else(Answer::Unavailable);
    match send(&mut asker, &answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(root: &Path, order: &Order, asker: &UnixStream) -> Result<Answer, String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // Away from the terminal's signals: the end of the asker is what ends this.
    let _ = rustix::process::setsid();
    sys::reset_signals();
    sys::ignore_sigpipe();
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|e| failed("forbid core files")(e.into()))?;
    let root_id = root_id(root).map_err(failed("the root's id"))?;
    let hierarchies = Hierarchies::detect().map_err(|error| error.to_string())?;
    let directory = Directory::open(&order.root).map_err(failed("open the directory"))?;
    let base = Base::enter().map_err(failed("a mount namespace"))?;
    let hierarchies = hierarchies.seen_through(&base.host(Path::new("/")));
    let cgroups = Cgroups::new(hierarchies, &format!("build-{root_id}"));
    sweep(&cgroups);
    let limits = Limits {
        memory_bytes: Some(order.memory_bytes),
        pids: Some(order.pids),
        ..Limits::default()
    };
    let name = group_name(std::process::id()).ok_or("this process is not in /proc")?;
    let group = cgroups.create(&name, &limits).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })?;
    let answer = attempt(order, &directory, &group, asker, IDS).or_else(|refused| match refused {
        Refused::Ids(_) if !order.network => {
            attempt(order, &directory, &group, asker, 0).map_err(Refused::text)
        }
        Refused::Ids(text) => Err(format!(
            "{text}; a program with the network needs ids of its own: put the root on ext4, xfs, \
             btrfs or tmpfs"
        )),
        Refused::Other(text) => Err(text),
    });
    let removed = group.kill_and_remove(KILL_LIMIT);
    let _ = cgroups.remove_parents();
    removed.map_err(|error| error.to_string())?;
    answer
}

/// The directory that becomes a root, held where it is.
struct Directory(OwnedFd);

impl Directory {
    fn open(path: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags, open};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty())?;
        // Cloned while it is still in the mount namespace of this process.
        Self::clone_of(&directory).map(Self)
    }

    fn clone_of(directory: &OwnedFd) -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = rustix::mount::open_tree(directory.as_fd(), "", flags)?;
        sys::mount_setattr(mount.as_fd(), c"", sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV)?;
        Ok(mount)
    }
}

/// Why a sandbox could not be made.
enum Refused {
    /// Owners of files can't be translated.
    Ids(String),
    Other(String),
}

impl Refused {
    fn text(self) -> String {
        match self {
            Self::Ids(text) | Self::Other(text) => text,
        }
    }
}

/// All that goes with a sandbox's process 1.
struct Running<'a> {
    pid: i32,
    pidfd: OwnedFd,
    socket: OwnedFd,
    group: &'a Group,
}

fn attempt(
    order: &Order,
    directory: &Directory,
    group: &Group,
    asker: &UnixStream,
    first_id: u32,
) -> Result<Answer, Refused> {
    let other =
        |what: &'static str| move |error: io::Error| Refused::Other(format!("{what}: {error}"));
    let text = |error: crate::cgroup::CgroupError| Refused::Other(error.to_string());
    let dev = Base::dev_mount().map_err(other("a mount of /dev"))?;
    let null = child::null().map_err(other("open /dev/null"))?;
    let (uid, gid) =
        (first_id + order.user.0.min(COUNT - 1), first_id + order.user.1.min(COUNT - 1));
    for output in child::output() {
        // So that the program can open its output again by its name in /dev.
        let _ = rustix::fs::fchown(output, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    }
    let (socket, child_socket) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| other("a socket pair")(error.into()))?;
    let v1_tasks = group.open_v1_tasks().map_err(text)?;
    let unified = group.open_unified().map_err(text)?;
    let filter = Filter::build_profile(CLOCK_IS_FIXED);
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    if !order.network {
        flags |= libc::CLONE_NEWNET;
    }
    // SAFETY: the helper has one thread.
    let cloned =
        unsafe { sys::clone3(u64::from(flags.cast_unsigned()), unified.as_ref().map(AsFd::as_fd)) };
    let (pid, pidfd) = match cloned.map_err(other("clone into new namespaces"))? {
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
        Cloned::Child => {
            drop(socket);
            child::run(&Birth {
                order,
                socket: &child_socket,
                root: &directory.0,
                dev: &dev,
                v1_tasks: &v1_tasks,
                null: null.as_fd(),
                filter: &filter,
            })
        }
    };
    drop(child_socket);
    let running = Running { pid, pidfd, socket, group };
    match running.guide(order, [&directory.0, &dev], first_id) {
        Ok(()) => Ok(running.watch(order, asker)),
        Err(refused) => {
            running.kill();
            running.reap();
            Err(refused)
        }
    }
}

impl Running<'_> {
    /// What the helper does before the sandbox puts itself together.
    fn guide(&self, order: &Order, mounts: [&OwnedFd; 2], first_id: u32) -> Result<(), Refused> {
        let other =
            |what: &str, error: &dyn std::fmt::Display| Refused::Other(format!("{what}: {error}"));
        let map = format!("0 {first_id} {COUNT}");
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", self.pid), &map)
                .map_err(|error| other("map ids", &error))?;
        }
        if first_id != 0 {
            let translate = || -> io::Result<()> {
                let namespace = fs::File::open(format!("/proc/{}/ns/user", self.pid))?;
                // What is in /dev can be used whoever seems to own it.
                let _ = sys::mount_idmap(mounts[1].as_fd(), namespace.as_fd());
                sys::mount_idmap(mounts[0].as_fd(), namespace.as_fd())
            };
            translate().map_err(|error| {
                Refused::Ids(format!("the filesystem cannot translate owners: {error}"))
            })?;
        }
        if !order.network {
            let up = Namespace::of_process(self.pid.unsigned_abs())
                .map_err(|error| other("enter the network", &error))?;
            network::set_loopback_up(&up, "the sandbox")
                .map_err(|error| other("set loopback up", &error))?;
        }
        #[cfg(target_arch = "x86_64")]
        super::clock::follow(self.pid).map_err(|error| other("follow its processes", &error))?;
        rustix::io::write(&self.socket, &[GO]).map_err(|error| other("begin", &error))?;
        Ok(())
    }

    /// Follows the processes to the end of process 1, which is at the deadline or when the asker
    /// has gone at the latest.
    fn watch(&self, order: &Order, asker: &UnixStream) -> Answer {
        let Ok(children) = child_signals() else {
            self.kill();
            self.reap();
            return Answer::Unavailable("signals of children cannot be received".to_owned());
        };
        let deadline = Instant::now() + order.time();
        let mut expired = false;
        loop {
            if self.turn(order) {
                break;
            }
            let now = Instant::now();
            if now >= deadline && !expired {
                expired = true;
                self.kill();
            }
            let left = if expired { KILL_LIMIT } else { deadline - now };
            let mut ready =
                [PollFd::new(&children, PollFlags::IN), PollFd::new(asker, PollFlags::IN)];
            let _ = poll(&mut ready, Timespec::try_from(left).ok().as_ref());
            let gone = !ready[1].revents().is_empty();
            if !ready[0].revents().is_empty() {
                let mut buffer = [0; 1024];
                let _ = rustix::io::read(&children, &mut buffer);
            }
            if gone && !expired {
                expired = true;
                self.kill();
            }
        }
        self.conclude(expired)
    }

    /// Takes all that has happened to processes; whether process 1 has ended.
    fn turn(&self, order: &Order) -> bool {
        loop {
            let mut status = 0;
            // SAFETY: the status is written to a live variable.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
            match pid {
                0 => return false,
                -1 if interrupted() => {}
                // No children any more.
                -1 => return true,
                pid if libc::WIFSTOPPED(status) => {
                    #[cfg(target_arch = "x86_64")]
                    super::clock::go_on(pid, status, order.clock);
                    #[cfg(not(target_arch = "x86_64"))]
                    let _ = (pid, order);
                }
                pid if pid == self.pid => return true,
                _ => {}
            }
        }
    }

    /// What is to be answered after process 1 has ended.
    fn conclude(&self, expired: bool) -> Answer {
        let mut text = String::new();
        let mut socket = fs::File::from(match self.socket.try_clone() {
            Ok(socket) => socket,
            Err(error) => return Answer::Unavailable(error.to_string()),
        });
        let _ = socket.read_to_string(&mut text);
        let reports: Vec<Report> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let out_of_memory = self.group.oom_kills() > 0;
        for report in &reports {
            match report {
                Report::Unavailable(text) => return Answer::Unavailable(text.clone()),
                Report::Program(text) => return Answer::Program(text.clone()),
                Report::Ended(_) => {}
            }
        }
        match reports.first() {
            Some(Report::Ended(how)) => Answer::Ended { how: *how, out_of_memory },
            _ if expired => Answer::Deadline,
            // Process 1 itself was killed: only the kernel does that, for want of memory.
            _ => Answer::Ended { how: Ended::Signal(libc::SIGKILL), out_of_memory },
        }
    }

    fn kill(&self) {
        // With process 1 goes its whole pid namespace.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.group.kill();
    }

    /// Waits for the end of process 1, which was killed.
    fn reap(&self) {
        let mut status = 0;
        // SAFETY: the status is written to a live variable.
        unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
    }
}

fn interrupted() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}

/// A descriptor that is readable when something has happened to a child.
fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before it is used, and outlives the calls.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The control group of the sandbox whose helper is `pid`: `PID-START`, which tells it from a
/// later process of the same number. None when there is no such process.
fn group_name(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Numbered from 1 in proc_pid_stat(5): starttime is field 22, the first after the command 3.
    let ticks = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.to_owned();
    Some(format!("{pid}-{ticks}"))
}

/// Takes away the groups of helpers that were killed.
fn sweep(cgroups: &Cgroups) {
    for name in cgroups.list().unwrap_or_default() {
        let pid = name.split('-').next().and_then(|pid| pid.parse().ok());
        if pid.and_then(group_name).as_ref() != Some(&name) {
            // What can't be removed now, the next sandbox finds.
            let _ = cgroups.group(&name).kill_and_remove(KILL_LIMIT);
        }
    }
}
