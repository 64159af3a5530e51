//! Roots, instances and listeners for the tests of networks.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_local::network::{AttachSpec, NetworkSpec, Networks, attach};
use kiln_netns::Namespace;
use tempfile::TempDir;

/// How long what must happen may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How long it is waited for what must not happen.
pub(crate) const NEVER: Duration = Duration::from_millis(400);

/// The range of most tests.
pub(crate) const CIDR: &str = "10.60.0.0/24";
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 1);
/// A stable address of it, and two addresses of instances.
pub(crate) const STABLE: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 10);
pub(crate) const ONE: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 201);
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 202);

/// A root with its own directory and its own "host". Its networks go when it is dropped.
pub(crate) struct Root {
    pub(crate) directory: TempDir,
    pub(crate) host: Namespace,
    pub(crate) networks: Networks,
}

impl Root {
    /// A root, or `None` (and a line) where namespaces are not permitted.
    pub(crate) fn new(test: &str) -> Option<Self> {
        match Namespace::create() {
            Ok(host) => Some(Self::on(host)),
            Err(error) => {
                println!("skipped: {test}: {error}");
                None
            }
        }
    }

    /// A root of its own on that host.
    pub(crate) fn on(host: Namespace) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:04x}{number:04x}", std::process::id() & 0xffff);
        let directory = tempfile::tempdir().unwrap();
        let networks = Networks::with_host(directory.path().join("net"), id, host.clone());
        Self { directory, host, networks }
    }

    /// Makes a network and opens its namespace.
    pub(crate) fn network(&self, spec: &NetworkSpec) -> Namespace {
        let info = self.networks.create(spec).unwrap();
        Namespace::open(info.path).unwrap()
    }

    /// Lines of the mount table that name the root's directory.
    pub(crate) fn mounts(&self) -> usize {
        let directory = self.directory.path().to_str().unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(directory)).count()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let Ok(entries) = std::fs::read_dir(self.directory.path().join("net")) else { return };
        for entry in entries.flatten() {
            if let Err(error) = self.networks.destroy(&entry.file_name().to_string_lossy()) {
                println!("left behind: {}: {error}", entry.path().display());
            }
        }
    }
}

pub(crate) fn spec(id: &str) -> NetworkSpec {
    NetworkSpec {
        id: id.to_owned(),
        cidr: CIDR.parse().unwrap(),
        egress: Vec::new(),
        label: "network.front".to_owned(),
    }
}

pub(crate) fn place(instance: &str, address: Ipv4Addr) -> AttachSpec {
    let [a, b, c, _] = address.octets();
    AttachSpec {
        instance: instance.to_owned(),
        address,
        prefix_bits: 24,
        gateway: Ipv4Addr::new(a, b, c, 1),
    }
}

/// A namespace that stands for an instance, attached to the network.
pub(crate) fn instance(network: &Namespace, name: &str, address: Ipv4Addr) -> Namespace {
    let namespace = Namespace::create().unwrap();
    attach(network, &namespace, &place(name, address)).unwrap();
    namespace
}

/// Whether, and how, a connection is refused, and how long that took.
pub(crate) fn refusal(
    from: &Namespace,
    to: SocketAddrV4,
    patience: Duration,
) -> (Option<ErrorKind>, Duration) {
    let start = Instant::now();
    let answer = from.tcp_connect(to, patience);
    (answer.err().map(|error| error.kind()), start.elapsed())
}

/// Whether a connection is neither made nor refused within the time that is waited.
pub(crate) fn unanswered(from: &Namespace, to: SocketAddrV4) -> bool {
    let (kind, _) = refusal(from, to, NEVER);
    // A neighbour that does not answer is reported after some seconds only.
    matches!(kind, Some(ErrorKind::TimedOut | ErrorKind::HostUnreachable))
}

/// A listener that tells each client its name and the address that the client had asked for.
pub(crate) struct Teller {
    pub(crate) address: SocketAddrV4,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Teller {
    pub(crate) fn new(namespace: &Namespace, address: Ipv4Addr, name: &'static str) -> Self {
        let listener = namespace.tcp_listener(SocketAddrV4::new(address, 0), 1024).unwrap();
        Self::with(listener, name)
    }

    pub(crate) fn with(listener: TcpListener, name: &'static str) -> Self {
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            unreachable!("an IPv4 listener")
        };
        let end = Arc::new(AtomicBool::new(false));
        let thread = {
            let end = Arc::clone(&end);
            std::thread::spawn(move || tell(&listener, name, &end))
        };
        Self { address, end, thread: Some(thread) }
    }
}

/// Ends threads that look at its flag, also when the test fails meanwhile: a scope waits for its
/// threads before it lets a failure through.
pub(crate) struct Ending<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tell(listener: &TcpListener, name: &str, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let asked = rustix::net::sockopt::ip_original_dst(&stream)
                    .map_or_else(|_| "direct".to_owned(), |address| address.to_string());
                let _ = stream.write_all(format!("{name} {asked}").as_bytes());
            }
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// What the teller at `to` says.
pub(crate) fn ask(from: &Namespace, to: SocketAddrV4) -> Result<String, String> {
    let mut stream = from.tcp_connect(to, SOON).map_err(|error| format!("{error:?}"))?;
    listen(&mut stream).map_err(|error| error.to_string())
}

fn listen(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}
