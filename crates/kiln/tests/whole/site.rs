//! A site: a root, the directory of a stack, and the program to work on them.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A root and a stack of their own; all that was started is ended when this is dropped.
pub struct Site {
    directory: TempDir,
    /// A port of the host that nobody else has.
    pub port: u16,
}

/// Skips the test it stands in, and says so, unless whole-program tests can run here.
macro_rules! site_or_skip {
    ($name:expr) => {
        match crate::site::Site::new() {
            Ok(site) => site,
            Err(reason) => {
                println!("skipped: {}: {reason}", $name);
                return;
            }
        }
    };
}
pub(crate) use site_or_skip;

impl Site {
    /// A new site whose stack is called `shop`, or what is lacking.
    pub fn new() -> Result<Self, String> {
        Self::below(&std::env::temp_dir())
    }

    /// The same in a directory.
    pub fn below(place: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let probe = probe()?;
        let directory = TempDir::new_in(place).map_err(|e| e.to_string())?;
        let site = Self { directory, port: free_port() };
        fs::create_dir_all(site.stack()).unwrap();
        fs::copy(probe, site.stack().join("kiln-probe")).unwrap();
        Ok(site)
    }

    /// The root.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The directory of the stack.
    pub fn stack(&self) -> PathBuf {
        self.directory.path().join("shop")
    }

    /// Writes the stack's configuration; `PORT` in it is the site's port.
    pub fn write(&self, text: &str) {
        let text = text.replace("PORT", &self.port.to_string());
        fs::write(self.stack().join("main.kiln.hcl"), text).unwrap();
    }

    /// The program with some arguments, ready to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .arg("--root")
            .arg(self.root())
            .arg("--stack")
            .arg(self.stack())
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program, which must succeed; what it printed on standard output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "kiln {arguments:?}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the program and does not wait for it.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// `kiln status --json`.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.must(&["status", "--json"])).unwrap()
    }

    /// One component of the status.
    pub fn component(&self, kind: &str, name: &str) -> Value {
        let status = self.status();
        let components = status["components"].as_array().unwrap();
        let found = components.iter().find(|c| c["kind"] == kind && c["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind}.{name} in {status}")).clone()
    }

    /// One field of each of a server's instances, in order.
    pub fn instances(&self, server: &str, field: &str) -> Vec<String> {
        let component = self.component("server", server);
        let mut values: Vec<String> = component["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i[field].as_str().map_or_else(|| i[field].to_string(), str::to_owned))
            .collect();
        values.sort();
        values
    }

    /// Asks the stack's endpoint; status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.address(), path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Where the stack's endpoint listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The processes of this root: those that have its path and `role` among their arguments.
    pub fn processes(&self, role: &str) -> Vec<i32> {
        let root = self.root();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            let ours = words.contains(&root.as_os_str().as_encoded_bytes());
            if ours && words.contains(&role.as_bytes()) {
                found.push(pid);
            }
        }
        found
    }

    /// Sends a signal to the processes of a role and waits for the end of just those: a client
    /// may start another.
    pub fn signal(&self, role: &str, signal: rustix::process::Signal) {
        let signalled = self.processes(role);
        for pid in &signalled {
            send(*pid, signal);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.processes(role).iter().any(|pid| signalled.contains(pid)) {
            assert!(Instant::now() < deadline, "{role} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Site {
    /// Ends all there is. A change that is under way may come in between: then it is tried again.
    fn retire(&self) {
        for _ in 0..10 {
            let output = self.run(&["destroy", "--yes"]);
            let said = told(&output);
            // Nothing in this root, or nothing of this stack.
            let nothing = ["nothing has been applied", "never been applied"];
            if output.status.success() || nothing.iter().any(|it| said.contains(it)) {
                return;
            }
            if !std::thread::panicking() {
                eprintln!("destroy: {said}");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Site {
    /// The last lines of each process's log, for a failure's message.
    fn last_words(&self) -> String {
        let last = ["daemon", "gateway", "launcher"].map(|log| {
            let text = fs::read(self.root().join(format!("logs/{log}.log"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n  ");
            format!("{log}.log ends with\n  {last}")
        });
        last.join("\n")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        if self.root().exists() {
            self.retire();
        }
        for role in ["serve", "gateway", "launcher"] {
            self.signal(role, rustix::process::Signal::TERM);
        }
    }
}

/// Sends a signal to one process, if it is still there.
pub fn send(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // One that has ended meanwhile is what was wanted.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// What a run printed, for a failure's message.
pub fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} does not come true");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One GET on a connection of its own; status and body.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.get(9..12).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
    Ok((status, body.to_owned()))
}
/// A port that is free for TCP and UDP alike: below those that the kernel gives to clients, as
/// another test's connection might take one of theirs before it is listened at, and another each
/// time.
pub fn free_port() -> u16 {
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

/// The static probe, or what is lacking.
fn probe() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("KILN_PROBE").filter(|p| !p.is_empty()) {
        return Ok(path.into());
    }
    let built = Path::new(env!("CARGO_BIN_EXE_kiln"))
        .ancestors()
        .nth(2)
        .map(|target| target.join("x86_64-unknown-linux-gnu/release/kiln-probe"));
    match built.filter(|path| path.exists()) {
        Some(path) => Ok(path),
        None => Err("needs the static kiln-probe; `scripts/test` builds it".to_owned()),
    }
}
