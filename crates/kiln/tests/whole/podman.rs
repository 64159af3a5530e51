//! Podman and Kiln run each other's images, by way of a registry.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::registry::Registry;
use crate::site::{Site, eventually, site_or_skip, told};

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

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "podman {arguments:?}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What is left of a test that has failed.
        let _ = self.run(&["rm", "--all", "--force", "--time=0"]);
    }
}

/// Where the other side's programs can be run.
fn start(site: &Site, name: &str) -> Option<(Registry, Podman)> {
    let place = site.root().with_file_name("elsewhere");
    std::fs::create_dir(&place).unwrap();
    let started = Registry::start(&place).and_then(|registry| Ok((registry, Podman::new(&place)?)));
    started.inspect_err(|reason| println!("skipped: {name}: {reason}")).ok()
}

#[test]
fn podman_runs_what_kiln_pushes() {
    let site = site_or_skip!("podman_runs_what_kiln_pushes");
    let Some((registry, podman)) = start(&site, "podman_runs_what_kiln_pushes") else { return };
    site.write(
        "image \"web\" {\n  base = scratch()\n  copy \"kiln-probe\" { to = \"/bin/probe\" }\n  \
         env = { MODE = \"fired\" }\n  \
         entrypoint = [\"/bin/probe\", \"serve\", \"--port\", \"8080\", \"--body\", \"kiln's\"]\n}\n",
    );
    site.must(&["image", "build"]);
    let there = format!("{}/team/web:v1", registry.host);
    site.must(&["image", "push", "web", &there]);
    podman.must(&["pull", "--quiet", "--tls-verify=false", &there]);
    // Podman raises these bounds, which a machine may not permit.
    let bounds = ["--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096", "--network=none"];
    let run = [&["run", "--detach", "--name=web", "--pull=never"][..], &bounds, &[&there]].concat();
    podman.must(&run);
    let ask = |path: &str| {
        let url = format!("/get?url=http://127.0.0.1:8080{path}");
        podman.run(&["exec", "web", "/bin/probe", "ask", &url])
    };
    eventually("the program answers", || ask("/healthz").status.success());
    assert!(told(&ask("/")).contains("kiln's"), "{}", told(&ask("/")));
    assert!(told(&ask("/env")).contains("MODE=fired"), "{}", told(&ask("/env")));
    podman.must(&["rm", "--force", "--time=0", "web"]);
}

#[test]
fn kiln_runs_what_podman_pushes() {
    let site = site_or_skip!("kiln_runs_what_podman_pushes");
    let Some((registry, podman)) = start(&site, "kiln_runs_what_podman_pushes") else { return };
    let files = podman.directory.join("files");
    std::fs::create_dir_all(files.join("opt")).unwrap();
    std::fs::copy(site.stack().join("kiln-probe"), files.join("opt/probe")).unwrap();
    let containerfile = "FROM scratch\nCOPY opt /opt\nENV MODE=foreign\nUSER 65532:65532\n\
                         ENTRYPOINT [\"/opt/probe\", \"serve\", \"--port\", \"8080\"]\n\
                         CMD [\"--body\", \"podman's\"]\n";
    std::fs::write(files.join("Containerfile"), containerfile).unwrap();
    let there = format!("{}/team/foreign:v1", registry.host);
    podman.must(&["build", "--quiet", "--tag", &there, files.to_str().unwrap()]);
    podman.must(&["push", "--quiet", "--tls-verify=false", &there]);
    site.write(&format!(
        "image \"web\" {{ base = oci(\"{there}\") }}\n\
         network \"front\" {{ cidr = \"10.60.0.0/24\" }}\n\
         server \"web\" {{\n  image = image.web\n  network = network.front\n  memory = \"32MiB\"\n  \
         health = {{ http = {{ port = 8080, path = \"/healthz\" }} }}\n}}\n\
         endpoint \"web\" {{\n  listen = \"127.0.0.1:PORT\"\n  to = server.web\n  port = 8080\n}}\n"
    ));
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/"), (200, "podman's".to_owned()));
    assert!(site.get("/env").1.contains("MODE=foreign"), "{:?}", site.get("/env"));
    assert!(site.get("/status").1.contains("Uid:\t65532"), "{:?}", site.get("/status"));
}
