//! Images on other images.

use std::process::Command;

use kiln_image::build::BuildError;
use kiln_image::copy;
use kiln_image::lock::{Lock, Unlocked};
use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::image::{Base, Recipe, Step};

use crate::server::Server;
use crate::{Bases, World, recipe, reference, registry, shown};

fn on(id: &str) -> Base {
    Base::Image { image: id.parse::<ComponentId>().unwrap().into() }
}

fn bases(id: &str, built: &kiln_image::build::Built) -> Bases {
    Bases::from([(id.parse().unwrap(), built.record.clone())])
}

#[test]
fn an_image_on_an_image_adds_one_layer() {
    let world = World::new();
    let base = world.app();
    let below = bases("image.app", &base);
    let mut wanted = recipe(on("image.app"), "/etc/extra", "extra");
    wanted.entrypoint.clear();
    wanted.steps.push(Step::User { name: "web".into(), uid: None, home: None });
    wanted.user = Some("web".into());
    let built = world.build_on("web", &wanted, &below, &Lock::default()).unwrap();
    let (lower, upper) = (
        world.store.manifest(&base.image.digest).unwrap(),
        world.store.manifest(&built.image.digest).unwrap(),
    );
    assert_eq!(upper.layers[..1], lower.layers[..]);
    assert_eq!(upper.layers.len(), 2);
    assert_eq!(built.image.config.argv(), ["/app"], "inherited");
    assert_eq!(built.image.config.user, "1000:1000");
    assert_eq!(built.image.config.environment()["MODE"], "extra");
    // Nothing added is no layer.
    let same = Recipe::on(on("image.app"));
    let same = world.build_on("same", &same, &below, &Lock::default()).unwrap();
    assert_eq!(world.store.manifest(&same.image.digest).unwrap().layers, lower.layers);
    assert_eq!(same.image.erofs_digest, base.image.erofs_digest);
    // Another base is another image.
    let other = world.build("app", &recipe(Base::Scratch, "/app", "v2")).unwrap();
    let changed = world.build_on("web", &wanted, &bases("image.app", &other), &Lock::default());
    assert_ne!(changed.unwrap().record.recipe, built.record.recipe);
    let missing = world.build("web", &wanted).unwrap_err();
    assert!(shown(&missing).contains("image.app"), "{}", shown(&missing));
}

#[test]
fn the_filesystem_made_from_layers_is_the_one_that_was_built() {
    let world = World::new();
    let base = world.app();
    let wanted = recipe(on("image.app"), "/app", "replaced");
    let top = world.build_on("top", &wanted, &bases("image.app", &base), &Lock::default()).unwrap();
    for image in [&base.image, &top.image] {
        let whole = std::fs::read(&image.erofs).unwrap();
        for spoil in [true, false] {
            std::fs::remove_file(&image.erofs).unwrap();
            if spoil {
                std::fs::write(&image.erofs, vec![7; whole.len()]).unwrap();
                assert!(world.store.verify_rootfs(&image.digest).is_err());
            } else {
                assert!(world.store.get(&image.digest).is_err());
            }
            assert_eq!(world.store.derive(&image.digest, &()).unwrap(), *image);
            assert!(std::fs::read(&image.erofs).unwrap() == whole);
        }
    }
    // What is not the layer that the manifest names is not put together.
    let layer = world.store.manifest(&top.image.digest).unwrap().layers[1].digest;
    let path = world.store.blob(&layer);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let error = shown(&world.store.derive(&top.image.digest, &()).unwrap_err());
    assert!(error.contains(&layer.to_string()), "{error}");
    assert!(world.store.verify_image(&top.image.digest).is_err());
}

