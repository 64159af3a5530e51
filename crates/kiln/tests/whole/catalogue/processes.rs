//! What is done to processes, and what comes in from outside.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::range::{Losses, Range, Victim};
use crate::site::{eventually, send, site_or_skip};

/// A program of the machine that is ended with the row.
struct Stranger(Child);

impl Stranger {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended with the instance.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Runs the probe in a namespace of the victim.
fn enter(victim: &Victim, kinds: &[&str]) -> Stranger {
    let pid = victim.pid.to_string();
    let mut arguments = vec!["-t", &pid];
    arguments.extend(kinds);
    let inside = kinds.contains(&"-m");
    let program: &[&str] =
        if inside { &["/kiln-probe", "serve", "--port", "0"] } else { &["sleep", "60"] };
    arguments.extend(program);
    Stranger::start("nsenter", &arguments)
}

/// Attaches to a process for as long as this is there.
fn trace(pid: i32) {
    // SAFETY: it touches the memory of neither process; the thread lets go when it ends.
    let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn what_happens_to_processes_is_found_and_answered() {
    let site = site_or_skip!("what_happens_to_processes_is_found_and_answered");
    let mut range = Range::new(site);
    range.row("the main process is killed", Losses::InFlight, |_, victim| {
        send(victim.pid, Signal::KILL);
    });
    range.row("the main process is stopped", Losses::InFlight, |_, victim| {
        send(victim.pid, Signal::STOP);
    });
    range.row("the main process is traced", Losses::None, |_, victim| {
        let pid = victim.pid;
        // A tracer is a thread; what it traced goes on when it ends.
        std::thread::spawn(move || {
            trace(pid);
            std::thread::sleep(Duration::from_millis(100));
        });
    });
    let mut strangers = Vec::new();
    for kind in ["-m", "-n", "-p", "-i", "-u", "-U"] {
        range.row(&format!("a program enters by nsenter {kind}"), Losses::None, |_, victim| {
            strangers.push(enter(victim, &[kind]));
        });
    }
    range.row("a program enters every namespace", Losses::None, |_, victim| {
        strangers.push(enter(victim, &["-m", "-n", "-p", "-i", "-u"]));
    });
    drop(strangers);
    range.harmless("programs of its own are started", |range, _| {
        assert_eq!(range.site.get("/fork?n=10").0, 200);
    });
    range.harmless("its writable space is filled", |range, _| {
        range.site.get("/write?path=/tmp/x&bytes=8000000");
    });
    range.harmless("its processes are used up", |range, _| {
        assert_eq!(range.site.get("/fork?n=100").0, 200);
    });
    eventually("the guard is told of", || {
        range.site.must(&["status", "--guard"]).contains("process connector")
    });
    println!("{}", range.site.must(&["status", "--guard"]));
}

#[test]
fn want_of_memory_is_answered() {
    let site = site_or_skip!("want_of_memory_is_answered");
    let range = Range::new(site);
    let before = range.names("instances");
    // Whoever gets it dies of it, and with it the answer.
    let _ = crate::site::get(range.site.address(), "/eat?mb=64");
    eventually("it is replaced", || {
        let now = range.names("instances");
        now.len() == 3 && now != before
    });
}
