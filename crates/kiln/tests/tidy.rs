//! The shape of the source: documents, lengths, layers, and what must not be sayable.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: a failed expectation is a panic"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, in lines.
const LONGEST_FILE: usize = 600;
/// Nine of ten files are shorter than this.
const MOST_FILES: usize = 500;
/// A long function, in lines; at most one in fifty is.
const LONG_FUNCTION: usize = 70;
/// Nine of ten functions are shorter than this.
const MOST_FUNCTIONS: usize = 35;

/// Which crates of the workspace each may use. Imports run downward only.
const LAYERS: &[(&str, &[&str])] = &[
    ("kiln-model", &[]),
    ("kiln-netns", &[]),
    ("kiln-probe", &[]),
    ("kiln-load", &[]),
    ("kiln-config", &["kiln-model"]),
    ("kiln-image", &["kiln-model"]),
    ("kiln-engine", &["kiln-model"]),
    ("kiln-gateway", &["kiln-model", "kiln-netns"]),
    ("kiln-acme", &["kiln-model", "kiln-gateway"]),
    ("kiln-backup", &["kiln-model"]),
    ("kiln-database", &["kiln-model"]),
    (
        "kiln-local",
        &[
            "kiln-model",
            "kiln-image",
            "kiln-engine",
            "kiln-gateway",
            "kiln-netns",
            "kiln-acme",
            "kiln-database",
            "kiln-backup",
        ],
    ),
    (
        "kiln-daemon",
        &["kiln-model", "kiln-config", "kiln-image", "kiln-engine", "kiln-local", "kiln-gateway"],
    ),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn sources() -> BTreeMap<String, String> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let (repository, mut paths) = (repository(), Vec::new());
    collect(&repository.join("crates"), &mut paths);
    let name = |path: &Path| path.strip_prefix(&repository).unwrap().display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "without a module document: {silent:?}");
}

#[test]
fn files_and_functions_are_short() {
    let (mut files, mut functions) = (Vec::new(), Vec::new());
    for (path, text) in sources() {
        files.push((text.lines().count(), path.clone()));
        functions.extend(
            lengths(&text).into_iter().map(|(length, name)| (length, format!("{path}: {name}"))),
        );
    }
    files.sort();
    functions.sort();
    let longest = files.last().unwrap();
    assert!(longest.0 <= LONGEST_FILE, "{longest:?}");
    let usual = &files[files.len() * 9 / 10];
    assert!(usual.0 <= MOST_FILES, "nine of ten files: {usual:?}");
    let usual = &functions[functions.len() * 9 / 10];
    assert!(usual.0 <= MOST_FUNCTIONS, "nine of ten functions: {usual:?}");
    let long: Vec<_> = functions.iter().filter(|f| f.0 > LONG_FUNCTION).collect();
    assert!(long.len() * 50 <= functions.len(), "{long:?}");
}

/// The functions of a file: how many lines, and the first.
fn lengths(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut open) = (Vec::new(), Vec::<(usize, usize, String)>::new());
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let head = code.split('(').next().unwrap_or("");
        if head.split_whitespace().any(|word| word == "fn") && !code.starts_with("//") {
            open.push((indent, number, code.to_owned()));
        }
        if code.starts_with('}') && open.last().is_some_and(|(i, _, _)| *i == indent) {
            let (_, start, name) = open.pop().unwrap();
            found.push((number - start + 1, name));
        }
    }
    found
}

#[test]
fn imports_run_downward_only() {
    for (name, allowed) in LAYERS {
        let manifest = repository().join("crates").join(name).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let needs = text.split("[dependencies]").nth(1).unwrap_or("");
        let needs = needs.split("\n[").next().unwrap_or("");
        for line in needs.lines().filter(|line| line.starts_with("kiln-")) {
            let used = line.split(['.', ' ', '=']).next().unwrap();
            assert!(allowed.contains(&used), "{name} must not use {used}");
        }
    }
}

#[test]
fn an_update_of_an_instance_cannot_be_said() {
    let sources = sources();
    let trait_text = &sources["crates/kiln-engine/src/target.rs"];
    let methods: Vec<&str> = trait_text
        .split("pub trait Target")
        .nth(1)
        .unwrap()
        .split("\n}")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.trim().strip_prefix("fn ")?.split('(').next())
        .collect();
    let wanted = [
        "observe",
        "create",
        "route",
        "drain",
        "destroy",
        "changed",
        "inspect",
        "guard",
        "back_up",
        "backups",
        "alarms",
        "alarm",
        "examine",
        "demand",
        "number",
        "last_words",
        "metrics",
    ];
    assert_eq!(methods, wanted, "the target's methods");
    let plan = &sources["crates/kiln-model/src/plan/mod.rs"];
    let action = plan.split("pub enum Action").nth(1).unwrap().split("\n}").next().unwrap();
    let members: Vec<&str> = action
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with(char::is_uppercase))
        .map(|line| line.split('(').next().unwrap())
        .collect();
    assert_eq!(members, ["Create", "Route", "Drain", "Destroy"], "the steps of a plan");
    for (path, text) in &sources {
        let product = path.contains("/src/") && !path.contains("kiln-bench");
        let spoken = ["model", "engine", "daemon", "local/src/local", "local/src/launcher"];
        if !product || !spoken.iter().any(|part| path.contains(part)) {
            continue;
        }
        for line in text.lines() {
            let Some(name) = line.trim().split("fn ").nth(1) else { continue };
            let name = name.split(['(', '<']).next().unwrap();
            for verb in
                ["update_instance", "modify_instance", "patch_instance", "restart", "exec_in"]
            {
                assert!(!name.contains(verb), "{path}: {name}");
            }
        }
    }
    let verbs = &sources["crates/kiln/src/cli.rs"];
    for verb in ["Update", "Modify", "Patch", "Exec", "Restart", "Edit"] {
        assert!(!verbs.contains(&format!("    {verb}(")), "the command line has {verb}");
    }
}