#[test]
fn an_image_of_a_registry_is_locked_and_fetched() {
    let (world, server) = (World::new(), Server::start());
    let base = world.app();
    let text = format!("{}/app:v1", server.host());
    world.store.push(&registry(), &base.image.digest, &reference(&text), &()).unwrap();
    world.forget();
    let wanted = recipe(Base::Oci { reference: text.clone() }, "/etc/extra", "extra");
    let unlocked = world.build("web", &wanted).unwrap_err();
    assert!(matches!(unlocked, BuildError::Unlocked { reason: Unlocked::NoLock, .. }));
    let architecture = kiln_image::debian::suite::native_architecture();
    let mut lock = Lock::default();
    lock.pin([&wanted], &registry(), architecture, false, &()).unwrap();
    let built = world.build_on("web", &wanted, &Bases::new(), &lock).unwrap();
    assert_eq!(world.store.manifest(&built.image.digest).unwrap().layers.len(), 2);
    // The tag moves; the lock does not until it is told to.
    let moved = world.build("app", &recipe(Base::Scratch, "/app", "v2")).unwrap();
    world.store.push(&registry(), &moved.image.digest, &reference(&text), &()).unwrap();
    let locked = lock.clone();
    lock.pin([&wanted], &registry(), architecture, false, &()).unwrap();
    assert_eq!(lock, locked);
    lock.pin([&wanted], &registry(), architecture, true, &()).unwrap();
    assert_eq!(lock.manifest(&text, architecture), Some(moved.image.digest));
    lock.retain([&Recipe::on(Base::Scratch)], architecture);
    assert!(lock.is_empty());
    // What the lock names is still had, as the registry has it by its digest.
    world.forget();
    let again = world.build_on("web", &wanted, &Bases::new(), &locked).unwrap();
    assert_eq!(again.image.digest, built.image.digest);
    let gone = format!("{}/gone:v1", server.host());
    let missing = recipe(Base::Oci { reference: gone.clone() }, "/x", "x");
    let error = lock.pin([&missing], &registry(), architecture, false, &()).unwrap_err();
    assert!(shown(&error).contains("gone:v1 does not exist"), "{}", shown(&error));
}

#[test]
fn an_image_of_a_layout_is_built_on() {
    let world = World::new();
    let base = world.app();
    world.store.export(&base.image.digest, "v1", &world.stack().join("layout")).unwrap();
    world.forget();
    let digest = copy::digest(&world.stack(), "layout").unwrap();
    for path in ["layout", "layout:v1"] {
        let base = Base::OciLayout { path: path.into(), digest };
        let built = world.build("web", &recipe(base, "/etc/extra", "extra")).unwrap();
        assert_eq!(world.store.manifest(&built.image.digest).unwrap().layers.len(), 2);
    }
    let stale = Base::OciLayout { path: "layout".into(), digest: Digest::of(b"other") };
    let error = world.build("web", &recipe(stale, "/x", "x")).unwrap_err();
    assert!(shown(&error).contains("changed while the image was being built"));
    let base = Base::OciLayout { path: "layout:v2".into(), digest };
    let error = world.build("web", &recipe(base, "/x", "x")).unwrap_err();
    assert!(shown(&error).contains("has the images v1"), "{}", shown(&error));
}

#[test]
fn a_root_filesystem_in_an_archive_is_built_on() {
    let world = World::new();
    let files = world.path("files");
    std::fs::create_dir_all(files.join("etc")).unwrap();
    std::fs::write(files.join("etc/passwd"), "svc:x:7:8::/:/bin/sh\n").unwrap();
    std::fs::write(files.join(".wh.name"), "a name like any other").unwrap();
    let mut images = Vec::new();
    for (name, option) in [("a.tar", "--create"), ("a.tar.gz", "--gzip"), ("a.tar.xz", "--xz")] {
        let path = world.stack().join(name);
        let packed = Command::new("tar")
            .args(["--create", option, "--sort=name", "--mtime=@7", "--owner=0", "--group=0"])
            .args(["--exclude=.wh.name", "--file"])
            .arg(&path)
            .arg("--directory")
            .arg(&files)
            .arg(".")
            .status();
        assert!(packed.unwrap().success());
        let digest = copy::digest(&world.stack(), name).unwrap();
        let base = Base::Tarball { path: name.into(), digest };
        let mut wanted = recipe(base, "/etc/extra", "extra");
        wanted.user = Some("svc".into());
        let built = world.build("svc", &wanted).unwrap();
        assert_eq!(built.image.config.user, "7:8");
        assert_eq!(world.store.manifest(&built.image.digest).unwrap().layers.len(), 2);
        images.push(built.image.digest);
    }
    assert!(images.iter().all(|digest| *digest == images[0]), "however it is packed");
    let digest = copy::digest(&world.stack(), "a.tar").unwrap();
    let bytes = std::fs::read(world.stack().join("a.tar")).unwrap();
    std::fs::write(world.stack().join("cut.tar"), &bytes[..700]).unwrap();
    let cut = copy::digest(&world.stack(), "cut.tar").unwrap();
    for (path, digest, part) in [
        ("cut.tar", cut, "tarball(\"cut.tar\") is damaged"),
        ("none.tar", digest, "there is no such file"),
        ("../a.tar", digest, "leads out of"),
    ] {
        let base = Base::Tarball { path: path.into(), digest };
        let error = shown(&world.build("svc", &recipe(base, "/x", "x")).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
}
