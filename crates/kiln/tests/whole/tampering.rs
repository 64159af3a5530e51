//! Tampering with the store: it is found and told, nothing is decided on it, and what runs serves on.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::load::Load;
use crate::replace::SHOP;
use crate::site::{Site, eventually, send, site_or_skip, told};

/// Runs SQL on the store as one who has broken in would.
fn sql(site: &Site, sql: &str) {
    let connection = rusqlite::Connection::open(site.root().join("store/store.db")).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// `events --verify --json`, and whether it succeeded.
fn verify(site: &Site) -> (bool, Value) {
    let output = site.run(&["events", "--verify", "--json"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let document = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", told(&output)));
    (output.status.success(), document)
}

fn refused(site: &Site, arguments: &[&str], because: &str) {
    let output = site.run(arguments);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains(because), "{arguments:?}: {said}");
    assert!(said.contains("backup"), "the way out: {said}");
}

#[test]
fn a_store_that_was_tampered_with_is_told_and_not_acted_on_while_instances_serve_and_heal() {
    let site = site_or_skip!("a_store_that_was_tampered_with_is_told");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let events = site.must(&["events"]);
    let uid = rustix::process::geteuid().as_raw();
    assert!(events.contains(&format!("by uid {uid} (pid ")), "{events}");
    let (sound, document) = verify(&site);
    assert!(sound, "{document}");
    let load = Load::start(site.address(), 4);
    sql(&site, "update journal set at = at - 1000 where seq = 2");
    let (sound, document) = verify(&site);
    assert!(!sound);
    assert_eq!(document["problems"][0]["kind"], "altered", "{document}");
    assert_eq!(document["problems"][0]["from"], 2, "{document}");
    eventually("the trouble in the status", || {
        let status = site.status();
        let trouble = status["trouble"].as_str().unwrap_or_default().to_owned();
        trouble.contains("entry 2 of the journal") && status["healthy"] == false
    });
    refused(&site, &["apply", "--yes", "--var", "release=v2"], "entry 2 of the journal");
    refused(&site, &["scale", "--yes", "server.web=4"], "entry 2 of the journal");
    load.stop();
    // What it had verified before is held on: an instance that dies is replaced.
    let ids = site.instances("web", "id");
    let first = &site.instances("web", "pid")[0];
    send(first.parse().unwrap(), rustix::process::Signal::KILL);
    eventually("an instance in its place", || {
        let now = site.instances("web", "id");
        let ready = site.instances("web", "state").iter().filter(|s| *s == "ready").count();
        now != ids && now.len() == 3 && ready == 3
    });
    let load = Load::start(site.address(), 4);
    // A daemon that begins has verified nothing, so it keeps nothing; traffic goes on.
    site.signal("serve", rustix::process::Signal::KILL);
    refused(&site, &["status"], "entry 2 of the journal");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    site.must(&["events", "--accept", "a drill", "--yes"]);
    eventually("health again", || site.status()["healthy"] == true);
    site.must(&["apply", "--yes", "--var", "release=v2"]);
    let (sound, document) = verify(&site);
    assert!(sound, "{document}");
    let all = site.must(&["events", "--all", "--json"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    let accepted = all["events"].as_array().unwrap().iter().find(|e| e["type"] == "accepted");
    let accepted = accepted.unwrap_or_else(|| panic!("{all}"));
    assert_eq!((&accepted["because"], &accepted["by"]["uid"]), (&"a drill".into(), &uid.into()));
    load.stop();
}

#[test]
fn what_is_deleted_or_replaced_of_the_store_is_refused_and_serves_on() {
    let site = site_or_skip!("what_is_deleted_or_replaced_of_the_store_is_refused");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let store = |name: &str| site.root().join("store").join(name);
    site.signal("serve", rustix::process::Signal::TERM);
    // So that one file holds all.
    let connection = rusqlite::Connection::open(store("store.db")).unwrap();
    connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    drop(connection);
    let backup: Vec<(PathBuf, Vec<u8>)> = ["store.db", "head", "key"]
        .into_iter()
        .map(|name| (store(name), fs::read(store(name)).unwrap()))
        .collect();
    for (name, because) in [("store.db", "database"), ("head", "head"), ("key", "key")] {
        for gone in [true, false] {
            if gone {
                fs::remove_file(store(name)).unwrap();
            } else {
                fs::write(store(name), [7; 32]).unwrap();
            }
            let output = site.run(&["apply", "--yes", "--var", "release=v2"]);
            let said = told(&output);
            assert_eq!(output.status.code(), Some(1), "{name} {gone}: {said}");
            assert!(said.contains(because), "{name} {gone}: {said}");
            assert_eq!(site.get("/"), (200, "v1".to_owned()), "{name} {gone}");
            site.signal("serve", rustix::process::Signal::TERM);
            for extra in ["store.db-wal", "store.db-shm"] {
                let _ = fs::remove_file(store(extra));
            }
            for (path, bytes) in &backup {
                fs::write(path, bytes).unwrap();
            }
        }
    }
    assert_eq!(site.status()["healthy"], true, "put back, all is well");
    let edit = "update generation set body =
                    cast(replace(cast(body as text), 'v1', 'v9') as blob)";
    sql(&site, edit);
    refused(&site, &["apply", "--yes", "--var", "release=v2"], "generation 1");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    // Put back, so that what runs can be retired.
    sql(&site, &edit.replace("'v1', 'v9'", "'v9', 'v1'"));
    eventually("health again", || {
        let output = site.run(&["status", "--json"]);
        String::from_utf8_lossy(&output.stdout).contains("\"healthy\": true")
    });
}

#[test]
fn a_secret_or_an_image_that_was_swapped_is_refused_and_the_old_serves_on() {
    let site = site_or_skip!("a_secret_or_an_image_that_was_swapped_is_refused");
    let stack = SHOP
        .replace(
            "env      = { API = server.api.address }",
            "env = { TOKEN = secret.token, RELEASE = var.release }",
        )
        .replace("  health ", "  rollout = { deadline = \"8s\" }\n  health ");
    let stack = format!("{stack}\nsecret \"token\" {{ generate = 32 }}\n");
    site.write(&stack);
    site.must(&["apply", "--yes"]);
    sql(&site, "update secret set sealed = zeroblob(length(sealed))");
    let output = site.run(&["apply", "--yes", "--var", "release=v2"]);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not open with this root's key"), "{said}");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    assert_eq!(site.status()["generation"], 1);
    // The index of images leads from each recipe to what the other one makes.
    let index = site.root().join("store/images");
    let records: Vec<(PathBuf, Value)> = fs::read_dir(&index)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| (path.clone(), serde_json::from_slice(&fs::read(path).unwrap()).unwrap()))
        .collect();
    assert_eq!(records.len(), 2, "of both releases");
    for (index, (path, record)) in records.iter().enumerate() {
        let mut swapped = record.clone();
        swapped["digest"] = records[1 - index].1["digest"].clone();
        fs::write(path, swapped.to_string()).unwrap();
    }
    let output = site.run(&["image", "build", "--var", "release=v2"]);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another recipe") && said.contains("built anew"), "{said}");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
}
