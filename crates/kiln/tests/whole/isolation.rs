//! What an instance is from inside: its own namespaces, a sealed root, and a short reach.

use std::collections::BTreeSet;
use std::fs;

use crate::replace::SHOP;
use crate::site::Site;

/// The namespaces that an instance has for itself.
const NAMESPACES: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];

fn shop() -> Result<Site, String> {
    let site = Site::new()?;
    let stack = SHOP.replace(
        "  connects = [server.api]",
        "  connects = [server.api]\n  writable = { \"/tmp\" = \"1MiB\" }",
    );
    site.write(&stack);
    site.must(&["apply", "--yes"]);
    Ok(site)
}

macro_rules! shop_or_skip {
    ($name:literal) => {
        match shop() {
            Ok(site) => site,
            Err(reason) => {
                println!("skipped: {}: {reason}", $name);
                return;
            }
        }
    };
}

#[test]
fn each_instance_has_namespaces_of_its_own_on_a_sealed_root() {
    let site = shop_or_skip!("each_instance_has_namespaces_of_its_own");
    let mut pids = site.instances("web", "pid");
    pids.extend(site.instances("api", "pid"));
    for namespace in NAMESPACES {
        let mut seen = BTreeSet::new();
        seen.insert(fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap());
        for pid in &pids {
            let own = fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
            assert!(seen.insert(own), "{namespace} of {pid} is shared");
        }
    }
    for pid in &pids {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let root = mounts.lines().find(|l| l.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.contains(" ro") && root.contains(" - erofs "), "{root}");
    }
    let (_, status) = site.get("/status");
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    assert!(status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn nothing_can_be_written_outside_declared_space() {
    let site = shop_or_skip!("nothing_can_be_written_outside_declared_space");
    for path in ["/x", "/etc/x", "/release", "/kiln-probe", "/proc/sys/kernel/hostname", "/dev/x"] {
        let (_, answer) = site.get(&format!("/write?path={path}"));
        assert_ne!(answer.trim(), "ok", "{path} can be written");
    }
    assert_eq!(site.get("/write?path=/tmp/x&bytes=1000").1.trim(), "ok");
    let (_, full) = site.get("/write?path=/tmp/y&bytes=2000000");
    assert_eq!(full.trim(), "ENOSPC", "declared space has its size");
}

#[test]
fn it_reaches_what_it_connects_to_and_nothing_else() {
    let site = shop_or_skip!("it_reaches_what_it_connects_to_and_nothing_else");
    let api = site.component("server", "api")["address"].as_str().unwrap().to_owned();
    assert_eq!(site.get(&format!("/get?url=http://{api}:8080/")).1.trim(), "api v1");
    for name in ["api", "api.server.kiln", "API"] {
        assert_eq!(site.get(&format!("/resolve?name={name}")).1.trim(), api, "{name}");
    }
    for name in ["web", "debian.org", "api.back.kiln"] {
        let (_, answer) = site.get(&format!("/resolve?name={name}"));
        assert!(answer.trim().parse::<std::net::Ipv4Addr>().is_err(), "{name}: {answer}");
    }
    let mut closed: Vec<String> = site.instances("web", "address");
    closed.extend(site.instances("api", "address"));
    closed.push(site.component("server", "web")["address"].as_str().unwrap().to_owned());
    closed.push("10.60.8.1".to_owned());
    closed.push("192.0.2.1".to_owned());
    let own = site.get("/get?url=http://127.0.0.1:8080/").1;
    assert_eq!(own.trim(), "v1", "it reaches itself");
    for address in closed {
        // Asked several times: each instance answers for itself, and itself it reaches.
        let refused =
            (0..12).any(|_| site.get(&format!("/connect?addr={address}:8080")).1.trim() != "open");
        assert!(refused, "{address} is open");
    }
}

#[test]
fn dangerous_system_calls_are_refused() {
    let site = shop_or_skip!("dangerous_system_calls_are_refused");
    assert_eq!(site.get("/syscall?name=getpid").1.trim(), "ok");
    for name in ["mount", "unshare", "unshare_user", "setns", "ptrace", "keyctl", "bpf", "reboot"] {
        let (_, answer) = site.get(&format!("/syscall?name={name}"));
        assert!(["EPERM", "ENOSYS", "EACCES"].contains(&answer.trim()), "{name}: {answer}");
    }
}

#[test]
fn too_much_memory_ends_an_instance_and_it_is_replaced() {
    let site = shop_or_skip!("too_much_memory_ends_an_instance");
    let ids = site.instances("web", "id");
    // The answer may never come: the instance that was asked ends.
    let _ = crate::site::get(site.address(), "/eat?mb=200");
    crate::site::eventually("an instance in its place", || {
        let now = site.instances("web", "id");
        now.len() == 3 && now != ids && site.instances("web", "state").iter().all(|s| s == "ready")
    });
    let events = site.must(&["events"]);
    assert!(events.contains("memory"), "{events}");
}
