//! Another build of Kiln takes over daemon and gateway, again and again, with traffic running.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_gateway::{Gateway, build_of};
use rustix::process::Signal;

use crate::load::Load;
use crate::replace::SHOP;
use crate::site::{eventually, site_or_skip};

/// How often both are replaced.
const UPGRADES: usize = 20;

/// How long the slow answer takes that is begun before an upgrade and ends after it.
const SLOW: Duration = Duration::from_secs(2);

#[test]
fn twenty_upgrades_of_daemon_and_gateway_fail_no_request() {
    let site = site_or_skip!("twenty_upgrades_of_daemon_and_gateway_fail_no_request");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let ids = site.instances("web", "id");
    let gateway = Gateway::of(&site.root());
    let load = Load::start(site.address(), 6);
    let mut pids = vec![gateway.status().unwrap().pid];
    for upgrade in 0..UPGRADES {
        let mut slow = TcpStream::connect(site.address()).unwrap();
        slow.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let begun = Instant::now();
        let path = format!("/slow?ms={}", SLOW.as_millis());
        write!(slow, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").unwrap();
        let program = site.stack().join(format!("kiln-{upgrade}"));
        fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
        // What stands behind the last section of an ELF file is not loaded.
        let mut file = fs::OpenOptions::new().append(true).open(&program).unwrap();
        file.write_all(&vec![0; upgrade + 1]).unwrap();
        drop(file);
        let wanted = build_of(&program).unwrap();
        site.signal("serve", Signal::TERM);
        // A verb of the new build starts its daemon, and that its gateway.
        let status = Command::new(&program)
            .arg("--root")
            .arg(site.root())
            .arg("--stack")
            .arg(site.stack())
            .arg("status")
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        eventually("the new gateway answers", || {
            gateway.status().is_ok_and(|status| status.build == wanted)
        });
        pids.push(gateway.status().unwrap().pid);
        let mut answer = String::new();
        slow.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        assert!(begun.elapsed() >= SLOW, "it was not under way");
        if upgrade > 0 {
            fs::remove_file(site.stack().join(format!("kiln-{}", upgrade - 1))).unwrap();
        }
    }
    load.stop();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), UPGRADES + 1, "each was a process of its own");
    assert_eq!(site.instances("web", "id"), ids, "instances are untouched");
    // Those before have nothing left and are gone.
    eventually("one gateway", || site.processes("gateway").len() == 1);
}
