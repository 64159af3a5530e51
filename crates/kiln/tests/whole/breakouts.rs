//! The ways out of a container that are publicly known, tried from inside an instance: none leads
//! out, and each is stopped by what docs/security.md says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::replace::SHOP;
use crate::site::{Site, told};

const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md");

/// What the book says of each attempt: the refusals that it may end with.
fn expected() -> BTreeMap<String, Vec<String>> {
    let book = fs::read_to_string(Path::new(BOOK)).unwrap();
    let (_, table) = book.split_once("<!-- breakouts -->").expect("the book has the table");
    let rows = table.lines().skip_while(|line| !line.starts_with("| `"));
    rows.take_while(|line| line.starts_with("| `"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`').to_owned();
            let ends = cells[3].split(", ").map(|end| end.trim_matches('`').to_owned()).collect();
            (name, ends)
        })
        .collect()
}

fn site(more: &str) -> Result<Site, String> {
    let site = Site::new()?;
    let server = "  memory   = \"64MiB\"\n  pids     = 64\n  writable = { \"/tmp\" = \"8MiB\" }\n";
    let stack = SHOP
        .replace("  memory   = \"32MiB\"\n  replicas = 3\n", &format!("{server}{more}"))
        .replace("timeout = \"5s\" }", "timeout = \"20s\" }");
    site.write(&stack);
    site.must(&["apply", "--yes"]);
    Ok(site)
}

/// Runs the corpus; what came of each attempt.
fn attempts(site: &Site) -> BTreeMap<String, String> {
    let (status, text) = site.get("/breakouts");
    assert_eq!(status, 200, "{text}");
    let attempt = |line: &str| {
        let (name, outcome) = line.split_once('\t').unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), outcome.to_owned())
    };
    text.lines().map(attempt).collect()
}

#[test]
fn no_known_way_out_leads_out() {
    let site = match site("") {
        Ok(site) => site,
        Err(reason) => return println!("skipped: no_known_way_out_leads_out: {reason}"),
    };
    let (found, expected) = (attempts(&site), expected());
    let out: Vec<_> = found.iter().filter(|(_, o)| o.starts_with("OUT")).collect();
    assert!(out.is_empty(), "{out:#?}");
    let names = |map: Vec<&String>| map.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(found.keys().collect()), names(expected.keys().collect()), "the book's rows");
    let other: Vec<_> =
        found.iter().filter(|(name, outcome)| !expected[*name].contains(outcome)).collect();
    assert!(other.is_empty(), "not stopped by what the book says: {other:#?}");
    println!("{} attempts, 0 lead out", found.len());
    // What was tried has not even hurt the instance.
    assert_eq!(site.get("/healthz").0, 200);
}

#[test]
fn the_posture_of_what_runs_is_measured_and_all_rules_hold() {
    let site = match site("") {
        Ok(site) => site,
        Err(reason) => return println!("skipped: the_posture_of_what_runs_is_measured: {reason}"),
    };
    let output = site.run(&["audit", "--json"]);
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output)));
    let failed: Vec<&Value> =
        document["rules"].as_array().unwrap().iter().filter(|rule| rule["pass"] == false).collect();
    assert!(output.status.success() && failed.is_empty(), "{failed:#?}");
    assert_eq!(document["instances"], 2, "{document}");
    // A process of the host in the instance's control group is seen.
    let pid = site.instances("web", "pid")[0].clone();
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let id = site.instances("web", "id")[0].clone();
    let path = group.lines().filter_map(|line| line.rsplit(':').next()).find(|p| p.contains(&id));
    let path = path.unwrap_or_else(|| panic!("{group}"));
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let tops = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let procs = tops
        .map(|top| format!("{top}{path}/cgroup.procs"))
        .find(|procs| Path::new(procs).exists())
        .expect("its control group is mounted");
    let mut stranger = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(procs, stranger.id().to_string()).unwrap();
    let output = site.run(&["audit"]);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAIL  members") || said.contains("members: "), "{said}");
}

#[test]
fn strict_and_learned_profiles_serve_and_refuse_more() {
    let site = match site("  seccomp  = \"strict\"\n") {
        Ok(site) => site,
        Err(reason) => {
            return println!(
                "skipped: strict_and_learned_profiles_serve_and_refuse_more: {reason}"
            );
        }
    };
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    let digest = site.component("server", "web")["digest"].clone();
    let main = site.stack().join("main.kiln.hcl");
    let stack = fs::read_to_string(&main).unwrap();
    let test =
        "  test \"answers\" {\n    http = { port = 8080, path = \"/\", status = 200 }\n  }\n";
    let learned = stack.replacen("}\n\nnetwork", &format!("{test}}}\n\nnetwork"), 1);
    fs::write(&main, &learned).unwrap();
    site.must(&["image", "profile", "probe"]);
    let profile = fs::read_to_string(site.stack().join("probe.seccomp")).unwrap();
    for name in ["accept4", "execve", "socket", "bind", "listen"] {
        assert!(profile.lines().any(|line| line == name), "{name} is not in {profile}");
    }
    assert!(!profile.lines().any(|line| line == "fork" || line == "ptrace"), "{profile}");
    fs::write(&main, learned.replace("\"strict\"", "file(\"probe.seccomp\")")).unwrap();
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    assert_ne!(site.component("server", "web")["digest"], digest, "the profile is its identity");
    // What no test has had it do it can't do any more: to start a program takes a pipe.
    assert!(!profile.lines().any(|line| line == "pipe2"), "{profile}");
    let (status, answer) = site.get("/breakouts");
    assert_eq!((status, answer.trim()), (502, "Operation not permitted (os error 1)"));
    // A profile can't give what no instance has.
    let broad = profile + "mount\n";
    fs::write(site.stack().join("probe.seccomp"), broad).unwrap();
    let output = site.run(&["apply", "--yes"]);
    let said = told(&output);
    assert!(!output.status.success() && said.contains("names mount"), "{said}");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
}
