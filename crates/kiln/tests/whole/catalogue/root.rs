//! What is done to the root: the store, the log in it, secrets, images' names, and the gateway's table.

use std::fs;
use std::path::PathBuf;

use kiln_gateway::Gateway;
use serde_json::Value;

use super::range::{Losses, Range, STACK};
use crate::site::{eventually, site_or_skip, told};

/// Where Debian's package `faketime` has its library.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

fn store(range: &Range, name: &str) -> PathBuf {
    range.site.root().join("store").join(name)
}

/// Runs SQL on the store as one who has broken in would.
fn sql(range: &Range, text: &str) {
    let connection = rusqlite::Connection::open(store(range, "store.db")).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection.execute_batch(text).unwrap();
}

/// All files of the store.
type Backup = Vec<(PathBuf, Vec<u8>)>;

/// What the store is, in one consistent moment, while the daemon serves on.
fn backup(range: &Range) -> Backup {
    let connection = rusqlite::Connection::open(store(range, "store.db")).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    let files = ["store.db", "head"].map(|name| store(range, name));
    files.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Puts it back while no daemon runs, and starts one.
fn restore(range: &Range, backup: &Backup) {
    range.site.signal("serve", rustix::process::Signal::KILL);
    for extra in ["store.db-wal", "store.db-shm"] {
        // There may be none.
        let _ = fs::remove_file(store(range, extra));
    }
    for (path, bytes) in backup {
        fs::write(path, bytes).unwrap();
    }
    eventually("health again", || is_told(range, "\"healthy\": true"));
}

/// Whether the status says so.
fn is_told(range: &Range, text: &str) -> bool {
    let output = range.site.run(&["status", "--json"]);
    String::from_utf8_lossy(&output.stdout).contains(text)
}

/// Whether the daemon's log has an alarm more than `before`.
fn alarms(range: &Range) -> usize {
    let log = fs::read_to_string(range.site.root().join("logs/daemon.log")).unwrap_or_default();
    log.matches("alarm: ").count()
}

/// Nothing is decided on a store that is not what was written.
fn is_refused(range: &Range) {
    let output = range.site.run(&["scale", "web=2", "--yes"]);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
}

/// The same, and whoever walks through the chain sees it as well.
fn is_refused_and_seen(range: &Range) {
    is_refused(range);
    let verified = range.site.run(&["events", "--verify"]);
    assert_eq!(verified.status.code(), Some(1), "{}", told(&verified));
}

#[test]
fn what_is_done_to_the_store_is_found_and_refused() {
    let site = site_or_skip!("what_is_done_to_the_store_is_found_and_refused");
    let mut range = Range::new(site);
    // Something to be lost: entries after a first copy.
    let early = backup(&range);
    range.site.must(&["scale", "web=3", "--yes"]);
    let late = backup(&range);
    let row = |range: &mut Range, name: &str, answer: fn(&Range), tamper: &dyn Fn(&Range)| {
        let before = std::cell::Cell::new(0);
        range.fact(
            name,
            |range| {
                before.set(alarms(range));
                tamper(range);
            },
            |range| alarms(range) > before.get(),
            answer,
        );
        restore(range, &late);
    };
    row(&mut range, "an entry of the log is rewritten", is_refused_and_seen, &|range| {
        sql(range, "update journal set at = at - 1000 where seq = 2");
    });
    row(&mut range, "the newest entries of the log are cut off", is_refused_and_seen, &|range| {
        sql(range, "delete from journal where seq > 2");
    });
    row(&mut range, "the log is deleted", is_refused_and_seen, &|range| {
        sql(range, "delete from journal");
    });
    row(&mut range, "a generation is rewritten", is_refused_and_seen, &|range| {
        let body = "cast(replace(cast(body as text), '32', '64') as blob)";
        sql(range, &format!("update generation set body = {body}"));
    });
    row(&mut range, "the store is rolled back", is_refused, &|_| {
        // A store that is an older one with all that belongs to it: who has seen the newer one knows.
        for (path, bytes) in &early {
            // Beside it and over it, as one who copies a directory would.
            let copy = path.with_extension("copy");
            fs::write(&copy, bytes).unwrap();
            fs::rename(&copy, path).unwrap();
        }
    });
    row(&mut range, "the store is deleted", is_refused_and_seen, &|range| {
        for name in ["store.db", "store.db-wal", "store.db-shm"] {
            let _ = fs::remove_file(store(range, name));
        }
    });
    row(&mut range, "the store's head is deleted", is_refused_and_seen, &|range| {
        fs::remove_file(store(range, "head")).unwrap();
    });
}

#[test]
fn a_secret_and_a_name_that_are_changed_on_the_disk_reach_nobody() {
    let site = site_or_skip!("a_secret_and_a_name_that_are_changed_on_the_disk_reach_nobody");
    let secret =
        "  env = { TOKEN = secret.token }\n  rollout = { deadline = \"2s\" }\n  memory   =";
    let other =
        "image \"other\" {\n  base = scratch()\n  copy \"kiln-probe\" { to = \"/other\" }\n}\n";
    let stack = STACK.replacen("  memory   =", secret, 1);
    let stack = format!("{stack}secret \"token\" {{ generate = 32 }}\n{other}");
    let mut range = Range::with(site, &stack);
    let digits: String = {
        let connection = rusqlite::Connection::open(store(&range, "store.db")).unwrap();
        connection.query_row("select hex(sealed) from secret", [], |row| row.get(0)).unwrap()
    };
    // Both are found when they are to be used: until then they concern nobody.
    let is_refused = |range: &Range, arguments: &[&str], because: &str| {
        let output = range.site.run(arguments);
        let said = told(&output);
        assert!(output.status.code() == Some(1) && said.contains(because), "{said}");
        true
    };
    range.fact(
        "a secret is changed on the disk",
        |range| sql(range, "update secret set sealed = zeroblob(length(sealed))"),
        |range| {
            range.site.write(&stack.replace("pids     = 64", "pids     = 65"));
            is_refused(range, &["apply", "--yes"], "does not open with this root's key")
        },
        |range| {
            range.site.write(&stack);
            sql(range, &format!("update secret set sealed = x'{digits}'"));
        },
    );
    let names: Backup = fs::read_dir(store(&range, "images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    assert_eq!(names.len(), 2);
    range.fact(
        "an image's name is swapped for another's",
        |_| {
            let record = |n: usize| -> Value { serde_json::from_slice(&names[n].1).unwrap() };
            for n in [0, 1] {
                let mut swapped = record(n);
                swapped["digest"] = record(1 - n)["digest"].clone();
                fs::write(&names[n].0, swapped.to_string()).unwrap();
            }
        },
        |range| is_refused(range, &["image", "build"], "another recipe"),
        |_| names.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap()),
    );
}

#[test]
fn a_clock_that_jumps_raises_no_alarm_and_blinds_nobody() {
    let site = site_or_skip!("a_clock_that_jumps_raises_no_alarm_and_blinds_nobody");
    if !std::path::Path::new(FAKETIME).exists() {
        println!("skipped: a_clock_that_jumps: needs faketime");
        return;
    }
    // The machine's own clock is everybody's: the daemon's alone jumps, as it sees it.
    let clock = site.stack().parent().unwrap().join("clock");
    fs::write(&clock, "+0").unwrap();
    let mut daemon = site.command(&["serve"]);
    daemon.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", &clock);
    daemon.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut daemon = daemon.spawn().unwrap();
    let mut range = Range::new(site);
    let jump = |to: &str| {
        let new = clock.with_extension("new");
        fs::write(&new, to).unwrap();
        fs::rename(new, &clock).unwrap();
    };
    for (name, to) in [("a day ahead", "+86400"), ("two days back", "-86400"), ("home", "+0")] {
        range.harmless(&format!("the clock jumps {name}"), |_, _| jump(to));
        range.row(
            &format!("a bound is raised, the clock {name}"),
            Losses::None,
            |range, victim| {
                fs::write(range.group_file(victim, &["pids.max"]), "max").unwrap();
            },
        );
        let seen = range.site.status()["measured_at"].as_str().unwrap().to_owned();
        println!("by the daemon's clock it is {seen}");
    }
    range.site.signal("serve", rustix::process::Signal::TERM);
    daemon.wait().unwrap();
}

#[test]
fn a_table_that_is_set_behind_kilns_back_is_routed_again() {
    let site = site_or_skip!("a_table_that_is_set_behind_kilns_back_is_routed_again");
    let mut range = Range::new(site);
    let gateway = Gateway::of(&range.site.root());
    let set = std::cell::Cell::new(0);
    let epoch = || gateway.status().unwrap().tables[0].epoch;
    range.fact(
        "the gateway's table loses all but one instance",
        |_| {
            let mut table = gateway.status().unwrap().tables.remove(0);
            table.epoch += 1;
            table.endpoints[0].backends.truncate(1);
            set.set(table.epoch);
            gateway.set_table(table).unwrap();
        },
        |_| epoch() > set.get(),
        |range| {
            let table = gateway.status().unwrap().tables.remove(0);
            assert_eq!(table.endpoints[0].backends.len(), 3);
            eventually("it is told of", || is_told(range, "epoch"));
        },
    );
}
