//! What scripts are run with, in which order, and what is left of it in the image.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use super::*;
use crate::sandbox::{Ending, Finished, NO_DATE, Sandbox, SandboxError};

/// Arguments, environment and paths of files.
type Noted = (Vec<String>, BTreeMap<String, String>, Vec<String>);

/// Stands in for the kernel: notes what is asked for, and does what a script might.
#[derive(Debug, Default)]
struct Noting {
    jobs: Mutex<Vec<Noted>>,
    fail: bool,
}

impl Sandbox for Noting {
    fn run(&self, job: &Job<'_>, output: &(dyn Fn(&str) + Sync)) -> Result<Finished, SandboxError> {
        assert!(job.root.join("usr/sbin/policy-rc.d").exists() && !job.network);
        fs::write(job.root.join("etc/done"), job.argv.join(" ")).unwrap();
        output("working");
        let files = job.files.iter().map(|file| file.path.clone()).collect();
        self.jobs.lock().unwrap().push((job.argv.to_vec(), job.env.clone(), files));
        let ending = Ending::Status(i32::from(self.fail));
        Ok(Finished { ending, out_of_memory: false })
    }
}

fn script(package: &str, name: &'static str, arguments: &[&str]) -> PendingScript {
    PendingScript {
        package: package.to_owned(),
        version: "1".to_owned(),
        architecture: "amd64".to_owned(),
        name,
        path: format!("/var/lib/dpkg/info/{package}.{name}"),
        text: b"#!/bin/sh -e\n:\n".to_vec(),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        environment: vec![("DPKG_MAINTSCRIPT_PACKAGE".to_owned(), package.to_owned())],
    }
}

fn root() -> Rootfs {
    let mut root = Rootfs::scratch().unwrap();
    root.tree.make_directories("bin", &Metadata::new(0o755)).unwrap();
    let shell = Inode::file(Metadata::new(0o755), b"shell".to_vec());
    root.tree.insert("bin/sh", shell).unwrap();
    root
}

fn run_on(root: &mut Rootfs, sandbox: &Noting) -> Result<(), RunError> {
    let workspace = tempfile::tempdir().unwrap();
    let ground = Ground {
        sandbox: Some(sandbox),
        workspace: workspace.path(),
        env: &BTreeMap::from([("COLOUR".to_owned(), "red".to_owned())]),
        clock: NO_DATE,
        progress: &(),
    };
    root.pending = vec![
        script("base", "preinst", &["install"]),
        script("base", "postinst", &["configure", ""]),
        script("web", "postinst", &["configure", ""]),
    ];
    run_all(root, "amd64", &ground)
}

#[test]
fn scripts_run_as_dpkg_runs_them_and_their_crutches_are_gone() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: scripts_run_as_dpkg_runs_them: only root may give files away");
        return;
    }
    let (mut root, sandbox) = (root(), Noting::default());
    run_on(&mut root, &sandbox).unwrap();
    let jobs = sandbox.jobs.into_inner().unwrap();
    let argv: Vec<String> = jobs.iter().map(|(argv, ..)| argv.join(" ")).collect();
    assert_eq!(
        argv,
        [
            "/var/lib/dpkg/info/base.preinst install",
            "/var/lib/dpkg/info/base.postinst configure ",
            "/var/lib/dpkg/info/web.postinst configure "
        ]
    );
    let (_, env, files) = &jobs[2];
    for (name, value) in
        [("DPKG_MAINTSCRIPT_PACKAGE", "web"), ("SOURCE_DATE_EPOCH", "315532800"), ("COLOUR", "red")]
    {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(env["PATH"].ends_with(":/bin:/tmp/.kiln/bin"), "{}", env["PATH"]);
    for path in ["/tmp/.kiln/bin/systemctl", "/tmp/.kiln/bin/dpkg"] {
        assert!(files.iter().any(|file| file == path), "{path}");
    }
    for path in ["usr/sbin/policy-rc.d", "usr/share/debconf/confmodule", "tmp/.kiln"] {
        assert!(root.tree.get(path).is_none(), "{path}");
    }
    assert!(root.tree.get("etc/done").is_some() && root.tree.get("etc/passwd").is_some());
}

#[test]
fn a_script_that_fails_or_can_not_be_run_is_named() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a_script_that_fails_is_named: only root may give files away");
        return;
    }
    let sandbox = Noting { fail: true, ..Noting::default() };
    let error = run_on(&mut root(), &sandbox).unwrap_err().to_string();
    assert!(error.contains("base.preinst") && error.contains("status 1"), "{error}");
    assert!(error.ends_with("| working"), "{error}");
    let mut bare = root();
    bare.tree.remove("bin/sh").unwrap();
    let error = run_on(&mut bare, &Noting::default()).unwrap_err().to_string();
    assert!(error.contains("base.preinst needs /bin/sh"), "{error}");
}
