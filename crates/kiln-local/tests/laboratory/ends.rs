//! Programs that end, interruptions, several tests at once, and that nothing is left.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_image::trial::{Laboratory as _, Stop, run_tests};
use kiln_model::quantity::{Bytes, Millis};
use kiln_model::spec::image::{Check, ImageTest};

use crate::support::{Site, exec, http, test};

const SERVE: &[&str] = &["serve", "--port", "8080"];

fn running(command: &[&str], checks: Vec<Check>) -> ImageTest {
    let command = command.iter().map(ToString::to_string).collect();
    ImageTest { command: Some(command), ..test(checks) }
}

fn log(text: &str) -> Check {
    Check::LogContains { text: text.to_owned() }
}

#[test]
fn a_program_that_ends_decides_the_test_at_once() {
    let Some(site) = Site::new("a_program_that_ends_decides_the_test_at_once", SERVE) else {
        return;
    };
    let report = site.try_out(&running(&["/bin/probe", "exit", "7"], vec![http("/", None, None)]));
    assert!(!report.passed && report.milliseconds < 10_000, "{report:#?}");
    assert_eq!(report.ended.as_deref(), Some("exited with status 7"));
    assert_eq!(report.checks[0].found, "the program has ended");
    // A bad option is answered with the usage, and status 2.
    let report = site.try_out(&running(&["/bin/probe", "shape"], vec![log("usage")]));
    assert!(!report.passed && report.checks[0].passed, "{report:#?}");
    assert!(report.log.iter().any(|line| line.contains("kiln-probe")), "{report:#?}");
    // One that has done its work is no failure.
    let once = running(&["/bin/probe", "ask", "/env"], vec![log("COLOUR=red")]);
    let report = site.try_out(&once);
    assert!(report.passed, "{report:#?}");
    let up = running(&["/bin/probe", "ask", "/env"], vec![Check::StaysUp { time: Millis(5000) }]);
    assert!(!site.try_out(&up).passed);
    let report = site.try_out(&running(&["/bin/none"], vec![log("x")]));
    let problem = report.problem.unwrap();
    assert!(problem.contains("execute /bin/none"), "{problem}");
}

#[test]
fn a_program_that_wants_too_much_memory_is_told_to() {
    let Some(site) = Site::new("a_program_that_wants_too_much_memory_is_told_to", SERVE) else {
        return;
    };
    let eat = ImageTest {
        memory: Bytes::mib(32),
        ..running(&["/bin/probe", "ask", "/eat?mb=200"], vec![log("ok")])
    };
    let report = site.try_out(&eat);
    assert!(!report.passed, "{report:#?}");
    assert!(report.ended.as_ref().unwrap().contains("out of memory"), "{report:#?}");
}

#[test]
fn a_program_beside_it_is_ended_at_the_deadline() {
    let Some(site) = Site::new("a_program_beside_it_is_ended_at_the_deadline", SERVE) else {
        return;
    };
    let hangs = exec(&["/bin/probe", "serve", "--port", "9090"], 0, None);
    let late = ImageTest { deadline: Millis(1000), ..test(vec![hangs, http("/", None, None)]) };
    let report = site.try_out(&late);
    assert!(!report.passed && report.checks[1].passed, "{report:#?}");
    assert!(report.checks[0].found.contains("still running at the deadline"), "{report:#?}");
    assert!((1000..8000).contains(&report.milliseconds), "{}", report.milliseconds);
}

#[test]
fn several_run_at_once_on_the_same_ports_and_leave_nothing() {
    let Some(site) = Site::new("several_run_at_once_on_the_same_ports", SERVE) else { return };
    let links = || fs::read_dir("/sys/class/net").unwrap().count();
    let before = links();
    let up = |name: &str| ImageTest {
        name: name.to_owned(),
        ..test(vec![http("/healthz", None, None), Check::StaysUp { time: Millis(500) }])
    };
    let mut tests: Vec<ImageTest> = (0..6).map(|n| up(&format!("test {n}"))).collect();
    tests[3] = ImageTest {
        name: "test 3".to_owned(),
        ..running(&["/bin/probe", "exit", "1"], vec![http("/", None, None)])
    };
    let reports = run_tests(&site.laboratory(), &site.image, &tests, &(), &Stop::default());
    let passed: Vec<bool> = reports.iter().map(|report| report.passed).collect();
    assert_eq!(passed, [true, true, true, false, true, true], "{reports:#?}");
    assert_eq!(links(), before, "links are left on the host");
}

#[test]
fn an_interruption_ends_a_test_soon() {
    let Some(site) = Site::new("an_interruption_ends_a_test_soon", SERVE) else { return };
    let stop = Stop::default();
    let started = Instant::now();
    let long = test(vec![Check::StaysUp { time: Millis::seconds(15) }]);
    let report = std::thread::scope(|scope| {
        let trial = scope.spawn(|| site.laboratory().try_out(&site.image, &long, &stop));
        std::thread::sleep(Duration::from_millis(300));
        stop.set();
        trial.join().unwrap()
    });
    assert_eq!(report.problem.as_deref(), Some("interrupted"));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn what_a_killed_process_has_left_is_swept() {
    const VARIABLE: &str = "KILN_TEST_LABORATORY_VICTIM";
    let Some(site) = Site::new("what_a_killed_process_has_left_is_swept", SERVE) else { return };
    let long = test(vec![Check::StaysUp { time: Millis::seconds(15) }]);
    if let Some(root) = std::env::var_os(VARIABLE) {
        // This is the process that is to be killed.
        let laboratory = kiln_local::laboratory::LocalLaboratory::new(
            std::path::Path::new(&root),
            &crate::support::helper(),
        );
        laboratory.try_out(&site.image, &long, &Stop::default());
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ends::what_a_killed_process_has_left_is_swept"])
        .env(VARIABLE, site.root.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let there = || {
        site.left().iter().any(|name| {
            site.root
                .path()
                .join("run")
                .join(name)
                .join("run/instances/subject/record.json")
                .exists()
        })
    };
    while !there() {
        assert!(Instant::now() < deadline, "the test does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    // A living process's tests are left alone.
    drop(site.laboratory());
    assert!(there(), "a test was swept that still runs");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(there());
    drop(site.laboratory());
    assert_eq!(site.left(), Vec::<String>::new());
}
