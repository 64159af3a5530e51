//! A root of its own, and a tree with a shell and a few programs of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kiln_image::sandbox::{
    Bounds, Finished, Gathered, Job, JobFile, Laid, NO_DATE, Sandbox as _, SandboxError,
};
use kiln_image::tree::{Content, Inode, Metadata, Tree};
use kiln_local::cgroup::{Cgroups, Hierarchies};
use kiln_local::sandbox::LocalSandbox;
use kiln_model::quantity::Bytes;

/// What is taken from this machine, by its path here and in the tree.
const PROGRAMS: [&str; 14] = [
    "/bin/sh",
    "/usr/bin/cat",
    "/usr/bin/chmod",
    "/usr/bin/chown",
    "/usr/bin/date",
    "/usr/bin/dd",
    "/usr/bin/env",
    "/usr/bin/id",
    "/usr/bin/ls",
    "/usr/bin/mkdir",
    "/usr/bin/mknod",
    "/usr/bin/rm",
    "/usr/bin/sleep",
    "/usr/bin/touch",
];

/// A root with a directory to work on; nothing of it is left when it is dropped.
pub(crate) struct Ground {
    pub(crate) root: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) tree: Tree,
    count: u32,
}

/// What came of a script.
pub(crate) struct Done {
    pub(crate) result: Result<Finished, SandboxError>,
    pub(crate) lines: Vec<String>,
    pub(crate) gathered: Gathered,
    pub(crate) took: Duration,
}

impl Done {
    /// What a successful script has written.
    pub(crate) fn text(&self) -> String {
        let ending = self.result.as_ref().map(|finished| finished.ending);
        let fine = matches!(ending, Ok(kiln_image::sandbox::Ending::Status(0)));
        assert!(fine, "{:?} {:?}", self.result, self.lines);
        self.lines.join("\n")
    }
}

impl Ground {
    /// A new root, or none where the machine cannot run sandboxes; then it has said so.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: {test}: must be run as root");
            return None;
        }
        if let Some(absent) = PROGRAMS.iter().find(|path| !Path::new(path).exists()) {
            println!("skipped: {test}: this machine has no {absent}");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let digest = kiln_model::digest::Digest::of(root.path().as_os_str().as_encoded_bytes());
        let id: String = digest.hex().chars().take(8).collect();
        fs::write(root.path().join("id"), &id).unwrap();
        Some(Self { root, id, tree: userland(), count: 0 })
    }

    pub(crate) fn sandbox(&self) -> LocalSandbox {
        LocalSandbox::new(self.root.path(), &helper())
    }

    /// Runs a script as root with the given bounds.
    pub(crate) fn script(&mut self, text: &str) -> Done {
        self.run(text, (0, 0), false, Bounds { time: Duration::from_secs(60), ..small() })
    }

    pub(crate) fn run(
        &mut self,
        text: &str,
        user: (u32, u32),
        network: bool,
        bounds: Bounds,
    ) -> Done {
        self.count += 1;
        let place = self.root.path().join(format!("work-{}", self.count));
        let laid = Laid::out(&self.tree, &place).unwrap();
        let argv = ["sh", "-c", text].map(str::to_owned);
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let file = |path: &str, content: &str| JobFile {
            path: path.to_owned(),
            content: content.to_owned(),
            executable: true,
        };
        let files =
            [file("/etc/hosts", "127.0.0.1 localhost\n"), file("/tmp/a/tool", "#!/bin/sh\n")];
        let job = Job {
            root: &place,
            argv: &argv,
            env: &env,
            workdir: "/srv",
            user,
            files: &files,
            network,
            clock: NO_DATE,
            bounds,
        };
        let lines = Mutex::new(Vec::new());
        let started = Instant::now();
        let result = self.sandbox().run(&job, &|line| lines.lock().unwrap().push(line.to_owned()));
        let took = started.elapsed();
        let gathered = laid.gather(&self.tree, NO_DATE).unwrap();
        Done { result, lines: lines.into_inner().unwrap(), gathered, took }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let cgroups = Cgroups::new(Hierarchies::detect().unwrap(), &format!("build-{}", self.id));
        assert_eq!(cgroups.list().unwrap(), BTreeSet::new(), "control groups are left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = self.root.path().to_string_lossy().into_owned();
        assert!(!mounts.contains(&path), "mounts are left");
        assert_eq!(processes_with(&path), Vec::<String>::new(), "processes are left");
    }
}

/// Little enough that a test can use it up.
pub(crate) fn small() -> Bounds {
    Bounds { memory: Bytes::mib(64), pids: 64, time: Duration::from_secs(60) }
}

/// The command lines of processes with `word` in them.
pub(crate) fn processes_with(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(word) {
            found.push(line);
        }
    }
    found
}

/// The example that starts Kiln's own processes, which cargo builds with the tests.
pub(crate) fn helper() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().with_file_name("examples").join("launcher")
}

/// Programs of this machine with what the dynamic linker needs to start them.
pub(crate) fn files() -> BTreeSet<String> {
    let mut files: BTreeSet<String> = PROGRAMS.map(str::to_owned).into();
    for program in PROGRAMS {
        let output = Command::new("ldd").arg(program).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
        files.extend(paths.map(str::to_owned));
    }
    files
}

fn userland() -> Tree {
    let mut tree = Tree::new();
    let directory = Metadata::new(0o755).modified_at(100_000);
    for path in ["dev", "etc", "proc", "srv", "tmp"] {
        tree.make_directories(path, &directory).unwrap();
    }
    for path in files() {
        let bytes = fs::read(&path).unwrap();
        tree.make_directories(Path::new(&path).parent().unwrap().to_str().unwrap(), &directory)
            .unwrap();
        let inode = Inode::file(Metadata::new(0o755).modified_at(100_000), Content::from(bytes));
        tree.insert(&path, inode).unwrap();
    }
    let file = Inode::file(Metadata::new(0o600).modified_at(100_000), b"of root\n".to_vec());
    tree.insert("etc/secret", file).unwrap();
    tree.insert("etc/hosts", Inode::file(Metadata::new(0o644), Vec::new())).unwrap();
    tree
}
