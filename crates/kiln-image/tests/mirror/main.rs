//! Locking and building against a small archive of the test's own, on good days and bad ones.

#![allow(clippy::unwrap_used, reason = "a test program: a failed expectation is a panic")]

mod archive;
mod flips;
mod full_disk;
mod hostile;
mod keys;
mod requests;
mod server;
mod signer;
mod trouble;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_image::build::{BuildError, Built, Order};
use kiln_image::debian::suite::{Mirrors, native_architecture};
use kiln_image::fetch::{Cache, FetchError, Fetcher, Patience};
use kiln_image::lock::{Lock, Sources, Unlocked};
use kiln_image::oci::registry::{Credentials, Registry};
use kiln_image::openpgp::Keyring;
use kiln_image::store::ImageStore;
use kiln_model::spec::image::{Base, Recipe};
use tempfile::TempDir;

use archive::{TestPackage, publish, publish_valid_until};
use server::{Mood, Server};
use signer::{NOW, Signer};

/// A root, a mirror and its key.
struct World {
    root: TempDir,
    server: Server,
    signer: Signer,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory for temporary files");
        Self { root, server: Server::start(), signer: Signer::new() }
    }

    /// A world whose archive has `app`, which needs `lib`.
    fn with_app() -> Self {
        let world = Self::new();
        publish(&world.server, &world.signer, &packages());
        world
    }

    fn sources(&self) -> Sources {
        self.sources_at(&self.server.url(), &self.signer)
    }

    fn sources_at(&self, url: &str, signer: &Signer) -> Sources {
        let cache = Cache::open(self.root.path().join("cache")).expect("a cache");
        let patience = Patience {
            attempts: 3,
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_secs(2),
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            whole: Duration::from_secs(20),
        };
        let mut keyring = Keyring::default();
        keyring.add(&signer.public_key()).expect("a usable key");
        Sources {
            fetcher: Fetcher::new(cache, patience),
            mirrors: Mirrors {
                main: format!("{url}/debian"),
                security: format!("{url}/security"),
                keyring,
            },
            architecture: native_architecture().to_owned(),
            now_seconds: NOW,
            registry: Registry::new(patience, Credentials::default()),
        }
    }

    fn lock(&self, packages: &[&str]) -> Result<Lock, Box<dyn Error>> {
        let mut lock = Lock::default();
        lock.update([&recipe(packages)], &self.sources(), false, &())?;
        Ok(lock)
    }

    fn build(&self, packages: &[&str], lock: &Lock) -> Result<Built, BuildError> {
        let store = ImageStore::open(self.root.path())?;
        let recipe = recipe(packages);
        let order = Order { name: "app", recipe: &recipe, stack: self.root.path() };
        store.build(order, lock, &self.sources(), &())
    }
}

fn packages() -> [TestPackage; 3] {
    [
        TestPackage::new("base-files", ""),
        TestPackage::new("app", "Depends: lib (>= 1)"),
        TestPackage::new("lib", ""),
    ]
}

fn recipe(packages: &[&str]) -> Recipe {
    Recipe {
        packages: packages.iter().map(ToString::to_string).collect::<BTreeSet<_>>(),
        entrypoint: vec!["/bin/app".into()],
        ..Recipe::on(Base::Debian { suite: "test".into() })
    }
}

/// An error with all its causes, as the command line shows it.
fn shown(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn assert_shown(error: &dyn Error, part: &str) {
    let text = shown(error);
    assert!(text.contains(part), "{text}");
}

#[test]
fn a_build_needs_the_lock_and_no_index() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    world.server.remove("/debian/dists");
    let built = world.build(&["app"], &lock).unwrap();
    assert!(!built.cached && built.warnings.is_empty());
    let store = ImageStore::open(world.root.path()).unwrap();
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&built.record));
    assert!(store.verify().unwrap().is_empty());
    // The packages are in the cache now: nothing of the mirror is needed.
    world.server.remove("/");
    std::fs::remove_dir_all(world.root.path().join("store")).unwrap();
    let again = world.build(&["app"], &lock).unwrap();
    assert_eq!(again.record, built.record);
}

