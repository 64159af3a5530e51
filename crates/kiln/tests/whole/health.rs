//! Health as operators meet it: out of rotation and back, replaced, crash loops, want of memory.

use serde_json::Value;

use crate::load::Load;
use crate::site::{Site, eventually, site_or_skip, told};

/// Web servers behind an endpoint, with this health check and these arguments.
fn shop(replicas: u32, arguments: &str, health: &str) -> String {
    format!(
        r#"
image "probe" {{
  base = scratch()
  copy "kiln-probe" {{ to = "/kiln-probe" }}
  entrypoint = ["/kiln-probe", "serve", "--port", "8080"]
}}

network "front" {{ cidr = "10.61.0.0/24" }}

server "web" {{
  image    = image.probe
  network  = network.front
  args     = [{arguments}]
  memory   = "32MiB"
  replicas = {replicas}
  health   = {{ {health} }}
  rollout  = {{ deadline = "4s" }}
}}

endpoint "shop" {{
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}}
"#
    )
}

const READY: &str = r#"http = { port = 8080, path = "/healthz" }, every = "50ms", timeout = "5s""#;
const LIVE: &str = r#"liveness = { http = { port = 8080, path = "/livez" } }"#;

/// Each instance's state and reason, by id.
fn states(site: &Site) -> Vec<(String, String, String)> {
    let web = site.component("server", "web");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |i: &Value| (text(&i["id"]), text(&i["state"]), text(&i["reason"]));
    web["instances"].as_array().unwrap().iter().map(one).collect()
}

fn all_ready(site: &Site, count: usize) -> bool {
    let states = states(site);
    states.len() == count && states.iter().all(|(_, state, _)| state == "ready")
}

#[test]
fn an_unready_instance_leaves_rotation_and_returns_and_nobody_notices() {
    let site = site_or_skip!("an_unready_instance_leaves_rotation_and_returns");
    site.write(&shop(2, "", &format!("{READY}, failures = 2, successes = 2, {LIVE}")));
    site.must(&["apply", "--yes"]);
    let ids = site.instances("web", "id");
    let load = Load::start(site.address(), 8);
    let victim = site.get("/turn?what=ready&to=off").1;
    eventually("it is out of rotation, with the reason", || {
        states(&site).iter().any(|(id, state, reason)| {
            *id == victim && state == "unready" && reason.contains("/healthz")
        })
    });
    let text = site.must(&["status"]);
    assert!(text.contains("status 503") && text.contains("1/2 ready"), "{text}");
    for _ in 0..20 {
        assert_ne!(site.get("/id").1, victim, "nothing goes to it");
    }
    // Nothing is routed to it, so it is asked from inside its network.
    let address = site.component("server", "web")["instances"].clone();
    let address = address.as_array().unwrap().iter().find(|i| i["id"] == *victim).unwrap().clone();
    let url = format!("http://{}:8080/turn?what=ready&to=on", address["address"].as_str().unwrap());
    let network = site.component("network", "front")["instances"][0]["id"].clone();
    let namespace = site.root().join("run/net").join(network.as_str().unwrap());
    let asked = std::process::Command::new("nsenter")
        .arg(format!("--net={}", namespace.display()))
        .arg(site.stack().join("kiln-probe"))
        .args(["ask", &format!("/get?url={}", url.replace('&', "%26"))])
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", told(&asked));
    eventually("it is back", || all_ready(&site, 2));
    assert_eq!(site.instances("web", "id"), ids, "and the same as before");
    load.stop();
}

#[test]
fn one_that_does_not_live_is_replaced_under_load() {
    let site = site_or_skip!("one_that_does_not_live_is_replaced");
    site.write(&shop(2, "", &format!("{READY}, {LIVE}")));
    site.must(&["apply", "--yes"]);
    let load = Load::start(site.address(), 8);
    let victim = site.get("/turn?what=live&to=off").1;
    eventually("another takes its place", || {
        all_ready(&site, 2) && states(&site).iter().all(|(id, ..)| *id != victim)
    });
    let events = site.must(&["events"]);
    assert!(events.contains("not alive: GET /livez"), "{events}");
    load.stop();
}

