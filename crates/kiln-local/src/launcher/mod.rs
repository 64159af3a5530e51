//! The launcher: one small process per root, the parent of all instances.
//!
//! It has one thread and one loop, makes instances straight on the kernel's interface, keeps their
//! output and their exits, and knows nothing of generations, networks or health. It is started by
//! the daemon ([`ensure_running`]) and lives on when that dies; instances live on when the
//! launcher dies, and the next launcher takes them over from their records and control groups.
//!
//! # An instance's process
//!
//! The program itself is process 1 of its pid namespace: no process of Kiln's stands between, so an
//! instance costs no memory of Kiln's, and `pid` is the program's. What an init would add is done
//! without one: when process 1 ends, the kernel ends the whole namespace; a stop signal that the
//! program does not listen to, which the kernel would not deliver to a process 1, is answered with
//! SIGKILL at once instead of after the grace. Orphans are the program's to reap, within the
//! bound on processes.
//!
//! # A start
//!
//! The launcher mounts the image, looks the user up in it, makes the control groups and the pipes,
//! then clones into new namespaces. From there both work at the same time: the child puts its file
//! system together ([`mounts`]) while the launcher attaches the network and writes the record. The
//! child then drops every privilege ([`privileges`]) and executes the program. A failure anywhere
//! is a [`protocol::LaunchError`] that names its stage, and leaves nothing.

mod attach;
pub(crate) mod base;
mod check;
pub(crate) mod child;
pub(crate) mod clients;
pub(crate) mod device_mapper;
mod ensure;
mod ids;
pub(crate) mod images;
mod landlock;
pub(crate) mod loop_device;
pub(crate) mod mounts;
mod pipes;
pub(crate) mod privileges;
pub mod protocol;
mod server;
mod source;
mod start;
pub(crate) mod sys;
mod table;
pub(crate) mod user;
mod verity_device;

pub use ensure::{EnsureError, ensure_running};

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cgroup::{Cgroups, Hierarchies};
use base::Base;
use server::Server;
use start::Starter;

/// The launcher's socket, under the root.
pub const SOCKET: &str = "run/launcher.sock";
/// Locked as long as a launcher lives; holds its process id.
const PID_FILE: &str = "run/launcher.pid";
/// How long a launcher lives without instances and clients, unless told otherwise.
pub const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for an earlier launcher of the root to end.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(5);

/// Runs the launcher of the root at `root` until it has had neither instances nor clients for
/// `idle_limit`. To be called by a process with one thread, which has nothing else to do: it
/// leaves the mount namespace it was started in.
pub fn run(root: &Path, idle_limit: Duration) -> ExitCode {
    match serve(root, idle_limit) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(root: &Path, idle_limit: Duration) -> io::Result<()> {
    let root = root.canonicalize()?;
    let _lock = lock(&root)?;
    let root_id = root_id(&root)?;
    let hierarchies = Hierarchies::detect().map_err(io::Error::other)?;
    let listener = listen(&root)?;
    // Instances inherit what is ignored, but for SIGPIPE, which they take back.
    sys::reset_signals();
    sys::ignore_sigpipe();
    set_limits()?;
    let base = Base::enter()?;
    let through = hierarchies.seen_through(&base.host(Path::new("/")));
    let cgroups = Cgroups::new(through, &root_id);
    let starter = Starter::new(base, &root, cgroups, &root_id)?;
    let mut server = Server::new(starter, listener.into(), idle_limit)?;
    server.adopt()?;
    let result = server.serve();
    // Before the lock goes, so that the next launcher's socket is not the one removed.
    let _ = fs::remove_file(server.socket_path());
    let _ = fs::remove_file(server.starter.root.join(PID_FILE));
    result
}

/// Room for the descriptors of thousands of instances, and no core file, which might hold their
/// secrets.
fn set_limits() -> io::Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}

/// The id in the names of all that the root makes in the kernel: the content of `ROOT/id`.
pub fn root_id(root: &Path) -> io::Result<String> {
    let path = root.join("id");
    let id = fs::read_to_string(&path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
    })?;
    let id = id.trim();
    if id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id.to_owned());
    }
    let text = format!("{} does not hold 8 hexadecimal digits", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

fn lock(root: &Path) -> io::Result<File> {
    let path = root.join(PID_FILE);
    let deadline = Instant::now() + PREDECESSOR_LIMIT;
    loop {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // The predecessor may have removed the file between open and lock.
            Ok(()) if is_at(&file, &path) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                return Ok(file);
            }
            Err(error) if Instant::now() >= deadline => {
                let text = format!("another launcher holds {}: {error}", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let (here, there) = (file.metadata().map(inode), fs::metadata(path).map(inode));
    matches!((here, there), (Ok(here), Ok(there)) if here == there)
}

fn listen(root: &Path) -> io::Result<UnixListener> {
    let path = root.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_directory, path) = short_socket_path(root)?;
    UnixListener::bind(path)
}

/// The socket's path by way of a descriptor: a unix socket's own path may only have 107 bytes. It
/// is good as long as the descriptor is held.
pub(crate) fn short_socket_path(root: &Path) -> io::Result<(impl Sized, PathBuf)> {
    let path = root.join(SOCKET);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, short))
}
