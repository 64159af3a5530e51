//! How instances end, and what bounds end them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_local::instance::client::ClientError;
use kiln_local::instance::{StopPolicy, destroy};
use kiln_local::launcher::protocol::{ImageSource, LaunchError, LaunchSpec, Refusal, Stage};
use kiln_local::logs;

use crate::support::{TestRoot, until, wait_for_exit};

#[test]
fn exits_are_recorded_as_they_are() {
    let Some(root) = TestRoot::new("exits_are_recorded_as_they_are") else { return };
    let (exit, _) = root.run(root.spec("three", &["exit", "3"]));
    assert_eq!((exit.code, exit.signal, exit.out_of_memory), (Some(3), None, false));
    let (exit, _) = root.run(root.spec("abort", &["abort"]));
    assert_eq!(exit.code, None);
    assert!(exit.signal.is_some());
}

#[test]
fn the_memory_bound_ends_it_and_is_named() {
    let Some(root) = TestRoot::new("the_memory_bound_ends_it_and_is_named") else { return };
    let (exit, _) = root.run(root.spec("eats", &["eat", "200"]));
    assert_eq!((exit.signal, exit.out_of_memory), (Some(libc::SIGKILL), true));
    let (exit, output) = root.run(root.spec("modest", &["eat", "20"]));
    assert_eq!((exit.code, exit.out_of_memory), (Some(0), false));
    assert_eq!(output.get("eaten"), "20");
}

#[test]
fn the_bounds_on_processes_and_processors_are_set() {
    let Some(root) = TestRoot::new("the_bounds_on_processes_and_processors_are_set") else {
        return;
    };
    let (_, output) = root.run(root.spec("forks", &["fork", "100"]));
    // 32 with the probe itself.
    assert_eq!(output.get("forked"), "31");
    assert_eq!(output.get("error"), libc::EAGAIN.to_string());
    let mut client = root.client();
    root.start(&mut client, root.spec("quota", &["sleep"]));
    let group = root.cgroups().group("quota");
    let read = |name: &str| {
        let found = group.directories().find_map(|dir| fs::read_to_string(dir.join(name)).ok());
        found.map(|text| text.trim().to_owned())
    };
    match read("cpu.max") {
        Some(bound) => assert_eq!(bound, "50000 100000"),
        None => assert_eq!(read("cpu.cfs_quota_us").unwrap(), "50000"),
    }
}

#[test]
fn a_stop_is_heard_where_there_is_a_handler_and_short_where_there_is_none() {
    let name = "a_stop_is_heard_where_there_is_a_handler_and_short_where_there_is_none";
    let Some(root) = TestRoot::new(name) else { return };
    let mut client = root.client();
    client.subscribe().unwrap();
    let grace = Duration::from_secs(60);
    root.start(&mut client, root.spec("hears", &["term"]));
    client.stop("hears", libc::SIGTERM, grace).unwrap();
    assert_eq!(wait_for_exit(&mut client, "hears").code, Some(7));
    root.start(&mut client, root.spec("deaf", &["sleep"]));
    let begin = Instant::now();
    client.stop("deaf", libc::SIGTERM, grace).unwrap();
    assert_eq!(wait_for_exit(&mut client, "deaf").signal, Some(libc::SIGKILL));
    assert!(begin.elapsed() < grace / 2, "{:?}", begin.elapsed());
    // One that hears but does not end is ended after its grace.
    root.start(&mut client, root.spec("stubborn", &["term"]));
    client.stop("stubborn", libc::SIGWINCH, Duration::from_millis(50)).unwrap();
    assert_eq!(wait_for_exit(&mut client, "stubborn").signal, Some(libc::SIGKILL));
}

#[test]
fn a_failed_start_names_its_stage_and_leaves_nothing() {
    let Some(root) = TestRoot::new("a_failed_start_names_its_stage_and_leaves_nothing") else {
        return;
    };
    let mut client = root.client();
    let mut fails = |stage: Stage, errno: Option<i32>, change: &dyn Fn(&mut LaunchSpec)| {
        let mut spec = root.spec("fails", &["exit", "0"]);
        change(&mut spec);
        match client.launch(spec) {
            Err(ClientError::Refused(Refusal::Launch(LaunchError {
                stage: found,
                errno: number,
                text,
            }))) => assert_eq!((found, number), (stage, errno), "{text}"),
            other => panic!("{other:?}"),
        }
        until("the groups to be gone", || root.cgroups().list().unwrap().is_empty());
        assert!(!kiln_local::instance::record::directory(root.path(), "fails").exists());
        assert!(client.list().unwrap().is_empty());
    };
    fails(Stage::Spec, None, &|spec| "Fails/..".clone_into(&mut spec.instance));
    for path in ["/", "tmp", "/proc/x", "/srv/../etc"] {
        fails(Stage::Spec, None, &|spec| path.clone_into(&mut spec.writable[0].path));
    }
    fails(Stage::Spec, None, &|spec| spec.writable[0].size_bytes = 0);
    fails(Stage::Image, Some(libc::ENOENT), &|spec| {
        spec.image.path = "/no/image".into();
    });
    fails(Stage::Image, Some(libc::EINVAL), &|spec| {
        spec.image = ImageSource::as_it_is(Path::new("/etc/passwd")).unwrap();
    });
    fails(Stage::Seal, None, &|spec| {
        let copy = root.path().join("copy.erofs");
        fs::copy(&root.image, &copy).unwrap();
        spec.image = ImageSource::as_it_is(&copy).unwrap();
        fs::write(copy, "something else").unwrap();
    });
    fails(Stage::User, None, &|spec| "stranger".clone_into(&mut spec.user));
    fails(Stage::Writable, Some(libc::ENOENT), &|spec| {
        "/missing".clone_into(&mut spec.writable[0].path);
    });
    fails(Stage::Workdir, Some(libc::ENOENT), &|spec| "/missing".clone_into(&mut spec.workdir));
    fails(Stage::Exec, Some(libc::ENOENT), &|spec| spec.argv = vec!["missing".to_owned()]);
    fails(Stage::Exec, Some(libc::EACCES), &|spec| {
        spec.argv = vec!["/not-a-program".to_owned()];
    });
    fails(Stage::Privileges, Some(libc::EPERM), &|spec| {
        spec.limits.open_files = Some(1 << 40);
    });
    // The launcher has not suffered.
    let (exit, _) = root.run(root.spec("works", &["exit", "0"]));
    assert_eq!(exit.code, Some(0));
}

#[test]
fn a_flood_of_output_is_bounded_and_starves_nobody() {
    let Some(root) = TestRoot::new("a_flood_of_output_is_bounded_and_starves_nobody") else {
        return;
    };
    let mut client = root.client();
    root.start(&mut client, root.spec("flood", &["flood"]));
    let directory = logs::directory(root.path(), "flood");
    until("the second segment", || directory.join("log.1").exists());
    let begin = Instant::now();
    let (exit, _) = root.run(root.spec("calm", &["exit", "0"]));
    assert_eq!(exit.code, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let size: u64 = fs::read_dir(&directory)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum();
    assert!(size <= 2 * logs::SEGMENT_BYTES, "{size}");
    let last = logs::tail(&directory, 10).unwrap();
    assert_eq!(last.len(), 10);
    assert!(last[..9].iter().all(|line| line.text.len() == 99), "{last:?}");
    let policy = StopPolicy { signal: libc::SIGTERM, grace: Duration::ZERO };
    destroy(root.path(), &root.cgroups(), "flood", policy).unwrap();
    logs::remove(root.path(), "flood").unwrap();
    assert!(!directory.exists());
}
