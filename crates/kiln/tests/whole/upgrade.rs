//! Another build of Kiln takes over daemon and gateway, again and again, with traffic of every kind
//! running and questions being asked.
//!
//! `bench/run upgrades` does it with optimised programs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_gateway::{Gateway, build_of};
use kiln_load::{Aim, Kind};
use rustix::process::Signal;

use crate::load::none_failed;
use crate::replacements::{self, every_kind};
use crate::site::{Site, eventually, free_port, site_or_skip, told};

/// How often both are replaced.
const UPGRADES: usize = 20;

/// How long the slow answer takes that is begun before an upgrade and ends after it.
const SLOW: Duration = Duration::from_secs(2);

#[test]
fn twenty_upgrades_of_daemon_and_gateway_fail_no_request() {
    let site = site_or_skip!("twenty_upgrades_of_daemon_and_gateway_fail_no_request");
    let raw = free_port();
    site.write(&replacements::stack("{}", raw));
    site.must(&["apply", "--yes"]);
    let ids = site.instances("web", "id");
    let gateway = Gateway::of(&site.root());
    let load = every_kind(Aim { http: site.address(), tcp: Some(([127, 0, 0, 1], raw).into()) });
    let mut pids = vec![gateway.status().unwrap().pid];
    for number in 0..UPGRADES {
        let (mut slow, begun) = (ask_slowly(&site), Instant::now());
        let program = another_build(&site, number);
        let wanted = build_of(&program).unwrap();
        site.signal("serve", Signal::TERM);
        // A verb of the new build starts its daemon, and that its gateway.
        let status = status_by(&program, &site);
        assert!(status.status.success(), "{}", told(&status));
        eventually("the new gateway answers", || {
            gateway.status().is_ok_and(|status| status.build == wanted)
        });
        pids.push(gateway.status().unwrap().pid);
        let mut answer = String::new();
        slow.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        assert!(begun.elapsed() >= SLOW, "it was not under way");
        if number > 0 {
            fs::remove_file(site.stack().join(format!("kiln-{}", number - 1))).unwrap();
        }
    }
    let tally = load.end();
    for kind in Kind::ALL {
        println!("{}: {} answered", kind.name(), tally.count(0, kind));
        assert!(tally.count(0, kind) > 0, "{kind:?}");
    }
    println!("{UPGRADES} upgrades; {} connections ended by their protocol", tally.reopened);
    none_failed(&tally);
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), UPGRADES + 1, "each was a process of its own");
    assert_eq!(site.instances("web", "id"), ids, "instances are untouched");
    // Those before have nothing left and are gone.
    eventually("one gateway", || site.processes("gateway").len() == 1);
}

/// A request whose answer takes longer than the upgrade.
fn ask_slowly(site: &Site) -> TcpStream {
    let mut slow = TcpStream::connect(site.address()).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let path = format!("/slow?ms={}", SLOW.as_millis());
    write!(slow, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").unwrap();
    slow
}

/// This program as another build.
fn another_build(site: &Site, number: usize) -> std::path::PathBuf {
    let program = site.stack().join(format!("kiln-{number}"));
    fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
    // What stands behind the last section of an ELF file is not loaded.
    let mut file = fs::OpenOptions::new().append(true).open(&program).unwrap();
    file.write_all(&vec![0; number + 1]).unwrap();
    program
}

fn status_by(program: &Path, site: &Site) -> Output {
    let mut command = Command::new(program);
    command.arg("--root").arg(site.root()).arg("--stack").arg(site.stack());
    command.arg("status").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_question_is_answered_whenever_the_daemon_ends() {
    let site = site_or_skip!("a_question_is_answered_whenever_the_daemon_ends");
    site.write(&replacements::stack("{}", free_port()));
    site.must(&["apply", "--yes"]);
    let over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !over.load(Ordering::Relaxed) {
                        site.must(&["status", "--json"]);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for number in 0..20 {
            // At all moments of a start, and after it.
            std::thread::sleep(Duration::from_millis(20 + number * 83 % 400));
            site.signal("serve", if number % 2 == 0 { Signal::TERM } else { Signal::KILL });
        }
        over.store(true, Ordering::Relaxed);
        askers.into_iter().map(|asker| asker.join().unwrap()).sum::<usize>()
    });
    println!("{asked} questions answered over 20 ends of the daemon");
    assert!(asked >= 3, "{asked}");
}
