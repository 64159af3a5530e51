//! What recipes can ask for beside names: pockets, third parties, recommendations, architectures,
//! tools; and what the lock keeps of it.

use std::collections::BTreeSet;

use kiln_image::debian::suite::native_architecture;
use kiln_image::lock::{Lock, LockedPackage, PackageChange, Request, ResolveRequestError};
use kiln_model::spec::image::{Keep, Pocket, Recipe, Repository, Scripts};

use crate::archive::{TestPackage, VALID_UNTIL, publish, publish_suite};
use crate::{Signer, World, assert_shown, packages, recipe};

fn locked(world: &World, recipe: &Recipe) -> Result<Lock, ResolveRequestError> {
    let mut lock = Lock::default();
    lock.update([recipe], &world.sources(), false, &())?;
    // What is written is read back as it was.
    lock.save(world.root.path()).expect("the directory can be written");
    let read = Lock::load(world.root.path()).expect("what was written can be read");
    assert_eq!(read, lock);
    Ok(lock)
}

fn chosen(lock: &Lock, recipe: &Recipe) -> Vec<String> {
    let request = Request::of(recipe, native_architecture()).expect("a Debian base");
    let entry = lock.entry(&request).expect("the recipe was locked");
    let shown = |p: &LockedPackage| {
        format!("{} {}{}", p.name, p.version, if p.tool { " tool" } else { "" })
    };
    let others = entry.packages.iter().filter(|package| package.name != "base-files");
    others.map(shown).collect()
}

fn repository(world: &World, signer: &Signer) -> Repository {
    Repository {
        name: "party".to_owned(),
        url: format!("{}/party", world.server.url()),
        suite: "stable".to_owned(),
        components: BTreeSet::from(["main".to_owned()]),
        key: signer.armoured(),
    }
}

fn publish_party(world: &World, signer: &Signer, packages: &[TestPackage]) {
    publish_suite(&world.server, signer, ("/party", "stable"), packages, VALID_UNTIL);
}

#[test]
fn a_third_party_adds_packages_and_newer_versions() {
    let (world, party) = (World::with_app(), Signer::new());
    let extra = TestPackage::of_version("extra", "3", "Depends: lib (>= 2)");
    let lib = TestPackage::of_version("lib", "2", "");
    publish_party(&world, &party, &[extra, lib]);
    let mut wanted = recipe(&["app", "extra"]);
    wanted.repositories = vec![repository(&world, &party)];
    let lock = locked(&world, &wanted).unwrap();
    assert_eq!(chosen(&lock, &wanted), ["app 1.0-1", "extra 3", "lib 2"]);
    let entry = lock.entries().values().next().unwrap();
    let lib = entry.packages.iter().find(|package| package.name == "lib").unwrap();
    assert_eq!(lib.repository.as_deref(), Some("party"));
    // Built from the lock alone.
    world.server.remove("/party/dists");
    let store = kiln_image::store::ImageStore::open(world.root.path()).unwrap();
    let order = kiln_image::build::Order { name: "x", recipe: &wanted, stack: world.root.path() };
    store.build(order, &lock, &world.sources(), &()).unwrap();
}

#[test]
fn nobodys_key_vouches_for_anothers_archive() {
    let (world, party) = (World::with_app(), Signer::new());
    let mut wanted = recipe(&["app"]);
    // Signed with the distribution's key, where the party's was named.
    publish_party(&world, &world.signer, &[]);
    wanted.repositories = vec![repository(&world, &party)];
    let error = locked(&world, &wanted).unwrap_err();
    assert_shown(&error, "the release of repository \"party\" stable at");
    assert_shown(&error, "none of which is a trusted key");
    // And the other way round.
    publish_party(&world, &party, &[]);
    publish(&world.server, &party, &packages());
    assert_shown(&locked(&world, &wanted).unwrap_err(), "the release of test at");
    // A key that is none.
    wanted.repositories[0].key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n".to_owned();
    assert_shown(&locked(&world, &wanted).unwrap_err(), "the key of repository \"party\"");
}