#[test]
fn one_that_stays_unready_is_replaced_after_its_bound() {
    let site = site_or_skip!("one_that_stays_unready_is_replaced");
    site.write(&shop(1, "", &format!("{READY}, replace_after = \"1s\"")));
    site.must(&["apply", "--yes"]);
    let victim = site.get("/turn?what=ready&to=off").1;
    eventually("another takes its place", || {
        all_ready(&site, 1) && states(&site).iter().all(|(id, ..)| *id != victim)
    });
}

#[test]
fn startup_waits_for_a_line_and_grpc_tells_of_readiness() {
    let site = site_or_skip!("startup_waits_for_a_line");
    let health = r#"grpc = { port = 9090 }, every = "50ms", timeout = "5s",
        startup = { log = { matches = "^caches are (warm|hot)$" }, deadline = "3s" }"#;
    let arguments = r#""--grpc", "9090", "--say-after", "800", "--say", "caches are warm""#;
    site.write(&shop(1, arguments, health));
    let begun = std::time::Instant::now();
    site.must(&["apply", "--yes"]);
    assert!(begun.elapsed().as_millis() >= 800, "it is not ready before it has said so");
    let victim = site.get("/turn?what=ready&to=off").1;
    eventually("what is not SERVING is replaced", || {
        all_ready(&site, 1) && states(&site).iter().all(|(id, ..)| *id != victim)
    });
    let events = site.must(&["events"]);
    assert!(events.contains("gRPC health on port 9090: the status is NOT_SERVING"), "{events}");
    // A daemon that comes later knows that it has started.
    site.signal("serve", rustix::process::Signal::KILL);
    let ids = site.instances("web", "id");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(site.instances("web", "id"), ids);
    // One that never says it is given up, with the reason.
    site.write(
        &shop(1, r#""--grpc", "9090""#, health)
            .replace("deadline = \"3s\"", "deadline = \"500ms\""),
    );
    let output = site.run(&["apply", "--yes"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("not started within 500ms") && text.contains("caches are"), "{text}");
    assert_eq!(site.instances("web", "id"), ids, "the old one was never touched");
}

#[test]
fn a_crash_loop_is_told_with_its_cause_and_last_words() {
    let site = site_or_skip!("a_crash_loop_is_told");
    site.write(&shop(1, r#""--die-after", "700""#, READY));
    site.must(&["apply", "--yes"]);
    let mut failures = Value::Null;
    eventually("the loop is recognised", || {
        failures = site.component("server", "web")["failures"].clone();
        failures["looping"] == true
    });
    assert_eq!(failures["cause"], "exited with status 3", "{failures}");
    let words = failures["last_words"].as_array().unwrap();
    assert_eq!(words.last().unwrap(), "cannot go on", "{failures}");
    let text = site.must(&["status"]);
    assert!(text.contains("crash loop: ") && text.contains("| cannot go on"), "{text}");
    let events = site.must(&["events"]);
    assert!(events.contains("crashed") && events.contains("status 3: cannot go on"), "{events}");
}

#[test]
fn want_of_memory_and_faults_are_told_as_such() {
    let site = site_or_skip!("want_of_memory_and_faults");
    site.write(&shop(1, "", READY));
    site.must(&["apply", "--yes"]);
    let cause = || site.component("server", "web")["failures"]["cause"].clone();
    let first = site.get("/leak?mb=4&every=20").1;
    eventually("OOM is told", || {
        all_ready(&site, 1) && cause() == "ended for want of memory (OOM)"
    });
    assert!(states(&site).iter().all(|(id, ..)| *id != first));
    // Whoever asks gets no answer.
    let _ = crate::site::get(site.address(), "/crash");
    eventually("a fault is told", || cause() == "killed by signal 11 (SIGSEGV)");
    eventually("and healed", || all_ready(&site, 1));
}
