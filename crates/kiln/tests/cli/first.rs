//! A new stack, and what needs none.

use crate::environment::{STACK, World};

#[test]
fn a_new_stack_is_valid_and_canonical_and_can_be_planned() {
    let world = World::new();
    let ran = world.kiln(&["init"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stdout.contains("main.kiln.hcl"));
    assert_eq!(world.kiln(&["validate"]).status, 0);
    assert_eq!(world.kiln(&["fmt", "--check"]).status, 0);
    let plan = world.kiln(&["plan"]);
    assert_eq!(plan.status, 0, "{plan:?}");
    assert!(plan.stdout.contains("Plan: 4 to create."), "{}", plan.stdout);
    assert!(!world.has_root(), "nothing of it needs a root");
    let again = world.kiln(&["init"]);
    assert_eq!(again.status, 2, "what is there is not overwritten: {again:?}");
    assert!(again.stderr.contains("help:"));
}

#[test]
fn validate_says_what_it_found() {
    let world = World::with(STACK);
    let ran = world.kiln(&["validate", "--json"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let document = ran.json();
    assert_eq!(document["stack"], "shop");
    assert_eq!(document["components"], 4);
}

#[test]
fn options_stand_before_or_behind_the_verb() {
    let world = World::with(STACK);
    let before = world.kiln(&["--json", "--stack", ".", "plan"]);
    let behind = world.kiln(&["plan", "--stack", ".", "--json"]);
    assert_eq!(before.status, 0, "{before:?}");
    assert_eq!(before.stdout, behind.stdout);
}

#[test]
fn version_help_and_completions() {
    let world = World::new();
    assert!(world.kiln(&["version"]).stdout.starts_with("kiln "));
    assert!(world.kiln(&["version", "--json"]).json()["version"].is_string());
    assert_eq!(world.kiln(&["--help"]).status, 0);
    for shell in ["bash", "zsh", "fish"] {
        let ran = world.kiln(&["completions", shell]);
        assert_eq!(ran.status, 0);
        assert!(ran.stdout.contains("rollback"), "{shell}");
    }
    let help = world.kiln(&["--help"]).stdout;
    for hidden in ["gateway", "launcher"] {
        assert!(!help.contains(hidden), "{hidden} is Kiln's own");
    }
}
