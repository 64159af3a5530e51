//! How programs in sandboxes end, and that nothing of them is left.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_image::sandbox::{Bounds, Ending, Laid, SandboxError};

use crate::support::{Ground, helper, processes_with, small};

#[test]
fn the_way_a_program_ends_is_told() {
    let Some(mut ground) = Ground::new("the_way_a_program_ends_is_told") else { return };
    let done = ground.script("echo out; echo err >&2; exit 7");
    assert_eq!(done.result.unwrap().ending, Ending::Status(7));
    assert_eq!(done.lines, ["out", "err"]);
    let done = ground.script("kill -SEGV $$");
    assert_eq!(done.result.unwrap().ending, Ending::Signal(libc::SIGSEGV));
    let done = ground.script("kill -TERM $$; sleep 5");
    assert_eq!(done.result.unwrap().ending, Ending::Signal(libc::SIGTERM));
    // A stopped process goes on when it is told to.
    let done = ground.script("sh -c 'kill -STOP $$; echo on' & sleep 0.2; kill -CONT $!; wait");
    assert_eq!(done.text(), "on");
}

#[test]
fn what_a_program_leaves_running_ends_with_it() {
    let Some(mut ground) = Ground::new("what_a_program_leaves_running_ends_with_it") else {
        return;
    };
    let done = ground.script("sleep 4321.5 & sh -c 'sleep 4321.5 & sleep 4321.5' & echo done");
    assert_eq!(done.text(), "done");
    assert!(done.took < Duration::from_secs(20), "{:?}", done.took);
    assert_eq!(processes_with("4321.5"), Vec::<String>::new());
}

#[test]
fn at_the_deadline_all_is_ended() {
    let Some(mut ground) = Ground::new("at_the_deadline_all_is_ended") else { return };
    let bounds = Bounds { time: Duration::from_millis(500), ..small() };
    let done = ground.run("echo begun; sleep 4322.5 & sleep 4322.5", (0, 0), false, bounds);
    assert!(matches!(done.result, Err(SandboxError::Deadline(_))), "{:?}", done.result);
    assert_eq!(done.lines, ["begun"]);
    assert!(done.took < Duration::from_secs(20), "{:?}", done.took);
    assert_eq!(processes_with("4322.5"), Vec::<String>::new());
}

#[test]
fn memory_and_processes_are_bounded() {
    let Some(mut ground) = Ground::new("memory_and_processes_are_bounded") else { return };
    let done = ground.script("dd if=/dev/zero of=/tmp/big bs=1M count=500 2>&1; echo $?");
    let told = done.lines.join("\n");
    let killed = done.result.as_ref().is_ok_and(|finished| finished.out_of_memory);
    assert!(killed || told.contains("No space left"), "{:?} {told}", done.result);
    let text = "n=0; while [ $n -lt 100 ]; do sleep 30 & n=$((n+1)); done; echo all";
    let done = ground.script(text);
    let refused = !done.lines.contains(&"all".to_owned());
    assert!(refused, "{:?}", done.result);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let Some(mut ground) = Ground::new("a_program_that_is_not_there_is_named") else { return };
    ground.tree.remove("bin/sh").unwrap();
    let done = ground.script("true");
    let error = done.result.unwrap_err();
    assert!(matches!(error, SandboxError::Program(_)), "{error:?}");
    assert!(error.to_string().contains("execute sh: No such file"), "{error}");
    ground.tree.remove("dev").unwrap();
    let error = ground.script("true").result.unwrap_err();
    assert!(error.to_string().contains("/dev (a directory of the image)"), "{error}");
}

#[test]
fn it_ends_with_whoever_asked() {
    let Some(ground) = Ground::new("it_ends_with_whoever_asked") else { return };
    let place = ground.root.path().join("work");
    let _laid = Laid::out(&ground.tree, &place).unwrap();
    let order = format!(
        r#"{{"root":{place:?},"argv":["sleep","4323.5"],"env":[["PATH","/usr/bin"]],"workdir":"/",
            "user":[0,0],"files":[],"network":false,"clock":0,"memory_bytes":67108864,"pids":64,
            "time_ms":60000}}"#
    );
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(helper())
        .arg("--root")
        .arg(ground.root.path())
        .arg("sandbox")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let length = u32::try_from(order.len()).unwrap();
    ours.write_all(&[&length.to_le_bytes()[..], order.as_bytes()].concat()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes_with("4323.5").is_empty() {
        assert!(Instant::now() < deadline, "the program does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(ours);
    child.wait().unwrap();
    assert_eq!(processes_with("4323.5"), Vec::<String>::new());
}
