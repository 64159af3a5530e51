//! A status as text.

use kiln_daemon::api::document::{Decided, Difference, Replicas, Scale};

use super::*;

fn instance(id: &str, state: &str) -> Instance {
    Instance {
        id: id.to_owned(),
        digest: "sha256:00".to_owned(),
        generation: Some(7),
        state: state.to_owned(),
        address: Some("10.60.0.129".to_owned()),
        pid: Some(4711),
        started_at: Some("2026-01-31T12:00:00.000Z".to_owned()),
        in_flight: Some(0),
        reason: None,
        since: None,
        integrity: Some("watched".to_owned()),
        role: None,
        position: None,
        drift: Vec::new(),
    }
}

#[test]
fn what_a_person_reads() {
    let mut odd = instance("web-2", "unready");
    odd.reason = Some("connection refused".to_owned());
    odd.drift.push(Difference {
        what: "cgroup.memory".to_owned(),
        expected: "64MiB".to_owned(),
        found: "1GiB".to_owned(),
    });
    let component = |kind: &str, name: &str| Component {
        kind: kind.to_owned(),
        name: name.to_owned(),
        digest: format!("sha256:{}", "0".repeat(64)),
        address: None,
        to: None,
        replicas: None,
        scale: None,
        problem: None,
        failures: None,
        instances: Vec::new(),
        volumes: Vec::new(),
    };
    let status = Status {
        stack: "shop".to_owned(),
        generation: Some(7),
        commit: Some("0123456789abcdef0123".to_owned()),
        healthy: false,
        measured_at: "2026-01-31T12:03:20.000Z".to_owned(),
        rollout: None,
        pinned: Some(7),
        trouble: None,
        alarms: Vec::new(),
        follow: None,
        components: vec![
            component("image", "web"),
            Component {
                address: Some("10.60.0.2".to_owned()),
                replicas: Some(Replicas { wanted: 2, ready: 1, pinned: false }),
                instances: vec![instance("web-1", "ready"), odd],
                failures: Some(Failures {
                    in_a_row: 4,
                    looping: true,
                    instance: "web-0".to_owned(),
                    at: "2026-01-31T12:03:15.000Z".to_owned(),
                    cause: "exited with status 3".to_owned(),
                    next_at: Some("2026-01-31T12:03:21.000Z".to_owned()),
                    last_words: vec!["no such table: orders".to_owned()],
                }),
                ..component("server", "web")
            },
            Component {
                address: Some("10.60.0.3".to_owned()),
                replicas: Some(Replicas { wanted: 7, ready: 7, pinned: false }),
                scale: Some(Scale {
                    min: 2,
                    max: 20,
                    because: Some("2,310 requests/s over 400 each".to_owned()),
                    decided: Some(Decided {
                        at: "2026-01-31T12:03:00.000Z".to_owned(),
                        count: 7,
                        because: "2,299 requests/s over 400 each".to_owned(),
                    }),
                    trouble: Some("/queue printed \"\", no number".to_owned()),
                }),
                ..component("server", "api")
            },
            Component {
                address: Some("127.0.0.1:8080".to_owned()),
                to: Some("server.web".to_owned()),
                ..component("endpoint", "shop")
            },
        ],
    };
    let expected = "\
Stack shop, generation 7 at commit 0123456789ab: not healthy
  pinned to generation 7; `kiln resume` takes the pin out

  image.web      sha256:000000000000
  server.web     1/2 ready  10.60.0.2
    crash loop: 4 in a row, last web-0 5s ago: exited with status 3
    the next one is made at 2026-01-31T12:03:21.000Z
      | no such table: orders
    web-1  ready     10.60.0.129      pid 4711     up 3m 20s  watched
    web-2  unready   10.60.0.129      pid 4711     up 3m 20s  watched  connection refused
      drift: cgroup.memory is 1GiB, not 64MiB
  server.api     7/7 ready  of 2 to 20 (2,310 requests/s over 400 each)  count held: /queue printed \"\", no number  10.60.0.3
  endpoint.shop  127.0.0.1:8080  → server.web
";
    assert_eq!(text(&status, Palette::plain()), expected);
}
