//! Networks made and destroyed: what that takes, and what is left.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use kiln_local::network::{Error, attach, detach};
use kiln_netns::Namespace;

use crate::support::{FIRST, ONE, OTHER, Root, SOON, instance, place, refusal, spec, unanswered};

/// The least and the median.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("{:?} / {:?}", times[0], times[times.len() / 2])
}

#[test]
fn nothing_is_left() {
    let Some(root) = Root::new("nothing_is_left") else { return };
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    assert_eq!(root.mounts(), 1);
    drop((one, network));
    root.networks.destroy("front-1").unwrap();
    root.networks.destroy("front-1").unwrap();
    assert_eq!(root.mounts(), 0);
    assert_eq!(std::fs::read_dir(root.directory.path().join("net")).unwrap().count(), 0);
    assert!(root.networks.observe().unwrap().is_empty());
    assert_eq!(here, std::fs::read_link("/proc/thread-self/ns/net").unwrap());
}

#[test]
fn what_is_half_made_is_destroyed_whole() {
    let Some(root) = Root::new("what_is_half_made_is_destroyed_whole") else { return };
    // A crash left a file on which nothing is mounted.
    let path = root.networks.path("front-1");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "").unwrap();
    let found = root.networks.observe().unwrap();
    assert_eq!(found[0].differences(&spec("front-1")).len(), 1);
    assert!(matches!(root.networks.create(&spec("front-1")), Err(Error::Exists { .. })));
    root.networks.destroy("front-1").unwrap();
    assert!(!path.exists());
    // The other way round: a namespace without anything in it.
    let bare = Namespace::create().unwrap();
    std::fs::write(&path, "").unwrap();
    let source = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&bare))
    );
    rustix::mount::mount_bind(source, &path).unwrap();
    let found = root.networks.observe().unwrap();
    assert_eq!((found[0].cidr, found[0].label.clone()), (None, None));
    assert!(found[0].differences(&spec("front-1")).len() > 3);
    root.networks.destroy("front-1").unwrap();
    assert_eq!(root.mounts(), 0);
}

#[test]
fn a_copied_mount_does_not_keep_a_network() {
    let Some(root) = Root::new("a_copied_mount_does_not_keep_a_network") else { return };
    drop(root.network(&spec("front-1")));
    let directory = root.directory.path().to_str().unwrap().to_owned();
    let count = move || {
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(&directory)).count()
    };
    let (copied, wait) = std::sync::mpsc::channel();
    let (gone, destroyed) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: only this thread's mounts are copied; it opens no paths that others made.
        unsafe {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS).unwrap();
        }
        let root = rustix::mount::MountPropagationFlags::PRIVATE
            | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", root).unwrap();
        copied.send(count()).unwrap();
        destroyed.recv().unwrap();
        count()
    });
    assert_eq!(wait.recv().unwrap(), 1);
    root.networks.destroy("front-1").unwrap();
    gone.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), 0);
}

#[test]
fn a_detached_instance_is_cut_off() {
    let Some(root) = Root::new("a_detached_instance_is_cut_off") else { return };
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    let ports = || root.networks.observe().unwrap().remove(0).ports;
    assert_eq!(ports().len(), 1);
    assert_eq!(ports()[0].instance.as_deref(), Some("one-1"));
    assert_eq!(ports()[0].address, Some(ONE));
    // Nobody listens, so an answer comes at once.
    let there = SocketAddrV4::new(FIRST, 53);
    assert_eq!(refusal(&one, there, SOON).0, Some(ErrorKind::ConnectionRefused));
    detach(&network, &place("one-1", ONE)).unwrap();
    detach(&network, &place("one-1", ONE)).unwrap();
    assert!(unanswered(&one, there));
    assert_eq!(ports()[0].address, None);
    assert_eq!(root.networks.observe().unwrap()[0].differences(&spec("front-1")), []);
    // The port goes with the instance, and another one may have the address meanwhile.
    let next = instance(&network, "one-2", ONE);
    assert_eq!(refusal(&next, there, SOON).0, Some(ErrorKind::ConnectionRefused));
    drop(one);
    let deadline = Instant::now() + SOON;
    while ports().len() > 1 {
        assert!(Instant::now() < deadline, "the port is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(ports()[0].instance.as_deref(), Some("one-2"));
    assert_eq!(refusal(&next, there, SOON).0, Some(ErrorKind::ConnectionRefused));
    detach(&network, &place("one-1", ONE)).unwrap();
}

#[test]
fn a_failed_attach_leaves_nothing() {
    let Some(root) = Root::new("a_failed_attach_leaves_nothing") else { return };
    let network = root.network(&spec("front-1"));
    let one = instance(&network, "one-1", ONE);
    // There is an `eth0` already.
    let error = attach(&network, &one, &place("other-1", OTHER)).unwrap_err();
    assert!(matches!(error, Error::Kernel { .. }), "{error}");
    let found = root.networks.observe().unwrap().remove(0);
    assert_eq!(found.ports.len(), 1);
    assert_eq!(found.differences(&spec("front-1")), []);
    // A stable address is no instance's.
    let error = attach(&network, &one, &place("other-1", FIRST)).unwrap_err();
    assert!(matches!(error, Error::Address { .. }), "{error}");
}

#[test]
fn what_cannot_be_a_network_is_refused() {
    let Some(root) = Root::new("what_cannot_be_a_network_is_refused") else { return };
    let mut wrong = vec![spec("a/b"), spec(""), spec("front-1"), spec("front-1")];
    wrong[2].cidr = "10.60.0.0/30".parse().unwrap();
    wrong[3].cidr = "10.60.0.9/24".parse().unwrap();
    for spec in wrong {
        assert!(matches!(root.networks.create(&spec), Err(Error::Spec { .. })), "{spec:?}");
    }
    assert_eq!(root.mounts(), 0);
}

#[test]
fn making_and_attaching_are_quick() {
    let Some(root) = Root::new("making_and_attaching_are_quick") else { return };
    let mut times = [const { Vec::new() }; 5];
    for round in 0..20 {
        let spec = spec(&format!("front-{round}"));
        let start = Instant::now();
        let network = root.network(&spec);
        times[0].push(start.elapsed());
        for host in 0..5_u8 {
            let (name, address) = (format!("web-{host}"), [10, 60, 0, 200 + host].into());
            let namespace = Namespace::create().unwrap();
            let start = Instant::now();
            attach(&network, &namespace, &place(&name, address)).unwrap();
            times[1].push(start.elapsed());
            if host > 0 {
                let start = Instant::now();
                detach(&network, &place(&name, address)).unwrap();
                times[2].push(start.elapsed());
            }
        }
        let start = Instant::now();
        let _ = root.networks.observe().unwrap();
        times[3].push(start.elapsed());
        drop(network);
        let start = Instant::now();
        root.networks.destroy(&spec.id).unwrap();
        times[4].push(start.elapsed());
    }
    let least = *times[1].iter().min().unwrap();
    let [create, attach, detach, observe, destroy] = times.map(summary);
    println!(
        "least / median: create {create}, attach {attach}, detach {detach}, observe {observe}, \
         destroy {destroy}"
    );
    // Far more than it takes, also where the processor is emulated: whoever waits for something
    // that does not come waits for longer.
    assert!(least < Duration::from_millis(500), "{least:?}");
}