#[test]
fn the_lock_is_read_back_and_kept_for_its_request() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    lock.save(world.root.path()).unwrap();
    assert_eq!(Lock::load(world.root.path()).unwrap(), lock);
    let line = |name: &str| {
        lock.to_text().lines().filter(|l| l.contains(&format!("\"name\":\"{name}\""))).count()
    };
    assert_eq!((line("app"), line("lib")), (1, 1));
    let architecture = native_architecture();
    assert!(lock.inputs(&recipe(&["app"]), architecture).is_ok());
    let missing = lock.inputs(&recipe(&["lib"]), architecture).unwrap_err();
    assert!(matches!(missing, Unlocked::NoEntry(_)));
    assert_eq!(Lock::default().inputs(&recipe(&["app"]), architecture), Err(Unlocked::NoLock));
    // A request that is locked is not resolved again.
    let mut known = lock.clone();
    world.server.remove("/");
    known.update([&recipe(&["app"])], &world.sources(), false, &()).unwrap();
    assert_eq!(known, lock);
    assert!(known.update([&recipe(&["app"])], &world.sources(), true, &()).is_err());
    assert_eq!(known, lock);
}

#[test]
fn a_damaged_lock_says_so() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("kiln.lock");
    for (text, part) in [("<<<<<<< HEAD", "is damaged"), ("{\"version\":9}", "format 9")] {
        std::fs::write(&path, text).unwrap();
        assert_shown(&Lock::load(root.path()).unwrap_err(), part);
    }
}

#[test]
fn an_altered_package_is_refused_and_not_kept() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let mut altered = packages()[2].deb.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    world.server.put("/debian/pool/lib.deb", altered);
    let error = world.build(&["app"], &lock).unwrap_err();
    assert_shown(&error, "/debian/pool/lib.deb has the checksum");
    assert!(ImageStore::open(world.root.path()).unwrap().list().unwrap().is_empty());
    // The right file is taken once it is there.
    world.server.put("/debian/pool/lib.deb", packages()[2].deb.clone());
    world.build(&["app"], &lock).unwrap();
}

#[test]
fn a_damaged_cache_is_filled_again() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let first = world.build(&["app"], &lock).unwrap();
    for entry in std::fs::read_dir(world.root.path().join("cache/sha256")).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    std::fs::remove_dir_all(world.root.path().join("store")).unwrap();
    assert_eq!(world.build(&["app"], &lock).unwrap().record, first.record);
}

#[test]
fn an_altered_index_is_refused() {
    let world = World::with_app();
    world.lock(&["app"]).unwrap();
    let by_hash = world.server.log().into_iter().find(|path| path.contains("by-hash")).unwrap();
    std::fs::remove_dir_all(world.root.path().join("cache")).unwrap();
    world.server.put(by_hash, archive::xz(b"Package: evil\n"));
    let error = world.lock(&["app"]).unwrap_err();
    assert_shown(&*error, "the mirror was altered");
}

#[test]
fn releases_must_be_signed_by_a_trusted_key_in_time() {
    let world = World::with_app();
    let path = "/debian/dists/test/InRelease";
    let good = world.signer.sign("Suite: test\n");
    for (document, part) in [
        ("Suite: test\nCodename: test\n".to_owned(), "is not signed"),
        (good.replace("Suite: test", "Suite: evil"), "was altered"),
        (Signer::new().sign("Suite: test\n"), "none of which is a trusted key"),
    ] {
        world.server.put(path, document);
        assert_shown(&*world.lock(&["app"]).unwrap_err(), part);
    }
    // Signed for another suite.
    publish(&world.server, &world.signer, &packages());
    let other = world
        .signer
        .sign("Suite: other\nCodename: other\nDate: Wed, 31 Dec 2025 00:00:00 UTC\nSHA256:\n");
    world.server.put(path, other);
    assert_shown(&*world.lock(&["app"]).unwrap_err(), "`other` was given where");
    // Too old.
    let ended = "Wed, 31 Dec 2025 12:00:00 UTC";
    publish_valid_until(&world.server, &world.signer, &packages(), ended);
    assert_shown(&*world.lock(&["app"]).unwrap_err(), "no longer valid");
}

#[test]
fn a_key_that_has_ended_signs_nothing() {
    let mut world = World::new();
    world.signer = Signer::new().expiring_after(1000);
    publish(&world.server, &world.signer, &packages());
    assert_shown(&*world.lock(&["app"]).unwrap_err(), "a key that expired on 2025-01-01");
}

#[test]
fn a_cut_connection_is_resumed() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    world.server.set_mood("/debian/pool/app.deb", Mood::Cut(100), 2);
    world.build(&["app"], &lock).unwrap();
    let log = world.server.log();
    assert!(log.contains(&"/debian/pool/app.deb bytes=100-".to_owned()), "{log:?}");
    assert!(log.contains(&"/debian/pool/app.deb bytes=200-".to_owned()), "{log:?}");
}

