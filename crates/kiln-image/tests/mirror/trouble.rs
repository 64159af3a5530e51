//! Servers and disks that fail, and what is said then.

use std::time::Instant;

use kiln_image::debian::suite::Mirrors;

use crate::archive::publish;
use crate::server::Mood;
use crate::{World, assert_shown, packages};

const PACKAGE: &str = "/debian/pool/app.deb";

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    world.server.set_mood(PACKAGE, Mood::Wait(429, 1), 1);
    let started = Instant::now();
    world.build(&["app"], &lock).unwrap();
    assert!(started.elapsed().as_millis() >= 1000, "it was waited for");
}

#[test]
fn a_server_that_asks_for_too_much_patience_is_left() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    world.server.set_mood(PACKAGE, Mood::Wait(503, 3600), 1);
    let error = world.build(&["app"], &lock).unwrap_err();
    assert_shown(&error, "status 503 and the demand to wait for 3600 s");
}

#[test]
fn refusals_are_not_tried_again() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    for status in [401, 403] {
        world.server.set_mood(PACKAGE, Mood::Status(status), 9);
        let before = world.server.log().len();
        let error = world.build(&["app"], &lock).unwrap_err();
        assert_shown(&error, &format!("is refused with status {status}"));
        let asked = world.server.log()[before..].iter().filter(|path| *path == PACKAGE).count();
        assert_eq!(asked, 1, "status {status}");
    }
}

#[test]
fn what_does_not_fit_behind_a_partial_file_comes_anew() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let right = packages().into_iter().find(|package| package.name == "app").unwrap().deb;
    // An earlier run was cut; meanwhile the server has a shorter file, then the right one.
    world.server.set_mood(PACKAGE, Mood::Cut(30), 9);
    assert!(world.build(&["app"], &lock).is_err());
    world.server.put(PACKAGE, right[..50].to_vec());
    world.server.set_mood(PACKAGE, Mood::Cut(0), 0);
    assert_shown(&world.build(&["app"], &lock).unwrap_err(), "has 50 bytes, but");
    world.server.put(PACKAGE, right);
    world.build(&["app"], &lock).unwrap();
}

#[test]
fn the_mirror_of_the_lock_is_asked_where_that_of_today_fails() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let store = kiln_image::store::ImageStore::open(world.root.path()).unwrap();
    let recipe = crate::recipe(&["app"]);
    let order = kiln_image::build::Order { name: "app", recipe: &recipe, stack: world.root.path() };
    let mut sources = world.sources();
    // Nobody listens at this port any more.
    let gone = crate::Server::start().url();
    sources.mirrors = Mirrors {
        main: format!("{gone}/debian"),
        security: format!("{gone}/security"),
        keyring: sources.mirrors.keyring.clone(),
    };
    store.build(order, &lock, &sources, &()).unwrap();
}

#[test]
fn an_archive_with_its_signature_apart_is_read() {
    let world = World::with_app();
    let release = "Suite: test\nDate: Wed, 31 Dec 2025 00:00:00 UTC\nSHA256:\n";
    world.server.remove("/debian/dists/test/InRelease");
    world.server.put("/debian/dists/test/Release", release);
    assert_shown(&*world.lock(&["app"]).unwrap_err(), "is refused: it is not signed");
    let other = crate::Signer::new().sign_detached(release.as_bytes());
    world.server.put("/debian/dists/test/Release.gpg", other);
    assert_shown(&*world.lock(&["app"]).unwrap_err(), "none of which is a trusted key");
    let own = world.signer.sign_detached(release.as_bytes());
    world.server.put("/debian/dists/test/Release.gpg", own);
    // The signature holds; it lists no index.
    assert_shown(&*world.lock(&["app"]).unwrap_err(), "has no `main/binary-");
    publish(&world.server, &world.signer, &packages());
    world.lock(&["app"]).unwrap();
}