#[test]
fn an_archive_of_this_machine_is_read() {
    let (world, party) = (World::with_app(), Signer::new());
    publish_party(&world, &party, &[TestPackage::new("extra", "")]);
    // The same files below a directory.
    let directory = world.root.path().join("archive");
    for path in ["dists/stable/InRelease", "pool/extra.deb"] {
        copy(&world, path, &directory);
    }
    let release = std::fs::read_to_string(directory.join("dists/stable/InRelease")).unwrap();
    let place = format!("main/binary-{}", native_architecture());
    let line = release.lines().find(|line| line.contains(&place)).unwrap();
    let sum = line.split_whitespace().next().unwrap();
    copy(&world, &format!("dists/stable/{place}/by-hash/SHA256/{sum}"), &directory);
    world.server.remove("/party");
    let mut wanted = recipe(&["extra"]);
    wanted.repositories = vec![repository(&world, &party)];
    wanted.repositories[0].url = format!("file://{}", directory.display());
    let lock = locked(&world, &wanted).unwrap();
    assert_eq!(chosen(&lock, &wanted), ["extra 1.0-1"]);
    let store = kiln_image::store::ImageStore::open(world.root.path()).unwrap();
    let order = kiln_image::build::Order { name: "x", recipe: &wanted, stack: world.root.path() };
    store.build(order, &lock, &world.sources(), &()).unwrap();
}

fn copy(world: &World, path: &str, directory: &std::path::Path) {
    let url = format!("{}/party/{path}", world.server.url());
    let bytes = world.sources().fetcher.fetch(&url, 1 << 20).expect("it was published");
    let target = directory.join(path);
    std::fs::create_dir_all(target.parent().expect("a file in a directory")).expect("room");
    std::fs::write(target, bytes).expect("room");
}

#[test]
fn pockets_are_those_that_are_named() {
    let world = World::with_app();
    let fixed = [TestPackage::of_version("lib", "1.0-1+deb1", "Source: libs (1.0-1+deb1)")];
    publish_suite(
        &world.server,
        &world.signer,
        ("/security", "test-security"),
        &fixed,
        VALID_UNTIL,
    );
    let backported = [
        TestPackage::of_version("app", "9~bpo1", ""),
        TestPackage::of_version("only-there", "1~bpo1", "Depends: app (>= 9~bpo1)"),
    ];
    let place = ("/debian", "test-backports");
    publish_suite(&world.server, &world.signer, place, &backported, VALID_UNTIL);
    let mut wanted = recipe(&["app"]);
    let lock = locked(&world, &wanted).unwrap();
    assert_eq!(chosen(&lock, &wanted), ["app 1.0-1", "lib 1.0-1+deb1"]);
    wanted.pockets = Some(BTreeSet::new());
    let without = locked(&world, &wanted).unwrap();
    assert_eq!(chosen(&without, &wanted), ["app 1.0-1", "lib 1.0-1"]);
    wanted.pockets = Some(BTreeSet::from([Pocket::Backports]));
    let lock = locked(&world, &wanted).unwrap();
    assert_eq!(chosen(&lock, &wanted), ["app 1.0-1", "lib 1.0-1"]);
    wanted.packages = BTreeSet::from(["only-there".to_owned()]);
    let lock = locked(&world, &wanted).unwrap();
    assert_eq!(chosen(&lock, &wanted), ["app 9~bpo1", "only-there 1~bpo1"]);
}

#[test]
fn a_moved_lock_tells_what_has_changed() {
    let world = World::with_app();
    let wanted = recipe(&["app"]);
    let before = locked(&world, &wanted).unwrap();
    assert!(before.since(&before).is_empty() && before.since(&Lock::default())[0].is_new);
    let app = TestPackage::of_version("app", "2", "Depends: new");
    let all = [TestPackage::new("base-files", ""), app, TestPackage::new("new", "")];
    publish(&world.server, &world.signer, &all);
    let fixed = [TestPackage::of_version("new", "1.1", "Source: news (1.1)")];
    publish_suite(
        &world.server,
        &world.signer,
        ("/security", "test-security"),
        &fixed,
        VALID_UNTIL,
    );
    let mut after = before.clone();
    after.update([&wanted], &world.sources(), false, &()).unwrap();
    assert_eq!(after, before, "a lock stays until it is moved");
    after.update([&wanted], &world.sources(), true, &()).unwrap();
    let differences = after.since(&before);
    let [difference] = &differences[..] else { panic!("{differences:?}") };
    let shown: Vec<_> = difference
        .packages
        .iter()
        .map(|p| (p.name.as_str(), p.source.as_str(), p.change, p.security))
        .collect();
    assert_eq!(
        shown,
        [
            ("app", "app", PackageChange::Upgraded, false),
            ("lib", "lib", PackageChange::Removed, false),
            ("new", "news", PackageChange::Added, true),
        ]
    );
}