#[test]
fn patience_with_a_failing_server_ends() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    world.server.set_mood("/debian/pool/app.deb", Mood::Status(503), 2);
    world.build(&["app"], &lock).unwrap();
    std::fs::remove_dir_all(world.root.path().join("cache")).unwrap();
    std::fs::remove_dir_all(world.root.path().join("store")).unwrap();
    world.server.set_mood("/debian/pool/app.deb", Mood::Status(503), 9);
    assert_shown(&world.build(&["app"], &lock).unwrap_err(), "status 503");
    world.server.set_mood("/debian/pool/app.deb", Mood::Cut(0), 9);
    let error = world.build(&["app"], &lock).unwrap_err();
    assert!(matches!(error, BuildError::Fetch(FetchError::Unreachable { .. })), "{error:?}");
}

#[test]
fn what_has_left_the_mirror_is_named() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    world.server.remove("/debian/pool/lib.deb");
    let error = world.build(&["app"], &lock).unwrap_err();
    assert_shown(&error, "package lib 1.0-1 is no longer at");
    world.server.remove("/debian/dists/test/");
    assert_shown(&*world.lock(&["app"]).unwrap_err(), "there is no suite test at");
}

#[test]
fn wrong_requests_are_explained() {
    let world = World::new();
    let broken = TestPackage::new("broken", "Depends: mid");
    let mid = TestPackage::new("mid", "Depends: lib (>= 9)");
    let all: Vec<TestPackage> = packages().into_iter().chain([broken, mid]).collect();
    publish(&world.server, &world.signer, &all);
    assert_shown(&*world.lock(&["apq"]).unwrap_err(), "`apq`; did you mean app");
    let chain = "broken 1.0-1 -> mid 1.0-1 -> lib (>= 9): the archive has lib 1.0-1";
    assert_shown(&*world.lock(&["broken"]).unwrap_err(), chain);
}

#[test]
fn without_a_network_it_says_so_soon() {
    let world = World::new();
    // A port that was free a moment ago: nobody listens there.
    let url = Server::start().url();
    let started = Instant::now();
    let mut lock = Lock::default();
    let sources = world.sources_at(&url, &world.signer);
    let error = lock.update([&recipe(&["app"])], &sources, false, &()).unwrap_err();
    assert_shown(&error, "can't fetch");
    assert_shown(&error, "check the network");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(lock.is_empty());
}

#[test]
fn images_with_the_same_recipe_are_listed_by_both_names() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let first = world.build(&["app"], &lock).unwrap();
    let store = ImageStore::open(world.root.path()).unwrap();
    let recipe = recipe(&["app"]);
    let order = Order { name: "twin", recipe: &recipe, stack: world.root.path() };
    let twin = store.build(order, &lock, &world.sources(), &()).unwrap();
    assert!(twin.cached && twin.image == first.image);
    let names: Vec<String> = store.list().unwrap().into_iter().map(|record| record.name).collect();
    assert_eq!(names, ["app", "twin"]);
}

#[test]
fn builders_of_the_same_image_make_one() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let built: Vec<bool> = std::thread::scope(|scope| {
        let build = || world.build(&["app"], &lock).unwrap().cached;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(build)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(built.iter().filter(|cached| !**cached).count(), 1, "{built:?}");
}

#[test]
fn nothing_altered_in_the_store_goes_unseen() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let built = world.build(&["app"], &lock).unwrap();
    let store = ImageStore::open(world.root.path()).unwrap();
    let blobs = world.root.path().join("images/blobs/sha256");
    for entry in std::fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let good = std::fs::read(&path).unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut altered = good.clone();
            altered[at] ^= 0x10;
            rewrite(&path, &altered);
            assert!(!store.verify().unwrap().is_empty(), "{}", path.display());
            assert!(store.verify_image(&built.image.digest).is_err(), "{}", path.display());
        }
        rewrite(&path, &good);
    }
    assert!(store.verify().unwrap().is_empty());
    let stray = world.root.path().join("images/stray");
    std::fs::write(&stray, "x").unwrap();
    assert!(store.verify().unwrap()[0].to_string().contains("images/stray"));
    std::fs::remove_file(stray).unwrap();
    std::fs::remove_file(store.blob(&built.image.erofs_digest)).unwrap();
    assert!(!store.verify().unwrap().is_empty());
}

/// Writes a file anew, which may be read-only.
fn rewrite(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).expect("the file is there");
    std::fs::write(path, bytes).expect("the directory can be written");
}
