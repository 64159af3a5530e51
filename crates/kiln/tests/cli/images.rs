//! Images without a daemon: build, look, verify, keys, revocation, collection.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::environment::{STACK, World};

/// A world with the image of [`STACK`] built; nothing where the test can't be root.
fn built(test: &str) -> Option<World> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: {test}: not root");
        return None;
    }
    let world = World::with(STACK);
    must(&world, &["image", "build"]);
    Some(world)
}

fn must(world: &World, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    let ran = world.kiln(&args);
    assert_eq!(ran.status, 0, "{args:?}: {ran:?}");
    ran.json()
}

fn image(world: &World) -> Value {
    must(world, &["image", "list"])["images"][0].clone()
}

#[test]
fn what_is_built_is_signed_with_the_roots_key_and_shown() {
    let Some(world) = built("what_is_built_is_signed") else { return };
    let image = image(&world);
    let keys = must(&world, &["image", "key", "list"]);
    assert_eq!(image["admitted"], true, "{image}");
    assert_eq!(image["signed_by"], keys["keys"][0]["key"]);
    let shown = must(&world, &["image", "show", "web"]);
    assert_eq!((&shown["packages"], &shown["reproducible"]), (&0.into(), &true.into()));
    assert_eq!(shown["tests"], Value::Array(Vec::new()));
    let sbom = world.kiln(&["image", "sbom", "web", "--format", "spdx"]);
    assert_eq!(sbom.status, 0, "{sbom:?}");
    assert_eq!(sbom.json()["spdxVersion"], "SPDX-2.3");
    assert_eq!(must(&world, &["image", "verify"])["intact"], true);
    assert_eq!(must(&world, &["image", "verify", "web"])["intact"], true);
}

