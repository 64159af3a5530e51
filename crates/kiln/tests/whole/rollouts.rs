//! Releases that get healthy and are worse: each way of replacing calls them off, says why, and
//! goes back to what was. Good ones go through, step by step.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::load::Load;
use crate::site::{Site, eventually, site_or_skip, told};

const STACK: &str = r#"
variable "release" { default = "v1" }
variable "args" {
  type    = list(string)
  default = []
}

image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080"]
}

network "front" { cidr = "10.62.0.0/24" }

server "web" {
  image    = image.probe
  network  = network.front
  args     = concat(["--body", var.release], var.args)
  memory   = "48MiB"
  replicas = 2
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "5s" }
  rollout  = ROLLOUT
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}
"#;

const ROLLING: &str = r#"{ strategy = "rolling", deadline = "20s", watch = "3s" }"#;
const BLUE_GREEN: &str = r#"{ strategy = "blue_green", deadline = "20s", watch = "3s" }"#;
const CANARY: &str = r#"{
    strategy = "canary"
    deadline = "20s"
    steps    = [{ weight = 10, hold = "3s" }, { weight = 50, hold = "500ms" }]
  }"#;

/// A bad release under load, by each way of replacing: given up, for this reason, and the
/// instances before serve on. At most so many of a hundred requests may have seen it.
fn is_called_off(name: &str, args: &str, why: &str) {
    let site = site_or_skip!(name);
    for (rollout, share) in [(ROLLING, 100), (BLUE_GREEN, 100), (CANARY, 10)] {
        site.write(&STACK.replace("ROLLOUT", rollout));
        site.must(&["apply", "--yes"]);
        let before = site.instances("web", "digest");
        let load = Load::start(site.address(), 8);
        let args = format!("args={args}");
        let output = site.run(&["apply", "--yes", "--var", "release=v2", "--var", &args]);
        let (answered, failures) = load.end();
        let said = told(&output);
        assert_eq!(output.status.code(), Some(1), "{rollout}: {said}");
        assert!(said.contains(why), "{rollout}: {said}");
        assert_eq!(site.instances("web", "digest"), before, "{rollout}");
        assert_eq!(site.get("/"), (200, "v1".to_owned()), "{rollout}");
        let seen = failures.len() as u64;
        let most = (answered + seen) * share / 100 + 8;
        assert!(seen <= most, "{rollout}: {seen} of {} failed: {said}", answered + seen);
        println!("{rollout}: {seen} of {} requests failed", answered + seen);
    }
}

#[test]
fn one_that_fails_requests() {
    is_called_off("one_that_fails_requests", r#"["--fails", "20"]"#, "requests failed");
}

#[test]
fn one_that_fails_a_few_requests() {
    is_called_off("one_that_fails_a_few_requests", r#"["--fails", "5"]"#, "requests failed");
}

#[test]
fn one_that_is_slow() {
    is_called_off("one_that_is_slow", r#"["--slow", "600"]"#, "of the answers took more than");
}

#[test]
fn one_that_starts_and_then_ends() {
    let why = "it was ready, and then exited with status 3";
    is_called_off("one_that_starts_and_then_ends", r#"["--die-after", "900"]"#, why);
}

#[test]
fn one_that_leaks() {
    let why = "it was ready, and then ended for want of memory";
    is_called_off("one_that_leaks", r#"["--leaks", "1024"]"#, why);
}

#[test]
fn a_good_one_goes_through_step_by_step() {
    let site = site_or_skip!("a_good_one_goes_through_step_by_step");
    site.write(&STACK.replace("ROLLOUT", CANARY));
    site.must(&["apply", "--yes"]);
    let load = Load::start(site.address(), 8);
    let said = told(&site.run(&["apply", "--yes", "--var", "release=v2"]));
    assert!(said.contains("server.web: step 1 is in force"), "{said}");
    assert!(said.contains("server.web: step 2 is in force"), "{said}");
    load.stop();
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
    assert_eq!(site.instances("web", "id").len(), 2);
}

#[test]
fn what_was_replaced_is_kept_and_a_rollback_starts_nothing() {
    let site = site_or_skip!("what_was_replaced_is_kept");
    let keep = r#"{ strategy = "blue_green", keep = "6s", watch = "0s" }"#;
    site.write(&STACK.replace("ROLLOUT", keep));
    site.must(&["apply", "--yes"]);
    let first = site.instances("web", "id");
    let load = Load::start(site.address(), 8);
    site.must(&["apply", "--yes", "--var", "release=v2"]);
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
    assert_eq!(site.instances("web", "id").len(), 4);
    assert_eq!(site.component("server", "web")["replicas"]["ready"], 2);
    site.must(&["rollback", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    let now = site.instances("web", "id");
    assert!(first.iter().all(|id| now.contains(id)), "{first:?} of {now:?}");
    eventually("the others go", || site.instances("web", "id").len() == 2);
    load.stop();
    assert_eq!(sorted(site.instances("web", "id")), sorted(first));
}

#[test]
fn a_check_decides() {
    let site = site_or_skip!("a_check_decides");
    let flag = site.stack().join("fine");
    let check = format!(
        r#"{{ strategy = "blue_green", deadline = "20s", watch = "500ms",
             analysis = {{ check = {{
               command = ["/bin/cat", "{}"], user = "root", every = "200ms"
             }} }} }}"#,
        flag.display()
    );
    site.write(&STACK.replace("ROLLOUT", &check));
    site.must(&["apply", "--yes"]);
    let output = site.run(&["apply", "--yes", "--var", "release=v2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("its check: /bin/cat ended with"), "{}", told(&output));
    serves(&site, "v1");
    std::fs::write(&flag, "").unwrap();
    site.must(&["apply", "--yes", "--var", "release=v3"]);
    serves(&site, "v3");
}

fn serves(site: &Site, release: &str) {
    assert_eq!(site.get("/"), (200, release.to_owned()));
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[test]
fn a_hand_over_fails_nobody_and_no_two_releases_answer_at_once() {
    let site = site_or_skip!("a_hand_over_fails_nobody");
    let rollout = r#"{ strategy = "blue_green", overlap = false, watch = "0s" }"#;
    site.write(&STACK.replace("ROLLOUT", rollout));
    site.must(&["apply", "--yes", "--var", r#"args=["--slow", "30"]"#]);
    let (load, over) = (Load::start(site.address(), 8), AtomicBool::new(false));
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = Vec::new();
            while !over.load(Ordering::Relaxed) {
                answers.push(site.get("/").1);
            }
            answers
        });
        let args = ["apply", "--yes", "--var", "release=v2", "--var", r#"args=["--slow", "30"]"#];
        site.must(&args);
        over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    load.stop();
    let first = answers.iter().position(|answer| answer == "v2");
    let later = &answers[first.unwrap_or(answers.len())..];
    assert!(later.iter().all(|answer| answer == "v2"), "{answers:?}");
    serves(&site, "v2");
}
