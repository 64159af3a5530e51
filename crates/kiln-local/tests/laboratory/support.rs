//! A root with an image that holds the static probe and nothing else that could run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln_image::build::Order;
use kiln_image::copy;
use kiln_image::lock::{Lock, Sources};
use kiln_image::store::{ImageFiles, ImageStore};
use kiln_image::trial::{Laboratory as _, Stop, TestReport};
use kiln_local::laboratory::LocalLaboratory;
use kiln_model::quantity::{Bytes, Millis};
use kiln_model::spec::image::{Base, Check, ImageTest, Recipe, Step};

/// A root; nothing of its tests may be left when it is dropped.
pub(crate) struct Site {
    pub(crate) root: tempfile::TempDir,
    pub(crate) image: ImageFiles,
}

impl Site {
    /// A new root with an image whose program is the probe with `arguments`, or none where the
    /// machine cannot run instances; then it has said so.
    pub(crate) fn new(test: &str, arguments: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: {test}: must be run as root");
            return None;
        }
        let filesystems = fs::read_to_string("/proc/filesystems").unwrap();
        if !filesystems.lines().any(|line| line.ends_with("\terofs")) {
            println!("skipped: {test}: the kernel has no EROFS");
            return None;
        }
        let Some(probe) = probe() else {
            println!("skipped: {test}: needs the static kiln-probe; `scripts/test` builds it");
            return None;
        };
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let stack = root.path().join("stack");
        fs::create_dir(&stack).unwrap();
        fs::copy(probe, stack.join("probe")).unwrap();
        let image = build(root.path(), &stack, arguments);
        Some(Self { root, image })
    }

    pub(crate) fn laboratory(&self) -> LocalLaboratory {
        LocalLaboratory::new(self.root.path(), &helper())
    }

    pub(crate) fn try_out(&self, test: &ImageTest) -> TestReport {
        self.laboratory().try_out(&self.image, test, &Stop::default())
    }

    /// What tests have left below the root.
    pub(crate) fn left(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.path().join("run")) else { return Vec::new() };
        let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("t-")).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.left(), Vec::<String>::new(), "directories are left");
        let path = self.root.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&path), "mounts are left");
        assert_eq!(processes_with(&path), Vec::<String>::new(), "processes are left");
    }
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

fn build(root: &Path, stack: &Path, arguments: &[&str]) -> ImageFiles {
    let digest = copy::digest(stack, "probe").unwrap();
    let (from, to) = ("probe".to_owned(), "/bin/probe".to_owned());
    let steps = vec![
        Step::User { name: "app".to_owned(), uid: Some(1500), home: None },
        Step::Copy { from, to, digest, owner: None, mode: None },
        Step::File {
            path: "/etc/app.conf".to_owned(),
            content: "listen 8080\n".to_owned(),
            owner: Some("app".to_owned()),
            mode: Some(0o640),
        },
        Step::Symlink { path: "/conf".to_owned(), target: "/etc/app.conf".to_owned() },
        Step::Symlink { path: "/astray".to_owned(), target: "/nowhere".to_owned() },
    ];
    let program = arguments.iter().copied();
    let recipe = Recipe {
        steps,
        user: Some("app".to_owned()),
        entrypoint: ["/bin/probe"].into_iter().chain(program).map(str::to_owned).collect(),
        env: BTreeMap::from([("COLOUR".to_owned(), "red".to_owned())]),
        writable: BTreeMap::from([("/tmp".to_owned(), Bytes::mib(1))]),
        ..Recipe::on(Base::Scratch)
    };
    let recipe =
        if arguments.is_empty() { Recipe { entrypoint: Vec::new(), ..recipe } } else { recipe };
    let store = ImageStore::open(root).unwrap();
    let sources = Sources::of_root(root).unwrap();
    let order = Order { name: "app", recipe: &recipe, stack };
    store.build(order, &Lock::default(), &sources, &()).unwrap().image
}

/// A test of these checks, with 20 seconds of time.
pub(crate) fn test(checks: Vec<Check>) -> ImageTest {
    ImageTest {
        name: "test".to_owned(),
        checks,
        deadline: Millis::seconds(20),
        env: BTreeMap::new(),
        command: None,
        writable: BTreeMap::new(),
        memory: Bytes::mib(64),
    }
}

pub(crate) fn http(path: &str, status: Option<u16>, contains: Option<&str>) -> Check {
    let (path, contains) = (path.to_owned(), contains.map(str::to_owned));
    Check::Http { port: 8080, path, status, contains }
}

pub(crate) fn exec(command: &[&str], status: i32, contains: Option<&str>) -> Check {
    let command = command.iter().map(ToString::to_string).collect();
    Check::Exec { command, status, contains: contains.map(str::to_owned) }
}

/// The example that starts Kiln's own processes, which cargo builds with the tests.
pub(crate) fn helper() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().with_file_name("examples").join("launcher")
}

/// The static probe, where it was built.
fn probe() -> Option<PathBuf> {
    let named = std::env::var_os("KILN_PROBE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().nth(3).unwrap();
    let built = target.join("x86_64-unknown-linux-gnu/release/kiln-probe");
    named.or(Some(built)).filter(|path| path.exists())
}
