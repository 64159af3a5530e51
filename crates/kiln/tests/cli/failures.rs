//! What bad input gets: the thing, the cause, the way out, and the right exit status.

use std::fs;

use crate::environment::{STACK, World};

#[test]
fn errors_of_the_configuration_point_at_the_line() {
    let world = World::with(&STACK.replace("replicas = 2", "replicaz = 2"));
    for verb in ["validate", "plan", "apply"] {
        let ran = world.kiln(&[verb]);
        assert_eq!(ran.status, 2, "{ran:?}");
        assert!(ran.stderr.contains("main.kiln.hcl:"), "{}", ran.stderr);
        assert!(ran.stderr.contains("did you mean `replicas`?"), "{}", ran.stderr);
        assert!(ran.stdout.is_empty());
    }
    assert!(!world.has_root(), "nothing was touched");
    let failure = world.kiln(&["plan", "--json"]).json();
    let message = &failure["error"]["diagnostics"][0];
    assert_eq!(message["severity"], "error");
    assert!(message["line"].as_u64().unwrap() > 1);
}

#[test]
fn a_range_that_is_too_small_for_the_surge() {
    let small = STACK.replace("10.60.0.0/24", "10.60.0.0/28");
    let world = World::with(&small.replace("replicas = 2", "replicas = 7"));
    for verb in ["validate", "plan"] {
        let ran = world.kiln(&[verb]);
        assert_eq!(ran.status, 2, "{ran:?}");
        assert!(ran.stderr.contains("network.front has room for 7 instances"), "{}", ran.stderr);
        assert!(ran.stderr.contains("give it a wider `cidr`"), "{}", ran.stderr);
    }
}

#[test]
fn unknown_verbs_and_options_are_wrong_use() {
    let world = World::new();
    assert_eq!(world.kiln(&["frobnicate"]).status, 2);
    assert_eq!(world.kiln(&["plan", "--frobnicate"]).status, 2);
    assert_eq!(world.kiln(&["scale", "web=-1"]).status, 2);
}

#[test]
fn no_stack_here() {
    let world = World::new();
    let ran = world.kiln(&["plan"]);
    assert_eq!(ran.status, 2, "{ran:?}");
    let gone = world.kiln(&["plan", "--stack", "no/such/directory"]);
    assert_eq!(gone.status, 2, "{gone:?}");
    assert!(gone.stderr.contains("no/such/directory"));
}

#[test]
fn nothing_was_ever_applied() {
    let world = World::with(STACK);
    for args in [
        &["status"][..],
        &["history"],
        &["show"],
        &["diff", "1", "2"],
        &["rollback"],
        &["resume"],
        &["scale", "web=2"],
        &["drift"],
        &["logs", "web"],
        &["events"],
        &["top"],
        &["destroy"],
    ] {
        let ran = world.kiln(args);
        assert_eq!(ran.status, 1, "{args:?}: {ran:?}");
        assert!(
            ran.stderr.contains("error: nothing has been applied in WORLD/root yet"),
            "{ran:?}"
        );
        assert!(ran.stderr.contains("help: `kiln apply`"), "{ran:?}");
    }
    assert!(!world.has_root());
}

#[test]
fn a_damaged_lock_is_named() {
    let world = World::with(STACK);
    world.write("kiln.lock", "{");
    let ran = world.kiln(&["plan"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("kiln.lock is damaged"), "{}", ran.stderr);
    assert!(ran.stderr.contains("caused by:"), "{}", ran.stderr);
}

#[test]
fn a_root_whose_path_is_too_long_for_sockets() {
    if !is_root() {
        println!("skipped: a_root_whose_path_is_too_long_for_sockets: not root");
        return;
    }
    let world = World::with(STACK);
    let long = world.path(&"x".repeat(100));
    let ran = world.kiln(&["image", "lock", "--root", long.to_str().unwrap()]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("choose a shorter path with --root DIR"), "{}", ran.stderr);
    assert!(!long.exists());
}

#[test]
fn a_store_of_another_version_is_refused() {
    if !is_root() {
        println!("skipped: a_store_of_another_version_is_refused: not root");
        return;
    }
    let world = World::with(STACK);
    let store = world.path("root/store");
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("store.db"), "this is no database, whatever it is called\n").unwrap();
    fs::write(store.join("key"), [7; 32]).unwrap();
    let ran = world.kiln(&["plan"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("error: the store's database cannot"), "{}", ran.stderr);
}

#[test]
fn who_cannot_be_asked_is_refused() {
    if !is_root() {
        println!("skipped: who_cannot_be_asked_is_refused: not root");
        return;
    }
    let world = World::with(STACK);
    let ran = world.kiln(&["apply"]);
    assert_eq!(ran.status, 2, "{ran:?}");
    assert!(ran.stderr.contains("say --yes"), "{}", ran.stderr);
    assert!(!world.path("root/run/kiln.sock").exists(), "no daemon was started");
    let history = world.kiln(&["history"]);
    assert_eq!(history.status, 1, "no generation was made: {history:?}");
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
