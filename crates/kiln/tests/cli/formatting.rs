//! `fmt`.

use std::fs;

use crate::environment::World;

const UGLY: &str = "network   \"front\" {\ncidr=\"10.60.0.0/24\"\n}\n";
const PRETTY: &str = "network \"front\" {\n  cidr = \"10.60.0.0/24\"\n}\n";

#[test]
fn check_tells_and_fmt_does() {
    let world = World::with(UGLY);
    let file = world.path("stack/main.kiln.hcl");
    let ran = world.kiln(&["fmt", "--check"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stdout.contains("main.kiln.hcl"));
    assert_eq!(fs::read_to_string(&file).unwrap(), UGLY, "nothing is written");
    let ran = world.kiln(&["fmt", "--json"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(ran.json()["changed"].as_array().unwrap().len(), 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), PRETTY);
    assert_eq!(world.kiln(&["fmt", "--check"]).status, 0);
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let world = World::with("network \"front\" {\n");
    let ran = world.kiln(&["fmt"]);
    assert_eq!(ran.status, 2, "{ran:?}");
    assert!(ran.stderr.contains("main.kiln.hcl"), "{}", ran.stderr);
}
