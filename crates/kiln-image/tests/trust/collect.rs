//! What a collection takes, and what it never does.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kiln_image::audit;
use kiln_image::gc::{Kind, Options, collect};
use kiln_model::digest::Digest;
use kiln_model::trust::Demands;

use crate::world::{World, recipe};

fn options(grace: Duration) -> Options {
    Options { grace, now: SystemTime::now(), dry_run: false, cache: None }
}

/// Without grace: what was made a moment ago is old.
fn at_once() -> Options {
    options(Duration::ZERO)
}

fn blobs(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.path().join("images/blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_is_needed_stays_whole_and_the_rest_goes() {
    let world = World::new();
    let (kept, gone) = (world.admitted("kept"), world.admitted("gone"));
    let needed = BTreeSet::from([kept.record.digest]);
    let before = blobs(&world).len();
    let dry = Options { dry_run: true, ..at_once() };
    let told = collect(&world.store, &world.signing, &needed, &dry).unwrap();
    assert_eq!(blobs(&world).len(), before, "nothing was removed");
    let done = collect(&world.store, &world.signing, &needed, &at_once()).unwrap();
    assert_eq!(done.removed, told.removed);
    let images: Vec<_> = done.removed.iter().filter(|r| r.kind == Kind::Image).collect();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].digest, gone.record.digest);
    // Its manifest, configuration, layer, filesystem, and three envelopes with their manifests.
    let gone_blobs = done.removed.iter().filter(|r| r.kind == Kind::Blob).count();
    assert_eq!((gone_blobs, blobs(&world).len()), (10, before - 10));
    assert!(done.bytes() > 0);
    world.guard().check(&kept.image, &Demands::default()).unwrap();
    assert!(audit::everything(&world.store, &world.signing).unwrap().is_empty());
    assert_eq!(world.store.list().unwrap(), [kept.record]);
    assert!(world.store.referrers(&gone.record.digest).unwrap().is_empty());
    // It can be made again, and then needs to be admitted again.
    let again = world.build(&recipe("gone"));
    assert_eq!(again.record.digest, gone.record.digest);
    assert!(world.guard().check(&again.image, &Demands::default()).is_err());
}

#[test]
fn what_is_young_or_was_used_a_moment_ago_stays() {
    let world = World::new();
    let built = world.admitted("v1");
    let none = BTreeSet::new();
    let hour = options(Duration::from_secs(3600));
    assert!(collect(&world.store, &world.signing, &none, &hour).unwrap().removed.is_empty());
    // Everything is two hours old, then the image is built again, which finds it there.
    let past = SystemTime::now() - Duration::from_secs(7200);
    let index = world.path().join("store/images");
    let records = fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path());
    for path in blobs(&world).into_iter().chain(records.filter(|path| path.is_file())) {
        fs::File::open(path).unwrap().set_modified(past).unwrap();
    }
    assert!(world.build(&recipe("v1")).cached);
    assert!(collect(&world.store, &world.signing, &none, &hour).unwrap().removed.is_empty());
    world.guard().check(&built.image, &Demands::default()).unwrap();
}

#[test]
fn what_a_crash_left_without_a_name_goes_at_the_next_collection() {
    let world = World::new();
    let built = world.admitted("v1");
    let path = format!("store/images/{}.json", built.record.recipe.hex());
    fs::remove_file(world.path().join(path)).unwrap();
    collect(&world.store, &world.signing, &BTreeSet::new(), &at_once()).unwrap();
    assert!(blobs(&world).is_empty());
}

#[test]
fn who_holds_the_store_is_waited_for() {
    let world = World::new();
    world.admitted("v1");
    let held = world.store.hold().unwrap();
    std::thread::scope(|scope| {
        let collecting = scope
            .spawn(|| collect(&world.store, &world.signing, &BTreeSet::new(), &at_once()).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        assert!(!blobs(&world).is_empty(), "not while it is held");
        drop(held);
        assert!(!collecting.join().unwrap().removed.is_empty());
    });
}

#[test]
fn packages_go_only_when_asked_for_and_named_by_no_lock() {
    let world = World::new();
    let cache = world.path().join("cache");
    fs::create_dir_all(cache.join("sha256")).unwrap();
    let file = |name: &[u8]| cache.join("sha256").join(Digest::of(name).hex());
    for name in [b"locked".as_slice(), b"old"] {
        fs::write(file(name), name).unwrap();
    }
    let needed = BTreeSet::from([Digest::of(b"locked")]);
    collect(&world.store, &world.signing, &needed, &at_once()).unwrap();
    assert!(file(b"old").exists());
    let options = Options { cache: Some(cache.clone()), ..at_once() };
    let done = collect(&world.store, &world.signing, &needed, &options).unwrap();
    assert_eq!(done.removed.len(), 1);
    assert!(file(b"locked").exists() && !file(b"old").exists());
}
