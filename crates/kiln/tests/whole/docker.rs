//! Docker and Kiln run each other's images, and containerd, which Kubernetes runs its containers
//! with, runs Kiln's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;

use crate::engines::{
    Engine, assert_answers, kiln_runs_what_is_pushed, pushed_by_kiln, runs_what_kiln_pushes, start,
};
use crate::site::{eventually, send, site_or_skip, told};

/// A `dockerd` with storage, a process namespace and a mount namespace of its own, which touches no
/// network. Nothing of it is left when this is dropped.
struct Docker {
    directory: PathBuf,
    /// The parent of its containers' control groups.
    cgroup: String,
    /// `unshare`, whose child is the daemon, process 1 of its namespace.
    unshare: Child,
}

impl Docker {
    fn new(directory: &Path, number: u16) -> Result<Self, String> {
        let there = ["/usr/sbin/dockerd", "/usr/bin/dockerd"].iter().any(|p| Path::new(p).exists());
        if !there {
            return Err("dockerd is not installed".to_owned());
        }
        let directory = directory.join("docker");
        std::fs::create_dir(&directory).map_err(|e| e.to_string())?;
        // The machine's own configuration must not count.
        std::fs::write(directory.join("none.json"), "{}").map_err(|e| e.to_string())?;
        let cgroup = format!("kiln-docker-{number}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        // Where containerd has directories of its own, whatever it is told.
        let places = "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /opt; exec dockerd \"$@\"";
        command.args(["sh", "-e", "-c", places, "sh"]);
        for (option, name) in [
            ("--config-file", "none.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(option).arg(directory.join(name));
        }
        command.arg(format!("--host=unix://{}", directory.join("socket").display()));
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.args(["--ip-forward=false", "--ip-masq=false", "--storage-driver=vfs"]);
        command.args(["--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent", &cgroup]);
        command.env_clear().env("HOME", &directory).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let log = File::create(directory.join("log")).map_err(|e| e.to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let unshare = command.spawn().map_err(|e| format!("unshare can't be run: {e}"))?;
        let mut docker = Self { directory, cgroup, unshare };
        let mut ended = false;
        eventually("dockerd listens", || {
            ended = docker.unshare.try_wait().unwrap().is_some();
            ended || docker.run(&["version"]).status.success()
        });
        if ended {
            let log = std::fs::read_to_string(docker.directory.join("log")).unwrap_or_default();
            return Err(format!("dockerd does not start: {}", log.lines().last().unwrap_or("")));
        }
        Ok(docker)
    }

    /// The daemon as this namespace sees it.
    fn daemon(&self) -> Option<i32> {
        let unshare = self.unshare.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        std::fs::read_to_string(children).ok()?.split_whitespace().next()?.parse().ok()
    }

    /// The client of the daemon's containerd, which shares files with it.
    fn containerd(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.daemon().unwrap().to_string())
            .args(["--mount", "--pid", "ctr"]);
        command.arg("--address").arg(self.directory.join("exec/containerd/containerd.sock"));
        command.args(["--namespace", "test"]).args(arguments).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap()
    }
}

impl Engine for Docker {
    const NAME: &'static str = "docker";
    // It takes any registry of this machine.
    const IN_THE_CLEAR: &'static [&'static str] = &[];

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.arg(format!("--host=unix://{}", self.directory.join("socket").display()));
        command.args(arguments).env_clear().env("HOME", &self.directory);
        command.current_dir(&self.directory);
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // With process 1 all the others of its namespace end, and `unshare` after them.
        match self.daemon() {
            Some(daemon) => send(daemon, Signal::KILL),
            None => drop(self.unshare.kill()),
        }
        let _ = self.unshare.wait();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&hierarchy.path().join(&self.cgroup));
        }
        remove_cgroups(&Path::new("/sys/fs/cgroup").join(&self.cgroup));
    }
}

/// Removes a control group with those below it; nothing where it is not there.
fn remove_cgroups(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

#[test]
fn docker_runs_what_kiln_pushes() {
    let name = "docker_runs_what_kiln_pushes";
    let site = site_or_skip!(name);
    let docker = |directory: &Path| Docker::new(directory, site.port);
    let Some((registry, docker)) = start(&site, name, docker) else { return };
    runs_what_kiln_pushes(&site, &registry, &docker);
}

#[test]
fn kiln_runs_what_docker_pushes() {
    let name = "kiln_runs_what_docker_pushes";
    let site = site_or_skip!(name);
    let docker = |directory: &Path| Docker::new(directory, site.port);
    let Some((registry, docker)) = start(&site, name, docker) else { return };
    kiln_runs_what_is_pushed(&site, &registry, &docker);
}

#[test]
fn containerd_runs_what_kiln_pushes() {
    let name = "containerd_runs_what_kiln_pushes";
    let site = site_or_skip!(name);
    let docker = |directory: &Path| Docker::new(directory, site.port);
    let Some((registry, docker)) = start(&site, name, docker) else { return };
    let there = pushed_by_kiln(&site, &registry);
    let must = |arguments: &[&str]| {
        let output = docker.containerd(arguments);
        assert!(output.status.success(), "ctr {arguments:?}: {}", told(&output));
    };
    must(&["images", "pull", "--plain-http", "--snapshotter=native", &there]);
    let cgroup = format!("--cgroup=/{}/web", docker.cgroup);
    must(&["run", "--detach", "--snapshotter=native", &cgroup, &there, "web"]);
    assert_answers(|url| {
        docker.containerd(&["tasks", "exec", "--exec-id=ask", "web", "/bin/probe", "ask", url])
    });
    must(&["tasks", "delete", "--force", "web"]);
}
