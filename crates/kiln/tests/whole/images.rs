//! The examples of images from Debian's own archive: they are built, pass their tests, and are the
//! same bytes when another user builds them elsewhere, at another time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::site::told;

/// Where Debian's package `faketime` has its library.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[test]
fn examples_pass_their_tests_and_are_the_same_elsewhere() {
    let name = "examples_pass_their_tests_and_are_the_same_elsewhere";
    if !rustix::process::geteuid().is_root() {
        println!("skipped: {name}: needs root");
        return;
    }
    let directory = TempDir::new().unwrap();
    let here = Place::new(directory.path(), "here");
    let locked = here.kiln(&["image", "lock"]).output().unwrap();
    if !locked.status.success() && told(&locked).contains("can't fetch") {
        println!("skipped: {name}: Debian's mirror can't be reached");
        return;
    }
    let built = digests(&must(here.kiln(&["--json", "image", "build"])));
    assert_eq!(built.len(), 6, "{built:?}");
    let listed = must(here.kiln(&["--json", "image", "list"]));
    let admitted = listed["images"].as_array().unwrap().iter().all(|i| i["admitted"] == true);
    assert!(admitted, "{listed}");

    // Elsewhere: the same lock and files, and hardly anything else.
    let elsewhere = Place::new(directory.path(), "another/place/that/is/deeper");
    let untested = without_tests(&elsewhere.configuration());
    fs::write(elsewhere.stack.join("main.kiln.hcl"), untested).unwrap();
    fs::copy(here.stack.join("kiln.lock"), elsewhere.stack.join("kiln.lock")).unwrap();
    share(&here.root.join("cache/sha256"), &elsewhere.root.join("cache/sha256"));
    let again = digests(&must(elsewhere.estranged(&["--json", "image", "build"])));
    assert_eq!(again, built);
}

/// A root, and a stack's directory of its own.
pub struct Place {
    pub root: PathBuf,
    pub stack: PathBuf,
}

impl Place {
    /// One with the example.
    fn new(directory: &Path, name: &str) -> Self {
        let place = Self::empty(directory, name);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/images/.");
        let copied = Command::new("cp").arg("--recursive").args([&example, &place.stack]).status();
        assert!(copied.unwrap().success());
        // What a developer has locked there is another matter.
        let _ = fs::remove_file(place.stack.join("kiln.lock"));
        place
    }

    /// One with an empty directory of a stack.
    pub fn empty(directory: &Path, name: &str) -> Self {
        let place = directory.join(name);
        let (root, stack) = (place.join("r"), place.join("images"));
        fs::create_dir_all(&stack).unwrap();
        Self { root, stack }
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.stack.join("main.kiln.hcl")).unwrap()
    }

    fn words(&self, arguments: &[&str]) -> Vec<String> {
        let (root, stack) = (self.root.display().to_string(), self.stack.display().to_string());
        let own = [env!("CARGO_BIN_EXE_kiln"), "--root", &root, "--stack", &stack];
        own.iter().chain(arguments).map(ToString::to_string).collect()
    }

    /// The program as it is mostly run.
    pub fn kiln(&self, arguments: &[&str]) -> Command {
        let words = self.words(arguments);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// The program on one processor of a host of another name, with another mask, time zone,
    /// language and home, and years later where `faketime` is at hand.
    pub fn estranged(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let script = "hostname elsewhere; umask 077; exec taskset --cpu-list 0 \"$@\"";
        command.args(["--uts", "sh", "-c", script, "sh"]).args(self.words(arguments));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("TZ", "Pacific/Kiritimati").env("LANG", "tr_TR.UTF-8").env("LC_ALL", "C");
        command.env("HOME", "/nonexistent").env("USER", "nobody").current_dir("/");
        if Path::new(FAKETIME).exists() {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", "+1500d");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        } else {
            println!("skipped: a_later_time: needs faketime");
        }
        command
    }
}

pub fn must(mut command: Command) -> Value {
    let output: Output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Name and digest of each image, in order.
pub fn digests(document: &Value) -> Vec<(String, String)> {
    let images = document["images"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut found: Vec<_> = images.map(|i| (text(&i["name"]), text(&i["digest"]))).collect();
    found.sort();
    found
}

/// The configuration without its `test` blocks, which are no part of what an image is.
fn without_tests(configuration: &str) -> String {
    let (mut kept, mut inside) = (String::new(), false);
    for line in configuration.lines() {
        inside |= line.starts_with("  test \"");
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
        inside &= line != "  }";
    }
    kept
}

/// Gives files a second name in another directory.
pub fn share(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::hard_link(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
