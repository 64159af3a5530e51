//! Podman and Kiln run each other's images.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engines::{Engine, kiln_runs_what_is_pushed, runs_what_kiln_pushes, start};
use crate::site::{site_or_skip, told};

/// Podman with storage of its own, in which nothing is left when this is dropped.
struct Podman {
    directory: PathBuf,
}

impl Podman {
    fn new(directory: &Path) -> Result<Self, String> {
        let podman = Self { directory: directory.join("podman") };
        std::fs::create_dir(&podman.directory).map_err(|e| e.to_string())?;
        let version = podman.command(&["version"]).output();
        match version {
            Err(error) => Err(format!("podman can't be run: {error}")),
            Ok(output) if !output.status.success() => Err(told(&output)),
            Ok(_) => Ok(podman),
        }
    }
}

impl Engine for Podman {
    const NAME: &'static str = "podman";
    const IN_THE_CLEAR: &'static [&'static str] = &["--tls-verify=false"];

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (option, name) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.directory.join(name));
        }
        command.args([
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
        ]);
        // crun refuses to run beside control groups of version 1 in a hybrid layout.
        if ["/usr/sbin/runc", "/usr/bin/runc"].iter().any(|path| Path::new(path).exists()) {
            command.arg("--runtime=runc");
        }
        command.args(arguments).env_clear().env("HOME", &self.directory);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(&self.directory);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What is left of a test that has failed.
        let _ = self.run(&["rm", "--all", "--force", "--time=0"]);
    }
}

#[test]
fn podman_runs_what_kiln_pushes() {
    let name = "podman_runs_what_kiln_pushes";
    let site = site_or_skip!(name);
    let Some((registry, podman)) = start(&site, name, Podman::new) else { return };
    runs_what_kiln_pushes(&site, &registry, &podman);
}

#[test]
fn kiln_runs_what_podman_pushes() {
    let name = "kiln_runs_what_podman_pushes";
    let site = site_or_skip!(name);
    let Some((registry, podman)) = start(&site, name, Podman::new) else { return };
    kiln_runs_what_is_pushed(&site, &registry, &podman);
}