#[test]
fn recommendations_are_taken_where_they_are_wished_for_and_fit() {
    let world = World::new();
    let all = [
        TestPackage::new("base-files", ""),
        TestPackage::new("app", "Depends: lib\nRecommends: more, absent, rival"),
        TestPackage::new("lib", "Conflicts: rival"),
        TestPackage::new("more", "Recommends: yet-more"),
        TestPackage::new("yet-more", ""),
        TestPackage::new("rival", ""),
    ];
    publish(&world.server, &world.signer, &all);
    let mut wanted = recipe(&["app"]);
    wanted.recommends = true;
    let lock = locked(&world, &wanted).unwrap();
    let names = ["app 1.0-1", "lib 1.0-1", "more 1.0-1", "yet-more 1.0-1"];
    assert_eq!(chosen(&lock, &wanted), names);
    assert!(lock.inputs(&recipe(&["app"]), native_architecture()).is_err(), "another request");
}

#[test]
fn packages_of_another_architecture_stand_beside() {
    let world = World::new();
    let own = native_architecture();
    let fields = |architecture: &str, rest: &str| -> &'static str {
        Box::leak(format!("Architecture: {architecture}\n{rest}").into_boxed_str())
    };
    let all = [
        TestPackage::new("base-files", ""),
        TestPackage::new("tool", fields(own, "Multi-Arch: foreign")),
        TestPackage::of_version("app", "1", fields("m68k", "Depends: lib, tool")),
        TestPackage::of_version("lib", "1", fields("m68k", "Multi-Arch: same")),
        TestPackage::new("alone", fields(own, "Depends: lib")),
    ];
    publish(&world.server, &world.signer, &all);
    let wanted = recipe(&["app:m68k"]);
    let lock = locked(&world, &wanted).unwrap();
    assert_eq!(chosen(&lock, &wanted), ["app 1", "lib 1", "tool 1.0-1"]);
    assert_shown(&*world.lock(&["app"]).unwrap_err(), "there is no package `app`");
    let error = world.lock(&["alone", "app:m68k"]).unwrap_err();
    assert_shown(&*error, &format!("alone 1.0-1 -> lib: the archive has no lib for {own}"));
    assert_shown(&*world.lock(&["app:vax"]).unwrap_err(), "main/binary-vax/Packages");
}

#[test]
fn tools_of_packages_are_kept_or_there_for_scripts() {
    let world = World::new();
    let all = [
        TestPackage::new("base-files", ""),
        TestPackage::new("app", "Depends: debconf"),
        TestPackage::new("debconf", ""),
        TestPackage::new("shell", "Essential: yes"),
        TestPackage::new("apt", ""),
        TestPackage::new("dpkg", ""),
    ];
    publish(&world.server, &world.signer, &all);
    let mut wanted = recipe(&["app"]);
    assert_eq!(chosen(&locked(&world, &wanted).unwrap(), &wanted), ["app 1.0-1"]);
    wanted.scripts = Scripts::Sandbox;
    let lock = locked(&world, &wanted).unwrap();
    assert_eq!(chosen(&lock, &wanted), ["app 1.0-1", "debconf 1.0-1 tool", "shell 1.0-1 tool"]);
    wanted.scripts = Scripts::Skip;
    wanted.keep = BTreeSet::from([Keep::Dpkg]);
    let lock = locked(&world, &wanted).unwrap();
    let names = ["app 1.0-1", "apt 1.0-1", "debconf 1.0-1", "dpkg 1.0-1"];
    assert_eq!(chosen(&lock, &wanted), names);
}

#[test]
fn a_lock_of_the_first_kind_is_still_read() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let text = lock.to_text();
    for new in ["recommends", "pockets", "repositories", "tools", "\"source\"", "\"tool\""] {
        assert!(!text.contains(new), "{new} goes without saying: {text}");
    }
}
