//! The root of one test: made, cleared, and swept where its process was killed.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ipnet::Ipv4Net;
use kiln_model::digest::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::cgroup::{Cgroups, Hierarchies};
use crate::instance::client::Client;
use crate::instance::{StopPolicy, destroy, record};
use crate::launcher::protocol::NetworkAttachment;
use crate::launcher::{SOCKET, root_id};
use crate::local::create::chain;
use crate::network::{NetworkSpec, Networks};

/// Begins the name of each test's root.
const PREFIX: &str = "t-";
/// Locked as long as the test's process lives.
const LOCK: &str = "lock";
/// Locked while a test's root is begun, or looked at by who sweeps.
const GATE: &str = "tests.lock";
/// The test's network, which no other network can be confused with: it is alone in its namespace.
const NETWORK: &str = "test";
/// How long a launcher may take to end.
const LAUNCHER_LIMIT: Duration = Duration::from_secs(5);

/// The root of one test.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) networks: Networks,
    _lock: File,
}

impl Place {
    /// Makes a root with a network in it. On failure nothing of it is left.
    pub(super) fn make(root: &Path) -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}", std::process::id());
        let path = root.join("run").join(name);
        let failed = |error: io::Error| format!("{} cannot be made: {error}", path.display());
        let lock = begin(root, &path).map_err(failed)?;
        Self::furnish(&path, lock).inspect_err(|_| {
            // The first error is the one that explains; what is left now is swept later.
            let _ = clear(&path);
        })
    }

    fn furnish(path: &Path, lock: File) -> Result<Self, String> {
        let id = id(path);
        fs::write(path.join("id"), &id)
            .map_err(|error| format!("{} cannot be written to: {error}", path.display()))?;
        let failed = |error: crate::network::Error| {
            format!("the test's network cannot be made: {}", chain(&error))
        };
        let networks = Networks::new(path.join("run/net"), &id).map_err(failed)?;
        networks.create(&network()).map_err(failed)?;
        Ok(Self { path: path.to_owned(), networks, _lock: lock })
    }

    /// A place on the network, as the given one of its few instances.
    pub(super) fn attachment(&self, number: u8) -> NetworkAttachment {
        let spec = network();
        // The upper half of the range belongs to instances.
        let first = u32::from(spec.stable().broadcast()) + 1;
        NetworkAttachment {
            namespace: self.networks.path(NETWORK),
            address: (first + u32::from(number)).into(),
            prefix_bits: spec.cidr.prefix_len(),
            gateway: spec.gateway(),
        }
    }

    /// Ends everything and takes it away.
    pub(super) fn clear(&self) -> Result<(), String> {
        clear(&self.path)
    }
}

fn network() -> NetworkSpec {
    NetworkSpec {
        id: NETWORK.to_owned(),
        cidr: Ipv4Net::new_assert([10, 127, 0, 0].into(), 28),
        egress: Vec::new(),
        label: "a test of an image".to_owned(),
    }
}

/// An id that no root has: others are random, this follows from a name and the time.
fn id(path: &Path) -> String {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let text = format!("{} {}", path.display(), time.as_nanos());
    Digest::of(text.as_bytes()).hex().chars().take(8).collect()
}

/// Makes the directory of a test's root and locks it, while nobody sweeps.
fn begin(root: &Path, path: &Path) -> io::Result<File> {
    let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    make(&root.join("run"))?;
    let _alone = alone(root)?;
    make(path)?;
    lock(path)?.ok_or_else(|| io::ErrorKind::ResourceBusy.into())
}

/// Held for the moment between a directory's making and its locking.
fn alone(root: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let path = root.join("run").join(GATE);
    let file = options.create(true).truncate(false).write(true).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// The lock of a test's root, unless a living process has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(path.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes away what killed processes have left below `root`. What can't be removed now is tried
/// again by the next.
pub(super) fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root.join("run")) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let locked = alone(root).and_then(|_alone| lock(&entry.path()));
        if let Ok(Some(_lock)) = locked {
            let _ = clear(&entry.path());
        }
    }
}

fn clear(path: &Path) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        format!("{what} of the test cannot be removed: {error}; {} is left", path.display())
    };
    if let Ok(id) = root_id(path) {
        let hierarchies = Hierarchies::detect().map_err(|e| failed("control groups", &e))?;
        let cgroups = Cgroups::new(hierarchies, &id);
        end_instances(path, &cgroups).map_err(|error| failed("an instance", &error))?;
        end_launcher(path);
        let _ = cgroups.remove_parents();
        let networks = Networks::new(path.join("run/net"), &id);
        networks
            .and_then(|networks| networks.destroy(NETWORK))
            .map_err(|error| failed("the network", &chain(&error)))?;
    }
    if let Some(mounted) = mounted_below(path).map_err(|e| failed("mounts", &e))? {
        return Err(failed("a mount", &mounted));
    }
    fs::remove_dir_all(path).map_err(|error| failed("the directory", &error))
}

fn end_instances(path: &Path, cgroups: &Cgroups) -> Result<(), String> {
    let mut names: BTreeSet<String> = record::list(path).unwrap_or_default().into_iter().collect();
    names.extend(cgroups.list().unwrap_or_default());
    let policy = StopPolicy { signal: libc::SIGKILL, grace: Duration::ZERO };
    for name in names {
        destroy(path, cgroups, &name, policy).map_err(|error| chain(&error))?;
    }
    Ok(())
}

/// Asks the launcher to end, and waits for it. One that does not answer ends by itself, when it has
/// had nothing to do for a while.
fn end_launcher(path: &Path) {
    let Ok(mut client) = Client::connect(path) else { return };
    let _ = client.shutdown();
    let deadline = Instant::now() + LAUNCHER_LIMIT;
    while path.join(SOCKET).exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    // It removes the file of its pid after its socket.
    while path.join("run/launcher.pid").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The first mount on or below `path`: removing files there would reach into it.
fn mounted_below(path: &Path) -> io::Result<Option<String>> {
    let path = path.canonicalize()?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(str::to_owned).find(|point| Path::new(point).starts_with(&path)))
}
