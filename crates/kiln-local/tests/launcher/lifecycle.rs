//! The launcher's own life, what it can be asked, and that nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_local::instance::client::{Client, ClientError};
use kiln_local::instance::{Presence, StopPolicy, destroy, observe_instances};
use kiln_local::launcher::protocol::Refusal;
use kiln_local::launcher::{IDLE_LIMIT, SOCKET, ensure_running};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{TestRoot, example, until, wait_for_exit};

fn launcher_pid(root: &TestRoot) -> i32 {
    fs::read_to_string(root.path().join("run/launcher.pid")).unwrap().trim().parse().unwrap()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn many_callers_get_one_launcher_without_their_descriptors() {
    let Some(root) = TestRoot::new("many_callers_get_one_launcher_without_their_descriptors")
    else {
        return;
    };
    // A descriptor that is not closed on exec, as a careless starter may have.
    let file = fs::File::open("/etc/passwd").unwrap();
    let leak = rustix::io::dup(&file).unwrap();
    let pids: BTreeSet<i32> = std::thread::scope(|scope| {
        let ask = || {
            let mut client = ensure_running(root.path(), &example("launcher")).unwrap();
            client.list().unwrap();
            launcher_pid(&root)
        };
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(pids.len(), 1);
    let pid = launcher_pid(&root);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        // The launcher may be closing connections of the callers.
        let target = fs::read_link(entry.unwrap().path()).unwrap_or_default();
        assert_ne!(target, Path::new("/etc/passwd"));
    }
    drop(leak);
    // A session of its own.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string());
}

#[test]
fn instances_outlive_a_killed_client_and_a_killed_launcher() {
    let Some(root) = TestRoot::new("instances_outlive_a_killed_client_and_a_killed_launcher")
    else {
        return;
    };
    let mut client = root.client();
    let launched = root.start(&mut client, root.spec("stays", &["sleep"]));
    drop(client);
    let mut client = root.client();
    let listed = client.list().unwrap();
    assert_eq!((listed.len(), listed[0].pid), (1, launched.pid));
    kill(launcher_pid(&root));
    until("the launcher to be gone", || Client::connect(root.path()).is_err());
    assert!(Path::new(&format!("/proc/{}", launched.pid)).exists());
    // The next launcher takes it over: it is listed, logged, seen to end.
    let mut client = root.client();
    client.subscribe().unwrap();
    let listed = client.list().unwrap();
    assert_eq!((listed.len(), listed[0].pid), (1, launched.pid));
    let mut out =
        fs::OpenOptions::new().write(true).open(format!("/proc/{}/fd/1", launched.pid)).unwrap();
    std::io::Write::write_all(&mut out, b"after\n").unwrap();
    drop(out);
    until("the line", || root.output("stays").0.contains(&"after".to_owned()));
    kill(launched.pid);
    let exit = wait_for_exit(&mut client, "stays");
    assert_eq!((exit.code, exit.signal), (None, None));
}

#[test]
fn a_kill_is_known_at_once() {
    let Some(root) = TestRoot::new("a_kill_is_known_at_once") else { return };
    let mut client = root.client();
    client.subscribe().unwrap();
    let launched = root.start(&mut client, root.spec("victim", &["sleep"]));
    kill(launched.pid);
    assert_eq!(wait_for_exit(&mut client, "victim").signal, Some(libc::SIGKILL));
    let observed = observe_instances(root.path(), &root.cgroups()).unwrap();
    assert_eq!(observed.len(), 1);
    assert_eq!(observed[0].presence, Presence::Ended);
    until("the exit's record", || {
        let observed = observe_instances(root.path(), &root.cgroups()).unwrap();
        observed[0].exit.as_ref().is_some_and(|exit| exit.signal == Some(libc::SIGKILL))
    });
}

#[test]
fn names_are_unique_until_they_are_forgotten() {
    let Some(root) = TestRoot::new("names_are_unique_until_they_are_forgotten") else { return };
    let mut client = root.client();
    client.subscribe().unwrap();
    let launched = root.start(&mut client, root.spec("one", &["sleep"]));
    let again = client.launch(root.spec("one", &["sleep"]));
    assert!(matches!(again, Err(ClientError::Refused(Refusal::Exists(_)))), "{again:?}");
    let early = client.forget("one");
    assert!(matches!(early, Err(ClientError::Refused(Refusal::Running(_)))), "{early:?}");
    let busy = client.shutdown();
    assert!(matches!(busy, Err(ClientError::Refused(Refusal::Busy(1)))), "{busy:?}");
    let unknown = client.kill("two");
    assert!(matches!(unknown, Err(ClientError::Refused(Refusal::Unknown(_)))), "{unknown:?}");
    kill(launched.pid);
    wait_for_exit(&mut client, "one");
    client.forget("one").unwrap();
    root.start(&mut client, root.spec("one", &["sleep"]));
}

#[test]
fn what_is_there_is_read_from_the_kernel() {
    let Some(root) = TestRoot::new("what_is_there_is_read_from_the_kernel") else { return };
    let mut client = root.client();
    let launched = root.start(&mut client, root.spec("whole", &["sleep"]));
    let cgroups = root.cgroups();
    cgroups.create("orphan", &kiln_local::launcher::protocol::Limits::default()).unwrap();
    let observed = observe_instances(root.path(), &cgroups).unwrap();
    let found: Vec<_> = observed.iter().map(|one| (one.instance.as_str(), one.presence)).collect();
    assert_eq!(found, [("orphan", Presence::Orphaned), ("whole", Presence::Running)]);
    assert_eq!(observed[1].main.as_ref().unwrap().pid, launched.pid);
    assert_eq!(observed[1].processes, [launched.pid]);
    let policy = StopPolicy { grace: Duration::from_secs(1), ..StopPolicy::default() };
    for name in ["orphan", "whole", "whole", "never-was"] {
        destroy(root.path(), &cgroups, name, policy).unwrap();
    }
    assert!(observe_instances(root.path(), &cgroups).unwrap().is_empty());
}

#[test]
fn what_moves_into_a_group_ends_with_it() {
    let Some(root) = TestRoot::new("what_moves_into_a_group_ends_with_it") else { return };
    let mut client = root.client();
    root.start(&mut client, root.spec("host", &["sleep"]));
    let mut foreign = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    for directory in root.cgroups().group("host").directories() {
        fs::write(directory.join("cgroup.procs"), foreign.id().to_string()).unwrap();
    }
    destroy(root.path(), &root.cgroups(), "host", StopPolicy::default()).unwrap();
    assert!(foreign.wait().unwrap().code().is_none());
    assert!(root.cgroups().list().unwrap().is_empty());
}

#[test]
fn nothing_is_left_behind() {
    let Some(root) = TestRoot::new("nothing_is_left_behind") else { return };
    let mut client = root.client();
    client.subscribe().unwrap();
    let names: Vec<String> = (0..20).map(|number| format!("many-{number}")).collect();
    let specs = names.iter().map(|name| root.spec(name, &["sleep"])).collect();
    let launched = client.launch_all(specs).unwrap();
    let pids: Vec<i32> = launched.into_iter().map(|one| one.unwrap().pid).collect();
    let policy = StopPolicy { signal: libc::SIGTERM, grace: Duration::from_secs(5) };
    for name in &names {
        destroy(root.path(), &root.cgroups(), name, policy).unwrap();
    }
    client.shutdown().unwrap();
    until("the launcher to end", || !root.path().join("run/launcher.pid").exists());
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
    }
    for directory in root.cgroups().group("x").directories() {
        assert!(!directory.parent().unwrap().exists(), "{} is left", directory.display());
    }
    let left: Vec<_> = fs::read_dir(root.path().join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "launcher.start" && name != "instances")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fs::read_dir(root.path().join("run/instances")).unwrap().count(), 0);
    let own = root.path().to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(own), "{mounts}");
    for device in fs::read_dir("/sys/block").unwrap() {
        let backing = device.unwrap().path().join("loop/backing_file");
        assert!(!fs::read_to_string(backing).unwrap_or_default().contains(own));
    }
}

#[test]
fn a_launcher_ends_when_it_has_nothing_to_do() {
    let Some(root) = TestRoot::new("a_launcher_ends_when_it_has_nothing_to_do") else { return };
    let mut client = root.client();
    let pid = launcher_pid(&root);
    drop(root.run(root.spec("short", &["exit", "0"])));
    let begin = std::time::Instant::now();
    // A client keeps it alive, an idle root does not.
    client.list().unwrap();
    drop(client);
    until("the launcher to end", || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(begin.elapsed() + Duration::from_secs(1) > IDLE_LIMIT, "{:?}", begin.elapsed());
    assert!(!root.path().join(SOCKET).exists());
}
