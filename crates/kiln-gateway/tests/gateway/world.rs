//! A root with a gateway, and networks made for one test.

use std::collections::hash_map::RandomState;
use std::fs::Metadata;
use std::hash::{BuildHasher, Hasher};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kiln_gateway::control::{Event, Watch};
use kiln_gateway::{Gateway, GatewayError, ensure_running};
use kiln_model::handling::Handling;
use kiln_model::name::{ComponentId, InstanceId};
use kiln_model::route::{Backend, EndpointRoute, NetworkRoute, Protocol, RouteTable};
use kiln_netns::Namespace;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A root of its own with a running gateway; both are gone when this is dropped.
pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) gateway: Gateway,
    pub(crate) pid: u32,
}

/// The program that runs a gateway alone, built beside the tests.
pub(crate) fn exe() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().and_then(Path::parent).unwrap();
    profile.join("examples/gateway")
}

/// A port that is free for TCP and UDP alike: below those that the kernel gives to clients, as
/// another test's connection might take one of theirs before it is listened at, and another each
/// time.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let begin = RandomState::new().build_hasher().finish() % u64::from(u16::MAX);
        AtomicU16::new(u16::try_from(begin).unwrap())
    });
    loop {
        let port = 10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 22_000;
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return port;
        }
    }
}

/// Whether the test can run here; says so when it cannot.
pub(crate) fn can_run(name: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let ip = Command::new("ip").arg("-V").output().is_ok();
    if !root || !ip {
        println!("skipped: {name}: needs root and the `ip` command");
    }
    root && ip
}

impl World {
    pub(crate) fn start(name: &str) -> Option<Self> {
        if !can_run(name) {
            return None;
        }
        let root = tempfile::Builder::new().prefix("kiln-gateway-").tempdir().unwrap();
        let gateway = ensure_running(root.path(), &exe()).unwrap();
        let pid = gateway.status().unwrap().pid;
        Some(Self { root, gateway, pid })
    }

    /// A network namespace with its loopback up, pinned where the gateway looks for it.
    pub(crate) fn network(&self, id: &str) -> Network {
        Network::new(self.root.path(), id)
    }

    /// Whether the gateway's process is there.
    pub(crate) fn is_running(&self) -> bool {
        Path::new(&format!("/proc/{}/exe", self.pid)).exists()
            && std::fs::read_link(format!("/proc/{}/exe", self.pid)).is_ok()
    }

    /// What the gateway's descriptors lead to.
    pub(crate) fn descriptors(&self) -> Vec<Metadata> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().flatten();
        entries.filter_map(|entry| std::fs::metadata(entry.path()).ok()).collect()
    }

    /// How many sockets the gateway has.
    pub(crate) fn sockets(&self) -> usize {
        self.descriptors().iter().filter(|file| file.file_type().is_socket()).count()
    }

    /// The same, without those of control connections that are just being closed.
    pub(crate) fn settled_sockets(&self) -> usize {
        let samples = (0..20).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            self.sockets()
        });
        samples.min().unwrap()
    }

    /// Resident memory of the gateway, bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        let _ = kill_process(pid, signal);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(Signal::KILL);
        }
        let log = std::fs::read_to_string(self.root.path().join("logs/gateway.log"));
        if let Ok(log) = log
            && !log.is_empty()
        {
            println!("the gateway said:\n{log}");
        }
    }
}

/// A network namespace; unpinned when dropped.
pub(crate) struct Network {
    pub(crate) id: InstanceId,
    pub(crate) namespace: Namespace,
    path: PathBuf,
}

impl Network {
    fn new(root: &Path, id: &str) -> Self {
        let directory = root.join("run/net");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(id);
        std::fs::write(&path, "").unwrap();
        let pinned = path.clone();
        std::thread::spawn(move || {
            // SAFETY: only this thread moves, and it ends here; no descriptors are unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            ip(&["link", "set", "lo", "up"]);
            mount_bind("/proc/thread-self/ns/net", &pinned).unwrap();
        })
        .join()
        .unwrap();
        let namespace = Namespace::open(&path).unwrap();
        Self { id: id.parse().unwrap(), namespace, path }
    }

    /// Whether the gateway has no descriptor of the namespace left.
    pub(crate) fn is_let_go_of_by(&self, world: &World) -> bool {
        let namespace = std::fs::metadata(&self.path).unwrap();
        let is_it =
            |file: &Metadata| (file.dev(), file.ino()) == (namespace.dev(), namespace.ino());
        !world.descriptors().iter().any(is_it)
    }

    /// Adds an address that is reachable inside.
    pub(crate) fn add_address(&self, address: &str) {
        let (namespace, address) = (self.namespace.clone(), address.to_owned());
        let added = std::thread::spawn(move || {
            namespace.enter(|| ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]))
        });
        added.join().unwrap().unwrap();
    }

    /// A route that does nothing yet.
    pub(crate) fn route(&self, resolver: &str) -> NetworkRoute {
        NetworkRoute {
            network: self.id.clone(),
            resolver: resolver.parse().unwrap(),
            services: Vec::new(),
            clients: std::collections::BTreeMap::new(),
            forward_names: false,
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

/// A component, such as `endpoint.shop`.
pub(crate) fn component(text: &str) -> ComponentId {
    text.parse().unwrap()
}

/// A table of the stack `shop` with the next epoch of the process.
pub(crate) fn table(endpoints: Vec<EndpointRoute>, networks: Vec<NetworkRoute>) -> RouteTable {
    static EPOCH: AtomicU64 = AtomicU64::new(1);
    let epoch = EPOCH.fetch_add(1, Ordering::SeqCst);
    RouteTable {
        databases: Vec::new(),
        stack: "shop".parse().unwrap(),
        epoch,
        endpoints,
        networks,
        splits: Vec::new(),
    }
}

/// The endpoint `endpoint.NAME` on a port of the loopback.
pub(crate) fn endpoint(
    name: &str,
    port: u16,
    protocol: Protocol,
    backends: Vec<Backend>,
) -> EndpointRoute {
    EndpointRoute {
        component: component(&format!("endpoint.{name}")),
        listen: ([127, 0, 0, 1], port).into(),
        protocol,
        to: component("server.web"),
        backends,
        sleeps: false,
        rules: Vec::new(),
        handling: Handling::default(),
    }
}

/// Waits until something holds; fails the test when it does not within `limit`.
pub(crate) fn eventually(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The next event that is more than the word of a table in force.
pub(crate) fn event(watch: &mut Watch, limit: Duration) -> Result<Option<Event>, GatewayError> {
    let deadline = Instant::now() + limit;
    loop {
        match watch.next(deadline.saturating_duration_since(Instant::now()))? {
            Some(Event::Routed { .. }) => {}
            event => return Ok(event),
        }
    }
}
