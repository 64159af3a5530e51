//! What is done to the root: the store, the log in it, secrets, images' names, and the gateway's table.

use std::fs;
use std::path::PathBuf;

use kiln_gateway::Gateway;

use super::range::Range;
use crate::site::{eventually, site_or_skip, told};

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
        sql(range, "delete from journal")
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