#[test]
fn a_rebuild_gives_the_same_and_names_what_differs() {
    let Some(world) = built("a_rebuild_gives_the_same") else { return };
    let same = must(&world, &["image", "verify", "--rebuild"]);
    assert_eq!(same["rebuilt"][0]["identical"], true, "{same}");
    // Another image is put in the place of this one in the index, as if it had been built so.
    let record = |world: &World| -> PathBuf {
        let entries = fs::read_dir(world.path("root/store/images")).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.extension().is_some_and(|e| e == "json")).unwrap()
    };
    let path = record(&world);
    let text = "{\n    content = \"v22\"\n    mode = \"0600\"\n  }";
    let other = World::with(&STACK.replace("{ content = var.release }", text));
    must(&other, &["image", "build"]);
    for part in ["root/images/blobs/sha256", "root/store/images/rootfs"] {
        for entry in fs::read_dir(other.path(part)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), world.path(part).join(entry.file_name())).unwrap();
        }
    }
    let theirs: Value = serde_json::from_slice(&fs::read(record(&other)).unwrap()).unwrap();
    let mut ours: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    ours["digest"] = theirs["digest"].clone();
    fs::write(&path, ours.to_string()).unwrap();
    let ran = world.kiln(&["image", "verify", "--rebuild", "web"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    for part in ["/etc/release: mode: 0600 -> 0644", "/etc/release: size: 3 -> 2", "content"] {
        assert!(ran.stdout.contains(part), "{part:?} is not in {ran:?}");
    }
    let left = fs::read_dir(world.path("root/cache/tmp")).unwrap().count();
    assert_eq!(left, 0, "nothing is left of the rebuild");
}

#[test]
fn keys_are_rotated_exported_and_revoked_and_never_shown() {
    let Some(world) = built("keys_are_rotated") else { return };
    let first = image(&world)["signed_by"].as_str().unwrap().to_owned();
    let secret = world.path("backup.pem");
    let exported =
        world.kiln(&["image", "key", "export", "--secret", secret.to_str().unwrap(), "--json"]);
    assert_eq!(exported.status, 0, "{exported:?}");
    assert_eq!(exported.json()["key"], first);
    let body = fs::read_to_string(&secret).unwrap();
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let secret_line = body.lines().nth(1).unwrap();
    assert!(!exported.stdout.contains(secret_line) && !exported.stderr.contains(secret_line));
    assert!(world.kiln(&["image", "key", "export"]).stdout.contains("BEGIN PUBLIC KEY"));
    let second = must(&world, &["image", "key", "new"])["key"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(image(&world)["admitted"], true, "what the first key signed still counts");
    let refused = world.kiln(&["image", "key", "revoke", &first]);
    assert_eq!(refused.status, 2, "nobody can be asked: {refused:?}");
    let args = ["image", "key", "revoke", &first, "--reason", "lost", "--yes"];
    assert_eq!(must(&world, &args)["new"], true);
    let image_now = image(&world);
    assert_eq!(image_now["admitted"], false);
    assert!(image_now["because"].as_str().unwrap().contains("lost"), "{image_now}");
    let refused = world.kiln(&["image", "key", "import", secret.to_str().unwrap()]);
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("was revoked"), "{refused:?}");
    assert!(!refused.stderr.contains(secret_line));
    must(&world, &["image", "build"]);
    assert_eq!(image(&world)["signed_by"], second, "signed anew");
    assert_eq!(must(&world, &["image", "verify"])["intact"], true);
}

#[test]
fn a_revoked_image_is_not_built_again() {
    let Some(world) = built("a_revoked_image_is_not_built_again") else { return };
    let args = ["image", "revoke", "web", "--reason", "CVE-2026-1", "--yes"];
    let revoked = must(&world, &args);
    assert_eq!(revoked["revoked"], image(&world)["digest"]);
    assert_eq!(image(&world)["admitted"], false);
    let ran = world.kiln(&["image", "build"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("CVE-2026-1") && ran.stderr.contains("web"), "{ran:?}");
    assert_eq!(must(&world, &args)["new"], false);
    let ran = world.kiln(&["image", "revoke", "nothing", "--yes"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("there is no image nothing"), "{ran:?}");
}

#[test]
fn what_nothing_needs_is_collected_after_its_grace() {
    let Some(world) = built("what_nothing_needs_is_collected") else { return };
    let none = must(&world, &["image", "gc", "--yes"]);
    assert_eq!(none["removed"], Value::Array(Vec::new()), "it is young");
    let refused = world.kiln(&["image", "gc"]);
    assert_eq!(refused.status, 2, "{refused:?}");
    let told = must(&world, &["image", "gc", "--grace", "0s", "--dry-run"]);
    assert_eq!(told["removed"][0]["name"], "web");
    assert_eq!(image(&world)["admitted"], true, "a dry run removes nothing");
    let went = must(&world, &["image", "gc", "--grace", "0s", "--yes"]);
    assert_eq!(went["removed"], told["removed"]);
    assert!(went["bytes"].as_u64().unwrap() > 0);
    assert_eq!(must(&world, &["image", "list"])["images"], Value::Array(Vec::new()));
    assert_eq!(must(&world, &["image", "verify"])["intact"], true);
    must(&world, &["image", "build"]);
    assert_eq!(image(&world)["admitted"], true);
}

#[test]
fn verification_names_what_was_altered_and_repairs_nothing() {
    let Some(world) = built("verification_names_what_was_altered") else { return };
    let ring = world.path("root/store/signing/ring.json");
    let good = fs::read(&ring).unwrap();
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    fs::write(&ring, &altered).unwrap();
    let ran = world.kiln(&["image", "verify"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stdout.contains("ring.json was altered"), "{ran:?}");
    assert_eq!(fs::read(&ring).unwrap(), altered);
    assert_eq!(image(&world)["admitted"], false);
    fs::write(&ring, good).unwrap();
    for entry in fs::read_dir(world.path("root/images/blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let good = fs::read(&path).unwrap();
        let mut altered = good.clone();
        altered[good.len() / 2] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, altered).unwrap();
        let ran = world.kiln(&["image", "verify", "--json"]);
        assert_eq!((ran.status, &ran.json()["intact"]), (1, &false.into()), "{ran:?}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, good).unwrap();
    }
    assert_eq!(must(&world, &["image", "verify"])["intact"], true);
}
