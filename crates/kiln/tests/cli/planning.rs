//! `plan` of a stack that was never applied: without a daemon, a root, or a lock.

use crate::environment::{STACK, World};

#[test]
fn a_plan_is_a_document_of_known_form() {
    let world = World::with(STACK);
    let ran = world.kiln(&["plan", "--json"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let plan = ran.json();
    assert_eq!(plan["generation"], 1);
    assert!(plan["parent"].is_null());
    assert_eq!(plan["outputs"]["address"]["value"], "127.0.0.1:8080");
    let changes = plan["changes"].as_array().unwrap();
    let named: Vec<String> = changes
        .iter()
        .map(|c| format!("{}.{}", c["kind"].as_str().unwrap(), c["name"].as_str().unwrap()))
        .collect();
    assert_eq!(named, ["image.web", "network.front", "server.web", "endpoint.shop"]);
    for change in changes {
        assert_eq!(change["action"], "create");
        assert!(change["from"].is_null());
        assert!(change["to"].as_str().unwrap().starts_with("sha256:"), "{change}");
    }
    assert!(!world.has_root());
}

#[test]
fn differences_have_a_status_of_their_own() {
    let world = World::with(STACK);
    assert_eq!(world.kiln(&["plan"]).status, 0);
    assert_eq!(world.kiln(&["plan", "--detailed-exitcode"]).status, 3);
}

#[test]
fn variables_come_from_options_files_and_the_environment() {
    let world = World::with(STACK);
    let digest = |ran: &crate::environment::Ran| ran.json()["changes"][0]["to"].clone();
    let default = digest(&world.kiln(&["plan", "--json"]));
    let option = digest(&world.kiln(&["plan", "--json", "--var", "release=v2"]));
    assert_ne!(default, option);
    let env = [("KILN_VAR_release", "v2")];
    assert_eq!(digest(&world.kiln_with(&["plan", "--json"], &env)), option);
    let empty = [("KILN_VAR_release", "")];
    assert_eq!(digest(&world.kiln_with(&["plan", "--json"], &empty)), default);
    world.write("more.kilnvars", "release = \"v2\"\n");
    let file = world.kiln(&["plan", "--json", "--var-file", "more.kilnvars"]);
    assert_eq!(digest(&file), option);
}

#[test]
fn what_is_not_locked_is_null_with_the_reason() {
    let debian = STACK.replace("scratch()", "debian(\"bookworm\")");
    let world = World::with(&debian);
    let plan = world.kiln(&["plan", "--json"]).json();
    assert!(plan["changes"][0]["to"].is_null());
    assert_eq!(plan["changes"][0]["unknown"], "image.web is not locked yet");
    assert!(!world.path("stack/kiln.lock").exists(), "a plan writes nothing");
}

#[test]
fn secrets_are_not_shown() {
    let text = format!(
        "{STACK}\nsecret \"key\" {{ value = \"hush-hush\" }}\n\
         server \"api\" {{\n  image = image.web\n  network = network.front\n  env = {{ KEY = \
         secret.key }}\n}}\n"
    );
    let world = World::with(&text);
    for args in [&["plan"][..], &["plan", "--json"], &["validate", "--json"]] {
        let ran = world.kiln(args);
        assert_eq!(ran.status, 0, "{ran:?}");
        assert!(!ran.stdout.contains("hush-hush") && !ran.stderr.contains("hush-hush"), "{ran:?}");
    }
}
