//! What has drifted is frozen and saved where the policy says so, and whoever is named hears of it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::catalogue::range::{Losses, Range, STACK};
use crate::hook::Hook;
use crate::secrets::files_with;
use crate::site::{eventually, site_or_skip};

const VALUE: &str = "correct-horse-battery-staple";

/// Web servers of which evidence is kept, in a stack that tells of alarms.
fn stack(hook: &Hook, told: &Path) -> String {
    let alarm = format!(
        "stack {{\n  alarm = {{\n    webhook = \"{}\"\n    command = [\"/bin/sh\", \"-c\", \
         \"cat >> {}\"]\n    user = \"root\"\n  }}\n}}\n",
        hook.url(),
        told.display()
    );
    let policy =
        "quarantine = true\n  env = { TOKEN = \"x-${secret.token}\", PLAIN = \"shown\" }\n";
    let stack = STACK.replace("  memory   =", &format!("  {policy}  memory   ="));
    format!("{alarm}{stack}\nsecret \"token\" {{ value = \"{VALUE}\" }}\n")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Whether nobody but root may look at anything in a bundle.
fn is_roots_own(path: &Path) -> bool {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
    if !path.is_dir() {
        return mode == 0o600;
    }
    let mut entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    mode == 0o700 && entries.all(|path| is_roots_own(&path))
}

#[test]
fn what_has_drifted_is_saved_before_it_is_gone_and_told_of() {
    let site = site_or_skip!("what_has_drifted_is_saved_before_it_is_gone_and_told_of");
    let hook = Hook::start();
    let told = site.stack().join("alarms");
    let mut range = Range::with(site, &stack(&hook, &told));
    let mut victims = Vec::new();
    range.row("a bound is removed, and evidence kept", Losses::None, |range, victim| {
        // Whoever answers writes, and it is the victim soon.
        let dropped = format!("/proc/{}/root/tmp/dropped", victim.pid);
        eventually("the victim has written", || {
            range.site.get("/write?path=/tmp/dropped&bytes=5").0 == 200
                && Path::new(&dropped).exists()
        });
        fs::write(range.group_file(victim, &["pids.max"]), "max").unwrap();
        victims.push((victim.id.clone(), victim.pid));
    });
    let site = &range.site;
    let (id, pid) = &victims[0];
    let bundle = site.root().join("incidents").join(id);
    eventually("the evidence is there", || bundle.exists());
    let incident = json(&bundle.join("incident.json"));
    assert_eq!(incident["frozen"], true, "{incident}");
    assert_eq!(incident["drift"][0]["what"], "cgroup.pids", "{incident}");
    assert_eq!(incident["omitted"], serde_json::json!([]), "{incident}");
    assert!(is_roots_own(&site.root().join("incidents")));
    let processes = json(&bundle.join("processes.json"));
    let main = processes.as_array().unwrap().iter().find(|process| process["pid"] == *pid).unwrap();
    assert_eq!(main["command"][1], "serve", "{main}");
    assert_eq!(main["executable"], "/kiln-probe");
    assert_eq!(main["executable_sha256"].as_str().unwrap().len(), 64);
    let environment = main["environment"].as_array().unwrap();
    assert!(environment.contains(&"TOKEN=x-(secret)".into()), "{main}");
    assert!(environment.contains(&"PLAIN=shown".into()), "{main}");
    assert!(!main["open_files"].as_array().unwrap().is_empty());
    let maps = fs::read_to_string(bundle.join(format!("maps/{pid}"))).unwrap();
    assert!(maps.contains("/kiln-probe"), "{maps}");
    assert!(fs::read_to_string(bundle.join("mounts")).unwrap().contains(" /tmp "));
    // Port 8080, listening.
    let sockets = fs::read_to_string(bundle.join("sockets/tcp")).unwrap();
    let sockets6 = fs::read_to_string(bundle.join("sockets/tcp6")).unwrap();
    assert!((sockets.clone() + &sockets6).contains(":1F90 "), "{sockets}{sockets6}");
    let group = fs::read_dir(bundle.join("cgroup")).unwrap().map(|entry| entry.unwrap().path());
    let bounds: Vec<_> = group.map(|hierarchy| hierarchy.join("pids.max")).collect();
    let bound = bounds.iter().find(|path| path.exists()).unwrap();
    assert_eq!(fs::read_to_string(bound).unwrap(), "max\n");
    assert!(bundle.join("log").exists());
    let archive = fs::read(bundle.join("writable.tar")).unwrap();
    let mut archive = tar::Archive::new(&*archive);
    let mut tool = archive.entries().unwrap().map(Result::unwrap);
    let mut tool = tool.find(|entry| entry.path().unwrap() == Path::new("tmp/dropped")).unwrap();
    let mut content = String::new();
    tool.read_to_string(&mut content).unwrap();
    assert_eq!(content, "\0\0\0\0\0");
    assert_eq!(files_with(&bundle, VALUE), Vec::<String>::new(), "files that hold the secret");
    listed(&range, id, &bundle);
    alarmed(&range, id, &hook, &told);
}

/// Both verbs tell of it.
fn listed(range: &Range, id: &str, bundle: &Path) {
    let site = &range.site;
    let all: Value = serde_json::from_str(&site.must(&["incidents", "--json"])).unwrap();
    let found = all["incidents"].as_array().unwrap().iter().find(|it| it["id"] == *id).unwrap();
    assert_eq!(found["component"], "server.web");
    assert_eq!(found["bundle"], bundle.display().to_string());
    assert_eq!(found["differences"][0]["what"], "cgroup.pids");
    let shown = site.must(&["incidents", "show", id]);
    assert!(shown.contains("writable.tar") && shown.contains("cgroup.pids"), "{shown}");
    assert!(site.must(&["incidents"]).contains(id));
    let unknown = site.run(&["incidents", "show", "web-0"]);
    assert_eq!(unknown.status.code(), Some(1));
}

/// Whoever is named was told, and so is who looks.
fn alarmed(range: &Range, id: &str, hook: &Hook, told: &Path) {
    let site = &range.site;
    eventually("the webhook is told", || hook.has("drift"));
    let alarm = hook.received().into_iter().find(|alarm| alarm["cause"] == "drift").unwrap();
    assert_eq!(alarm["component"], "server.web", "{alarm}");
    assert!(alarm["what"].as_str().unwrap().starts_with(id), "{alarm}");
    eventually("the command is told", || {
        fs::read_to_string(told).is_ok_and(|text| text.contains("\"cause\":\"drift\""))
    });
    let status = site.status();
    assert_eq!(status["alarms"][0]["cause"], "drift", "{status}");
    let events = site.must(&["events"]);
    assert!(events.contains("drifted") && events.contains("alarmed"), "{events}");
}

#[test]
fn a_rollout_that_is_given_up_and_a_tampered_store_are_told_of() {
    let site = site_or_skip!("a_rollout_that_is_given_up_and_a_tampered_store_are_told_of");
    let hook = Hook::start();
    let told = site.stack().join("alarms");
    let sound = stack(&hook, &told);
    let range = Range::with(site, &sound);
    let bad = sound.replace("path = \"/healthz\"", "path = \"/nowhere\"").replace(
        "  memory   =",
        "  rollout = { deadline = \"2s\" }\n  args = [\"--body\", \"2\"]\n  memory   =",
    );
    range.site.write(&bad);
    assert_eq!(range.site.run(&["apply", "--yes"]).status.code(), Some(1));
    eventually("the webhook is told of the rollout", || hook.has("abandoned"));
    let store = range.site.root().join("store/store.db");
    let connection = rusqlite::Connection::open(store).unwrap();
    let earlier = |by: i64| format!("update journal set at = at + {by} where seq = 2");
    connection.execute_batch(&earlier(-1000)).unwrap();
    eventually("the webhook is told of the store", || hook.has("tampered"));
    connection.execute_batch(&earlier(1000)).unwrap();
    eventually("it is sound again", || range.site.run(&["status"]).status.success());
}
