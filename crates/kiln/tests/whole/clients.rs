//! Two clients that change a stack at the same time, with aborts and rollbacks between: one consistent
//! generation comes of it, and nobody notices.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;

use crate::load::Load;
use crate::site::{Site, eventually, send, site_or_skip, told};

/// How often the two meet.
const MEETINGS: u64 = 20;

const STACK: &str = r#"
variable "release" { default = "first" }
variable "args" {
  type    = list(string)
  default = []
}

image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080"]
}

network "front" { cidr = "10.66.0.0/24" }

server "web" {
  image    = image.probe
  network  = network.front
  args     = concat(["--body", var.release], var.args)
  memory   = "16MiB"
  replicas = 3
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "5s" }
  rollout  = { ROLLOUT, deadline = "DEADLINE", watch = "100ms" }
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}
"#;

const ROLLOUTS: [&str; 3] = [
    r#"strategy = "rolling""#,
    r#"strategy = "blue_green""#,
    r#"strategy = "canary", steps = [{ weight = 34, hold = "200ms" }]"#,
];

#[test]
fn two_clients_with_aborts_and_rollbacks_leave_one_generation() {
    let site = site_or_skip!("two_clients_with_aborts_and_rollbacks_leave_one_generation");
    let write = |rollout: &str, deadline: &str| {
        site.write(&STACK.replace("ROLLOUT", rollout).replace("DEADLINE", deadline));
    };
    write(ROLLOUTS[0], "30s");
    site.must(&["apply", "--yes"]);
    let load = Load::start(site.address(), 6);
    // A linear congruential generator (Knuth's MMIX): the moments are the same in every run.
    let mut random: u64 = 3;
    for meeting in 0..MEETINGS {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pause = Duration::from_millis((random >> 33) % 300);
        let bad = meeting % 4 == 3;
        let rollout = ROLLOUTS[usize::try_from(meeting).unwrap() % ROLLOUTS.len()];
        // One that never gets ready is given up at its deadline.
        write(rollout, if bad { "1s" } else { "30s" });
        let release = format!("release=a{meeting}");
        let args = if bad { r#"args=["--unhealthy"]"# } else { "args=[]" };
        let one = site.start(&["apply", "--yes", "--var", &release, "--var", args]);
        std::thread::sleep(pause);
        let other = if meeting % 2 == 0 {
            site.start(&["rollback", "--yes"])
        } else {
            let release = format!("release=b{meeting}");
            let other = site.start(&["apply", "--yes", "--var", &release]);
            std::thread::sleep(pause);
            // Takes back what it has begun; where it waits for the first, it gives up waiting.
            send(i32::try_from(other.id()).unwrap(), Signal::INT);
            other
        };
        ended(one);
        ended(other);
        consistent(&site);
    }
    write(ROLLOUTS[0], "30s");
    site.must(&["apply", "--yes", "--var", "release=last"]);
    consistent(&site);
    assert_eq!(site.get("/"), (200, "last".to_owned()));
    load.stop();
}

/// A client ends as it says it does: done, given up or refused, or interrupted.
fn ended(mut client: Child) {
    let status = client.wait().unwrap();
    // One that is interrupted in its first moments is ended by the signal itself.
    let interrupted = status.signal() == Some(Signal::INT.as_raw());
    assert!(interrupted || matches!(status.code(), Some(0 | 1 | 130)), "{status}");
}

/// One generation is active, no rollout is under way, and all there is is as that generation says.
fn consistent(site: &Site) {
    let mut last = String::new();
    eventually("one generation, and all instances of it", || {
        let output = site.run(&["status", "--json"]);
        last = told(&output);
        let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
            return false;
        };
        let components = status["components"].as_array().unwrap();
        let web = components.iter().find(|c| c["name"] == "web").unwrap();
        let instances = web["instances"].as_array().unwrap();
        status["rollout"].is_null()
            && status["healthy"] == true
            && instances.len() == 3
            && instances.iter().all(|i| i["digest"] == web["digest"] && i["state"] == "ready")
    });
    let history = site.must(&["history", "--json"]);
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    let generations = history["generations"].as_array().unwrap();
    let all = |state: &str| generations.iter().filter(|g| g["state"] == state).count();
    assert_eq!((all("active"), all("rolling_out")), (1, 0), "{history}\n{last}");
}
