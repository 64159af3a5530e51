//! Each kind of check, when it holds and when it does not.

use std::collections::BTreeMap;

use kiln_model::quantity::Millis;
use kiln_model::spec::image::{Check, ImageTest};

use crate::support::{Site, exec, http, test};

const SERVE: &[&str] = &["serve", "--port", "8080", "--delay-start", "150"];

fn file(path: &str, contains: Option<&str>, mode: Option<u32>, owner: Option<&str>) -> Check {
    let text = |text: Option<&str>| text.map(str::to_owned);
    Check::File { path: path.to_owned(), contains: text(contains), mode, owner: text(owner) }
}

fn log(text: &str) -> Check {
    Check::LogContains { text: text.to_owned() }
}

#[test]
fn everything_that_holds_is_found_to_hold() {
    let Some(site) = Site::new("everything_that_holds_is_found_to_hold", SERVE) else { return };
    let env = BTreeMap::from([("SHAPE".to_owned(), "round".to_owned())]);
    let checks = vec![
        http("/healthz", Some(200), Some("ok")),
        http("/env", None, Some("SHAPE=round")),
        http("/env", None, Some("COLOUR=red")),
        http("/nothing", Some(404), None),
        http("/write?path=/tmp/x", Some(200), Some("ok")),
        http("/write?path=/etc/x", Some(200), Some("EROFS")),
        Check::Tcp { port: 8080 },
        exec(&["/bin/probe", "ask", "/get?url=http://127.0.0.1:8080/healthz"], 0, Some("ok")),
        exec(&["/bin/probe", "exit", "3"], 3, None),
        // No way out, not even to the host.
        exec(&["/bin/probe", "ask", "/connect?addr=10.127.0.1:22"], 0, None),
        file("/conf", Some("listen 8080"), Some(0o640), Some("app:app")),
        file("/etc", None, None, Some("root")),
        Check::NoSuchFile { path: "/bin/sh".to_owned() },
        Check::NoSuchFile { path: "/etc/app.conf/below".to_owned() },
        Check::PortClosed { port: 22 },
        Check::StaysUp { time: Millis(300) },
    ];
    let report = site.try_out(&ImageTest { env, ..test(checks) });
    assert!(report.passed, "{report:#?}");
    assert_eq!((report.problem, report.ended, report.log), (None, None, vec![]));
    assert!(report.milliseconds >= 300, "{}", report.milliseconds);
}

#[test]
fn what_does_not_hold_is_told_with_what_was_found() {
    let Some(site) = Site::new("what_does_not_hold_is_told_with_what_was_found", SERVE) else {
        return;
    };
    let deadline = Millis(1500);
    let checks = vec![
        http("/healthz", Some(500), None),
        http("/healthz", None, Some("excellent")),
        Check::Tcp { port: 9 },
        exec(&["/bin/probe", "exit", "3"], 0, None),
        exec(&["/bin/probe", "ask", "/id"], 0, Some("somebody else")),
        log("never written"),
        Check::StaysUp { time: Millis::seconds(60) },
        http("/healthz", None, None),
    ];
    let report = site.try_out(&ImageTest { deadline, ..test(checks) });
    assert!(!report.passed);
    let found: Vec<&str> = report.checks.iter().map(|check| check.found.as_str()).collect();
    for (index, wanted) in [
        "status 200",
        "a body that starts \"ok\"",
        "refused",
        // On a busy machine the last of several runs may have met the deadline.
        "it ",
        "exec-",
        "lines",
        "up for",
        "status 200",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(found[index].contains(wanted), "{index}: {found:#?}");
    }
    let passed: Vec<bool> = report.checks.iter().map(|check| check.passed).collect();
    assert_eq!(passed, [false, false, false, false, false, false, false, true]);
    assert!((1500..6000).contains(&report.milliseconds), "{}", report.milliseconds);
}

#[test]
fn files_are_looked_at_without_starting_anything() {
    let Some(site) = Site::new("files_are_looked_at_without_starting_anything", &[]) else {
        return;
    };
    let checks = vec![
        file("/etc/app.conf", Some("listen 80"), None, Some("1500")),
        Check::NoSuchFile { path: "/usr/bin/perl".to_owned() },
    ];
    let report = site.try_out(&test(checks));
    assert!(report.passed, "{report:#?}");
    for (check, wanted) in [
        (file("/etc/none", None, None, None), "there is none"),
        (file("/astray", None, None, None), "there is none"),
        (file("/etc/app.conf", Some("tls"), None, None), "does not contain"),
        (file("/etc/app.conf", None, Some(0o644), None), "0o640"),
        (file("/etc/app.conf", None, None, Some("root")), "1500:1500"),
        (file("/etc/app.conf", None, None, Some("whoever")), "`whoever` is not in /etc/passwd"),
        (file("/etc", Some("x"), None, None), "directory"),
        (Check::NoSuchFile { path: "/bin/probe".to_owned() }, "there is a file"),
        (Check::NoSuchFile { path: "/astray".to_owned() }, "there is a link"),
    ] {
        let report = site.try_out(&test(vec![check.clone()]));
        assert!(!report.passed, "{check:?}");
        assert!(report.checks[0].found.contains(wanted), "{check:?}: {report:#?}");
    }
}

#[test]
fn a_port_that_is_open_is_found_even_on_loopback_and_only_at_the_end() {
    let Some(site) = Site::new("a_port_that_is_open_is_found", SERVE) else { return };
    let checks = vec![Check::PortClosed { port: 8080 }, Check::Tcp { port: 8080 }];
    let report = site.try_out(&test(checks));
    assert!(!report.passed && report.checks[1].passed, "{report:#?}");
    assert_eq!(report.checks[0].found, "something listens there");
}

#[test]
fn an_image_without_a_program_can_be_tried_with_one() {
    let Some(site) = Site::new("an_image_without_a_program_can_be_tried_with_one", &[]) else {
        return;
    };
    let ask = exec(&["/bin/probe", "ask", "/env"], 0, Some("COLOUR=red"));
    let report = site.try_out(&test(vec![ask.clone()]));
    assert!(report.passed, "{report:#?}");
    let report = site.try_out(&test(vec![ask, Check::Tcp { port: 1 }]));
    assert!(!report.passed);
    assert!(report.checks[1].found.contains("no entrypoint"), "{report:#?}");
    let command = ["/bin/probe", "serve", "--port", "8080"].map(str::to_owned).to_vec();
    let with = ImageTest { command: Some(command), ..test(vec![http("/healthz", None, None)]) };
    assert!(site.try_out(&with).passed);
    let absent = exec(&["/bin/none"], 0, None);
    let report = site.try_out(&test(vec![absent]));
    assert!(report.checks[0].found.contains("execute /bin/none"), "{report:#?}");
    assert!(report.milliseconds < 10_000, "it is no use to try again");
}
