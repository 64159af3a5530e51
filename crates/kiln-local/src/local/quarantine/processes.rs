//! The processes of an instance that is kept as evidence.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;

use serde::Serialize;

use super::bundle::Bundle;
use super::secrets::Secrets;
use crate::cgroup::Group;

/// Processes that are saved; of a fork bomb, the first.
const PROCESSES: usize = 128;

/// Open files of each that are listed.
const FILES: usize = 1024;

/// The most that is read of a command line or an environment, bytes.
const STRINGS: u64 = 256 << 10;

/// Programs up to this size are hashed, bytes.
const PROGRAM: u64 = 256 << 20;

/// One process, in `processes.json`.
#[derive(Debug, Serialize)]
struct Process {
    pid: i32,
    /// Whether it is in the instance's control groups; one from outside is not.
    member: bool,
    /// What `/proc/PID/status` says.
    status: String,
    command: Vec<String>,
    environment: Vec<String>,
    executable: Option<String>,
    executable_sha256: Option<String>,
    directory: Option<String>,
    open_files: Vec<String>,
}

/// The processes in an instance's groups, and those from elsewhere that are in one of its namespaces.
pub(super) fn of(group: &Group, main: i32) -> Vec<(i32, bool)> {
    let mut members: BTreeSet<i32> = group.processes().into_iter().collect();
    members.insert(main);
    let own: Vec<Option<PathBuf>> = KINDS.iter().map(|kind| namespace(main, kind)).collect();
    let joined = |pid: &i32| {
        let its = KINDS.iter().map(|kind| namespace(*pid, kind));
        its.zip(&own).any(|(its, own)| its.is_some() && its == *own)
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let strangers: Vec<i32> = all.filter(|pid| !members.contains(pid)).filter(joined).collect();
    let members = members.into_iter().map(|pid| (pid, true));
    members.chain(strangers.into_iter().map(|pid| (pid, false))).collect()
}

/// The namespaces that an instance shares with nobody.
const KINDS: [&str; 3] = ["pid", "mnt", "net"];

fn namespace(pid: i32, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

pub(super) fn save(bundle: &mut Bundle, pids: &[(i32, bool)], secrets: &Secrets) -> io::Result<()> {
    if pids.len() > PROCESSES {
        bundle.omit(format!("{} of {} processes", pids.len() - PROCESSES, pids.len()));
    }
    let mut found = Vec::new();
    for (pid, member) in pids.iter().take(PROCESSES) {
        // What has ended says nothing.
        let Some(process) = look(*pid, *member, secrets) else { continue };
        found.push(process);
        bundle.copy(&format!("maps/{pid}"), &PathBuf::from(format!("/proc/{pid}/maps")))?;
        if bundle.is_late() {
            break;
        }
    }
    bundle.write("processes.json", &serde_json::to_vec_pretty(&found)?)
}

fn look(pid: i32, member: bool, secrets: &Secrets) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let link = |what: &str| {
        let target = fs::read_link(format!("/proc/{pid}/{what}")).ok()?;
        Some(target.to_string_lossy().into_owned())
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open_files = files.take(FILES).filter_map(|entry| {
        let number = entry.file_name().to_string_lossy().into_owned();
        let target = fs::read_link(entry.path()).ok()?;
        Some(format!("{number} {}", target.to_string_lossy()))
    });
    Some(Process {
        pid,
        member,
        status,
        command: strings(pid, "cmdline", |text| secrets.hide(text)),
        environment: strings(pid, "environ", |text| variable(text, secrets)),
        executable: link("exe"),
        executable_sha256: sum(pid),
        directory: link("cwd"),
        open_files: open_files.collect(),
    })
}

/// The strings of a command line or an environment, without the values of secrets.
fn strings(pid: i32, what: &str, shown: impl Fn(&str) -> String) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = File::open(format!("/proc/{pid}/{what}"));
    if read.and_then(|file| file.take(STRINGS).read_to_end(&mut bytes)).is_err() {
        return Vec::new();
    }
    let strings = bytes.split(|byte| *byte == 0).filter(|string| !string.is_empty());
    strings.map(|string| shown(&String::from_utf8_lossy(string))).collect()
}

/// A variable without secrets. Its name is none.
fn variable(string: &str, secrets: &Secrets) -> String {
    match string.split_once('=') {
        Some((name, value)) => format!("{}={}", secrets.hide_in_name(name), secrets.hide(value)),
        None => secrets.hide(string),
    }
}

/// The checksum of the program that a process executes.
fn sum(pid: i32) -> Option<String> {
    let program = File::open(format!("/proc/{pid}/exe")).ok()?;
    if program.metadata().ok()?.len() > PROGRAM {
        return None;
    }
    Some(kiln_image::checksum::of_reader(program).ok()?.0.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_saved_with_its_program_and_without_secrets() {
        let program = std::process::Command::new("sleep")
            .arg("60")
            .env("TOKEN", "very-secret")
            .env("PLAIN", "shown")
            .spawn();
        let mut child = program.unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let secrets = Secrets::new(Some(vec!["very-secret".to_owned()]));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut found = look(pid, true, &secrets).unwrap();
        // The child is this program until it executes the other.
        while found.command != ["sleep", "60"] && std::time::Instant::now() < deadline {
            found = look(pid, true, &secrets).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.command, ["sleep", "60"]);
        assert!(found.environment.contains(&"TOKEN=(secret)".to_owned()), "{found:?}");
        assert!(found.environment.contains(&"PLAIN=shown".to_owned()));
        assert!(found.open_files.iter().any(|file| file.starts_with("0 ")));
        let bytes = fs::read(found.executable.unwrap()).unwrap();
        let sum = kiln_model::digest::Digest::of(&bytes).hex();
        assert_eq!(found.executable_sha256, Some(sum));
        assert!(look(pid, true, &secrets).is_none(), "one that has ended");
    }
}
