//! Disks that are full in the middle: it is said with the numbers, nothing half done is left, and a
//! later attempt succeeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::registry::Registry;
use crate::site::told;

/// A disk of so many KiB that holds a root, and a stack's directory elsewhere.
struct Small {
    directory: TempDir,
}

impl Small {
    fn new(kib: u32) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let small = Self { directory: TempDir::new().map_err(|e| e.to_string())? };
        for path in [small.root(), small.stack()] {
            fs::create_dir(path).map_err(|e| e.to_string())?;
        }
        let size = std::ffi::CString::new(format!("size={kib}k")).expect("no zero byte");
        mount("tmpfs", small.root(), "tmpfs", MountFlags::empty(), size.as_c_str())
            .map_err(|error| format!("no tmpfs can be mounted: {error}"))?;
        Ok(small)
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn stack(&self) -> PathBuf {
        self.directory.path().join("stack")
    }

    /// Gives the disk another size.
    fn resize(&self, kib: u32) {
        let size = std::ffi::CString::new(format!("size={kib}k")).expect("no zero byte");
        rustix::mount::mount_remount(self.root(), MountFlags::empty(), size.as_c_str()).unwrap();
    }

    /// What stands in a directory of the root.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root().join(directory)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        kiln(&self.root(), &self.stack(), arguments)
    }

    /// Runs a verb that must fail for want of room, and leave nothing.
    fn fails(&self, arguments: &[&str], parts: &[&str]) {
        let output = self.run(arguments);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in parts.iter().chain(&["iB free", "kiln image gc", "--root DIR"]) {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert_eq!(self.names("cache/tmp"), Vec::<String>::new(), "something half done is left");
        let verified = self.run(&["image", "verify"]);
        assert!(verified.status.success(), "{}", told(&verified));
        let listed = self.run(&["--json", "image", "list"]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(listed["images"].as_array().unwrap().len(), 0, "{listed}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = unmount(self.root(), UnmountFlags::empty());
        assert!(done.is_ok() || std::thread::panicking(), "{done:?}");
    }
}

fn kiln(root: &Path, stack: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.arg("--root").arg(root).arg("--stack").arg(stack).args(arguments);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap()
}

/// A stack with an image of one file, of bytes that do not pack.
fn write_stack(stack: &Path, mib: u64) {
    let noise =
        (0..mib << 15).flat_map(|n| *kiln_model::digest::Digest::of(&n.to_le_bytes()).as_bytes());
    fs::write(stack.join("noise"), noise.collect::<Vec<u8>>()).unwrap();
    let text = "stack { name = \"full\" }\nimage \"noise\" {\n  base = scratch()\n  \
                copy \"noise\" { to = \"/noise\" }\n  entrypoint = [\"/noise\"]\n}\n";
    fs::write(stack.join("main.kiln.hcl"), text).unwrap();
}

macro_rules! small_or_skip {
    ($name:literal, $kib:expr) => {
        match Small::new($kib) {
            Ok(small) => small,
            Err(reason) => {
                println!("skipped: {}: {reason}", $name);
                return;
            }
        }
    };
}

#[test]
fn a_build_onto_a_full_disk_leaves_nothing_and_succeeds_later() {
    // Layer and filesystem have 4 MiB each.
    let small = small_or_skip!("a_build_onto_a_full_disk_leaves_nothing", 2 << 10);
    write_stack(&small.stack(), 4);
    small.fails(&["image", "build"], &["No space left on device", "free of 2.0 MiB"]);
    small.resize(6 << 10);
    small.fails(&["image", "build"], &["No space left on device", "free of 6.0 MiB"]);
    small.resize(32 << 10);
    let built = small.run(&["image", "build"]);
    assert!(built.status.success(), "{}", told(&built));
    let verified = small.run(&["image", "verify"]);
    assert!(verified.status.success(), "{}", told(&verified));
}

#[test]
fn a_pull_onto_a_full_disk_leaves_nothing_and_succeeds_later() {
    let name = "a_pull_onto_a_full_disk_leaves_nothing_and_succeeds_later";
    let small = small_or_skip!("a_pull_onto_a_full_disk_leaves_nothing", 2 << 10);
    let registry = match Registry::start(small.directory.path()) {
        Ok(registry) => registry,
        Err(reason) => {
            println!("skipped: {name}: {reason}");
            return;
        }
    };
    let elsewhere = TempDir::new().unwrap();
    write_stack(elsewhere.path(), 4);
    let there = format!("{}/team/noise:v1", registry.host);
    for arguments in [&["image", "build"][..], &["image", "push", "noise", &there]] {
        let output = kiln(&elsewhere.path().join("root"), elsewhere.path(), arguments);
        assert!(output.status.success(), "{}", told(&output));
    }
    let pull = ["image", "pull", &there];
    // What comes is known to be too long before it comes.
    small.fails(&pull, &["does not fit on the disk: 4.", "has 1.9 MiB free"]);
    // What comes fits, and the filesystem that is made of it does not.
    small.resize(6 << 10);
    let output = small.run(&pull);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("No space left on device") && text.contains("free of 6.0 MiB"), "{text}");
    assert_eq!(small.names("cache/tmp"), Vec::<String>::new());
    // Its layers are whole, and need not come again.
    drop(registry);
    small.resize(32 << 10);
    let verified = small.run(&["image", "verify"]);
    assert!(verified.status.success(), "{}", told(&verified));
    let registry = Registry::start(small.directory.path()).unwrap();
    let there = format!("{}/team/noise:v1", registry.host);
    let pulled = small.run(&["image", "pull", &there]);
    assert!(pulled.status.success(), "{}", told(&pulled));
    let verified = small.run(&["image", "verify"]);
    assert!(verified.status.success(), "{}", told(&verified));
}
