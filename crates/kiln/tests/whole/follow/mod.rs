//! Branches of real git repositories that are followed: good commits serve, bad ones never do.

mod branch;
mod hostile;
mod repository;
mod signed;
mod storm;
mod webhook;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::Site;
use repository::Repository;

/// How long a commit may take to be deployed on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A web server behind an endpoint, which answers its release.
const STACK: &str = r#"
variable "release" { default = "RELEASE" }

image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080"]
}

network "front" { cidr = "10.61.0.0/24" }

server "web" {
  image    = image.probe
  network  = network.front
  args     = ["--body", var.release]
  memory   = "32MiB"
  replicas = 2
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "5s" }
  rollout  = { deadline = "DEADLINE" }
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}
"#;

/// The stack of a release.
fn stack(site: &Site, release: &str) -> String {
    let text = STACK.replace("RELEASE", release).replace("DEADLINE", "20s");
    text.replace("PORT", &site.port.to_string())
}

/// A release that never gets healthy.
fn unhealthy(site: &Site, deadline: &str) -> String {
    let text = STACK.replace("[\"--body\", var.release]", "[\"--unhealthy\"]");
    text.replace("DEADLINE", deadline).replace("PORT", &site.port.to_string())
}

/// A repository with the first release, which is followed and serves.
fn followed(site: &Site, options: &[&str]) -> Repository {
    let repository = Repository::new(site);
    repository.commit(&stack(site, "v1"), "One");
    follow(site, &repository, options);
    served(site, "v1");
    repository
}

/// Begins to follow. The site's own directory declares the stack too, which names it to the verbs.
fn follow(site: &Site, repository: &Repository, options: &[&str]) {
    site.write(&stack(site, "by-hand"));
    let url = repository.url();
    site.must(&[&["follow", &url, "--branch", "main"], options].concat());
}

/// Waits until the endpoint answers a release.
fn served(site: &Site, release: &str) {
    wait(&format!("{release} is served"), site, || {
        crate::site::get(site.address(), "/")
            .is_ok_and(|answer| answer == (200, release.to_owned()))
    });
    // The daemon may be killed at this very moment.
    wait("the change stands", site, || {
        let output = site.run(&["status", "--json"]);
        let status = serde_json::from_slice::<Value>(&output.stdout);
        output.status.success() && status.is_ok_and(|status| status["rollout"].is_null())
    });
}

/// What is followed.
fn following(site: &Site) -> Value {
    let list: Value = serde_json::from_str(&site.must(&["follow", "--json"])).unwrap();
    list["follows"][0].clone()
}

/// Waits for a result of a commit; it.
fn result_of(site: &Site, commit: &str, outcome: &str) -> Value {
    let find = || {
        let following = following(site);
        let results = following["results"].as_array().cloned().unwrap_or_default();
        results.into_iter().find(|r| r["commit"] == commit && r["outcome"] == outcome)
    };
    wait(&format!("{commit} is {outcome}"), site, || find().is_some());
    find().unwrap()
}

/// Waits until something holds, and says what was followed where it does not.
fn wait(what: &str, site: &Site, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > deadline {
            let log = std::fs::read_to_string(site.root().join("logs/daemon.log"));
            let log: String =
                log.unwrap_or_default().lines().rev().take(40).collect::<Vec<_>>().join("\n");
            panic!("{what}: it does not come true\n{}\n{log}", following(site));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
