//! The tests of what Kiln does with the kernel, again on Debian's own kernel: version 2 control
//! groups only, fs-verity, dm-verity, EROFS behind loop devices, modules that are loaded when they
//! are needed. `scripts/guest` boots it in a virtual machine; here is what runs there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: a failed expectation is a panic"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test program that runs in the guest. Each `test result:` line of it counts.
struct Program {
    name: &'static str,
    /// How long it may take: several times what it needs where it has the processors to itself.
    seconds: u32,
    environment: &'static str,
    /// The test target.
    test: &'static str,
    arguments: &'static str,
}

const PROGRAMS: [Program; 6] = [
    Program { name: "units", seconds: 150, environment: "", test: "kiln_local", arguments: "" },
    Program { name: "launcher", seconds: 300, environment: "", test: "launcher", arguments: "" },
    Program { name: "network", seconds: 300, environment: "", test: "network", arguments: "" },
    Program {
        name: "fs-verity",
        seconds: 400,
        environment: "KILN_INTEGRITY=fs-verity",
        test: "whole",
        arguments: "sealing:: --skip a_write_ --skip a_machine_that",
    },
    Program {
        name: "dm-verity",
        seconds: 400,
        // No fs-verity there.
        environment: "KILN_INTEGRITY=dm-verity TMPDIR=/dev/shm",
        test: "whole",
        arguments: "sealing:: --skip a_write_ --skip what_rots",
    },
    Program {
        name: "whole",
        seconds: 400,
        environment: "",
        test: "whole",
        arguments: "isolation:: leftovers::",
    },
];

/// Further files that they need, where they are on this machine.
const TOOLS: &[&str] = &["bridge", "ip", "nft", "mkfs.ext4"];

#[test]
fn guest() {
    let target = Path::new(env!("CARGO_BIN_EXE_kiln")).ancestors().nth(2).unwrap();
    let Some(probe) = probe(target) else {
        println!("skipped: guest: needs the static kiln-probe; `scripts/test` builds it");
        return;
    };
    let directory = target.join("guest");
    fs::create_dir_all(&directory).unwrap();
    let built = build();
    fs::write(directory.join("programs"), programs(&built.tests, &probe)).unwrap();
    let mut files = vec![probe, env!("CARGO_BIN_EXE_kiln").into()];
    files.extend(built.examples);
    files.extend(PROGRAMS.iter().map(|program| built.tests[program.test].clone()));
    files.extend(TOOLS.iter().filter_map(|name| tool(name)));
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let files = files.join("\n") + "\n";
    fs::write(directory.join("files"), files).unwrap();

    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let script = repository.join("scripts/guest");
    let output = Command::new(script).arg(&directory).stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    if output.status.code() == Some(3) {
        println!("skipped: guest: {}", said.lines().last().unwrap_or_default());
        return;
    }
    println!("{said}");
    assert!(output.status.success(), "scripts/guest: {}", output.status);
    let wrong: Vec<&str> = PROGRAMS
        .iter()
        .map(|program| program.name)
        .filter(|name| !said.lines().any(|line| line == format!("guest: end {name} 0")))
        .collect();
    assert!(wrong.is_empty(), "failed in the guest: {wrong:?}");
    assert_everything_ran(&said);
}

/// What is tested for in the guest must not be skipped there for want of anything.
fn assert_everything_ran(said: &str) {
    let skipped: Vec<&str> = said.lines().filter(|line| line.starts_with("skipped: ")).collect();
    assert!(skipped.is_empty(), "{skipped:?}");
}

/// The lines of what the guest is to run.
fn programs(tests: &BTreeMap<String, PathBuf>, probe: &Path) -> String {
    let mut text = String::new();
    for Program { name, seconds, environment, test, arguments } in PROGRAMS {
        let program = tests.get(test).unwrap_or_else(|| panic!("there is no test {test}"));
        let (probe, program) = (probe.display(), program.display());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name} {seconds} env KILN_PROBE={probe} {environment} {program} {arguments} \
             --show-output --test-threads 4"
        );
    }
    text
}

/// Programs that cargo has built.
struct Built {
    tests: BTreeMap<String, PathBuf>,
    examples: Vec<PathBuf>,
}

/// Has cargo say where the test programs are. They are built already where this is one of them.
fn build() -> Built {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // What cargo has told this program of its package is no setting. Build scripts that look at it
    // (ring's does) would run again, and all that stands on them would be compiled anew, now and
    // at the next call from outside.
    let told =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if told.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "cargo test --no-run: {}", output.status);
    let mut built = Built { tests: BTreeMap::new(), examples: Vec::new() };
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else { continue };
        let name = message["target"]["name"].as_str().unwrap().to_owned();
        let of_local = message["package_id"].as_str().is_some_and(|id| id.contains("kiln-local"));
        if message["target"]["kind"][0] == "example" && of_local {
            built.examples.push(path);
        } else if message["profile"]["test"] == true {
            built.tests.insert(name, path);
        }
    }
    built
}

/// The static probe, as the tests of the whole program find it.
fn probe(target: &Path) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KILN_PROBE").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let built = target.join("x86_64-unknown-linux-gnu/release/kiln-probe");
    built.exists().then_some(built)
}

fn tool(name: &str) -> Option<PathBuf> {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists())
}
