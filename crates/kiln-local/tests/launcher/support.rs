//! A root of its own with its launcher, and an image that holds the probe.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kiln_image::erofs;
use kiln_image::tree::{Content, Inode, Metadata, Tree};
use kiln_local::cgroup::{Cgroups, Hierarchies};
use kiln_local::instance::client::Client;
use kiln_local::instance::{StopPolicy, destroy, record};
use kiln_local::launcher::protocol::{
    Event, Exit, ImageSource, Labels, LaunchSpec, Launched, Limits, WritableMount,
};
use kiln_local::launcher::{SOCKET, ensure_running};
use kiln_local::logs;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Tells the roots of one process apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A root; everything of it is gone when it is dropped.
pub(crate) struct TestRoot {
    pub(crate) id: String,
    pub(crate) image: PathBuf,
    directory: tempfile::TempDir,
}

impl TestRoot {
    /// A new root, or none where the machine cannot run instances; then it has said so.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: {test}: must be run as root");
            return None;
        }
        let filesystems = fs::read_to_string("/proc/filesystems").unwrap();
        if !filesystems.lines().any(|line| line.ends_with("\terofs")) {
            println!("skipped: {test}: the kernel has no EROFS");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed) & 0xff;
        let id = format!("{:06x}{number:02x}", std::process::id() & 0xff_ffff);
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("id"), &id).unwrap();
        let image = directory.path().join("probe.erofs");
        fs::write(&image, image_bytes()).unwrap();
        Some(Self { id, image, directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn client(&self) -> Client {
        ensure_running(self.path(), &example("launcher")).unwrap()
    }

    pub(crate) fn cgroups(&self) -> Cgroups {
        Cgroups::new(Hierarchies::detect().unwrap(), &self.id)
    }

    /// An instance that runs the probe with `arguments`.
    pub(crate) fn spec(&self, instance: &str, arguments: &[&str]) -> LaunchSpec {
        let argv = ["/probe"].iter().chain(arguments).map(ToString::to_string).collect();
        LaunchSpec {
            instance: instance.to_owned(),
            labels: Labels { stack: "test".to_owned(), generation: 3, ..Labels::default() },
            image: ImageSource::as_it_is(&self.image).unwrap(),
            argv,
            env: vec![("PATH".to_owned(), "/".to_owned())],
            workdir: "/".to_owned(),
            user: "worker".to_owned(),
            hostname: "inside".to_owned(),
            writable: vec![WritableMount {
                path: "/tmp".to_owned(),
                size_bytes: 1 << 20,
                mode: 0o700,
                exec: false,
            }],
            volumes: vec![],
            directories: vec![],
            files: vec![],
            seccomp: kiln_model::spec::server::Seccomp::Default,
            learns: false,
            limits: Limits {
                memory_bytes: Some(64 << 20),
                cpu_millis: Some(500),
                pids: Some(32),
                open_files: Some(256),
                oom_score_adjust: 100,
            },
            network: None,
            joins: None,
        }
    }

    /// Runs the probe to its end; gives how it ended and what it wrote.
    pub(crate) fn run(&self, spec: LaunchSpec) -> (Exit, Output) {
        let name = spec.instance.clone();
        let mut client = self.client();
        client.subscribe().unwrap();
        client.launch(spec).unwrap();
        let exit = wait_for_exit(&mut client, &name);
        client.forget(&name).unwrap();
        (exit, self.output(&name))
    }

    /// Starts the probe and waits until it has written its first line.
    pub(crate) fn start(&self, client: &mut Client, spec: LaunchSpec) -> Launched {
        let name = spec.instance.clone();
        let launched = client.launch(spec).unwrap();
        until("the first line", || !self.output(&name).0.is_empty());
        launched
    }

    pub(crate) fn output(&self, instance: &str) -> Output {
        let lines = logs::tail(&logs::directory(self.path(), instance), 10_000).unwrap();
        Output(lines.into_iter().map(|line| line.text).collect())
    }
}

impl Drop for TestRoot {
    fn drop(&mut self) {
        let policy = StopPolicy { signal: libc::SIGKILL, grace: Duration::ZERO };
        let mut names: BTreeSet<String> =
            record::list(self.path()).unwrap_or_default().into_iter().collect();
        names.extend(self.cgroups().list().unwrap_or_default());
        for name in names {
            let _ = destroy(self.path(), &self.cgroups(), &name, policy);
        }
        if let Ok(mut client) = Client::connect(self.path()) {
            let _ = client.shutdown();
        }
        let _ = self.cgroups().remove_parents();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.path().join(SOCKET).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What the probe wrote.
#[derive(Debug)]
pub(crate) struct Output(pub(crate) Vec<String>);

impl Output {
    /// The values of the lines `name: value`.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let value = |line: &'_ String| -> Option<usize> {
            line.strip_prefix(name)?.strip_prefix(": ").map(|_| name.len() + 2)
        };
        self.0.iter().filter_map(|line| Some(&line[value(line)?..])).collect()
    }

    /// The value of the only line `name: value`.
    pub(crate) fn get(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {self:?}");
        all[0]
    }

    /// The value of a field as /proc/self/status prints them.
    pub(crate) fn status(&self, field: &str) -> &str {
        let line = self.all("/proc/self/status").into_iter().find(|line| line.starts_with(field));
        line.unwrap().split_once(':').unwrap().1.trim()
    }
}

pub(crate) fn wait_for_exit(client: &mut Client, name: &str) -> Exit {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.next_event(Some(left)).unwrap() {
            Some(Event::Exited { instance, exit }) if instance == name => return exit,
            Some(_) => {}
            None => panic!("{name} did not end"),
        }
    }
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An example of this crate, which cargo builds with its tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().with_file_name("examples").join(name)
}

/// The probe, what the dynamic linker needs to start it, and places to mount things on.
fn image_bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut tree = Tree::new();
        let directory = Metadata::new(0o755);
        for path in ["/proc", "/sys", "/dev", "/tmp", "/etc", "/srv"] {
            tree.make_directories(path, &directory).unwrap();
        }
        let mut file = |path: &str, mode: u16, bytes: Vec<u8>| {
            let parent = Path::new(path).parent().unwrap().to_str().unwrap();
            if parent != "/" {
                tree.make_directories(parent, &directory).unwrap();
            }
            let content = Content::Bytes(bytes.into());
            tree.insert(path, Inode::file(Metadata::new(mode), content)).unwrap();
        };
        file("/probe", 0o755, fs::read(example("probe")).unwrap());
        file("/etc/passwd", 0o644, b"root:x:0:0::/:\nworker:x:1000:1001::/:\n".to_vec());
        file("/etc/group", 0o644, b"extra:x:55:worker\n".to_vec());
        file("/etc/hosts", 0o644, b"from the image\n".to_vec());
        file("/etc/shadow", 0o600, b"secret\n".to_vec());
        file("/not-a-program", 0o644, b"text\n".to_vec());
        for library in libraries() {
            file(&library, 0o755, fs::read(&library).unwrap());
        }
        let mut bytes = Vec::new();
        let _ = erofs::write(&tree, erofs::Options::default(), &mut bytes).unwrap();
        bytes
    })
}

/// The shared objects of this program, which are also the probe's.
fn libraries() -> BTreeSet<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut found: BTreeSet<String> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .map(str::to_owned)
        .collect();
    // The linker is named in the program by its conventional path.
    let conventional = "/lib64/ld-linux-x86-64.so.2";
    if Path::new(conventional).exists() {
        found.insert(conventional.to_owned());
    }
    found
}
