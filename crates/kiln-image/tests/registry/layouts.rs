//! Images in directories and archives.

use kiln_image::debian::suite::native_architecture;
use kiln_image::oci::layout::{Layout, LayoutError};
use kiln_model::spec::image::Base;

use crate::{World, attach, blobs, recipe, shown};

#[test]
fn an_export_comes_back_with_all_that_is_about_it() {
    let world = World::new();
    let built = world.app();
    attach(&world.store, &built.image.digest, "note");
    let before = blobs(&world.path("root"));
    for target in ["layout", "layout.tar"] {
        let path = world.path(target);
        world.store.export(&built.image.digest, "app", &path).unwrap();
        let other = World::new();
        let (record, referrers) =
            other.store.import(&path, None, "taken", native_architecture(), &()).unwrap();
        assert_eq!((record.digest, referrers), (built.image.digest, 1));
        assert_eq!(other.store.get(&record.digest).unwrap().erofs_digest, built.image.erofs_digest);
        assert_eq!(blobs(&other.path("root")), before);
        assert!(other.store.verify().unwrap().is_empty());
        assert_eq!(other.store.list().unwrap()[0].name, "taken");
    }
    // The same image gives the same archive.
    let first = std::fs::read(world.path("layout.tar")).unwrap();
    world.store.export(&built.image.digest, "app", &world.path("again.tar")).unwrap();
    assert!(std::fs::read(world.path("again.tar")).unwrap() == first);
}

#[test]
fn a_directory_holds_several_images_by_their_tags() {
    let world = World::new();
    let (path, first) = (world.path("layout"), world.app());
    let second = world.build("web", &recipe(Base::Scratch, "/web", "v2")).unwrap();
    world.store.export(&first.image.digest, "app", &path).unwrap();
    let layout = Layout::of_directory(&path).unwrap();
    assert_eq!(layout.select(None, native_architecture()).unwrap(), first.image.digest);
    world.store.export(&second.image.digest, "web", &path).unwrap();
    let layout = Layout::of_directory(&path).unwrap();
    let select = |tag| layout.select(tag, native_architecture());
    assert_eq!(select(Some("app")).unwrap(), first.image.digest);
    assert_eq!(select(Some("web")).unwrap(), second.image.digest);
    let unclear = select(None).unwrap_err();
    assert!(unclear.to_string().contains("has the images app, web; name one as"), "{unclear}");
    assert!(select(Some("none")).is_err());
    // The same tag again takes the place of the old one.
    world.store.export(&second.image.digest, "app", &path).unwrap();
    let layout = Layout::of_directory(&path).unwrap();
    assert_eq!(layout.select(Some("app"), native_architecture()).unwrap(), second.image.digest);
}

#[test]
fn what_is_no_layout_or_was_altered_is_refused() {
    let world = World::new();
    let built = world.app();
    let (path, other) = (world.path("layout"), World::new());
    let import = || other.store.import(&path, None, "x", native_architecture(), &());
    std::fs::create_dir(&path).unwrap();
    assert!(shown(&import().unwrap_err()).contains("is not an OCI image layout"));
    std::fs::write(path.join("other"), "x").unwrap();
    let occupied = world.store.export(&built.image.digest, "app", &path).unwrap_err();
    assert!(matches!(occupied, LayoutError::Form { .. }), "{occupied}");
    assert!(!path.join("blobs").exists());
    std::fs::remove_file(path.join("other")).unwrap();
    world.store.export(&built.image.digest, "app", &path).unwrap();
    let layer = world.store.manifest(&built.image.digest).unwrap().layers[0].digest;
    let blob = path.join("blobs/sha256").join(layer.hex());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    assert!(shown(&import().unwrap_err()).contains("it was altered"));
    std::fs::remove_file(&blob).unwrap();
    assert!(shown(&import().unwrap_err()).contains("it has no blob"));
    std::fs::write(path.join("index.json"), "{").unwrap();
    assert!(shown(&import().unwrap_err()).contains("index.json is not a document"));
    assert!(other.store.list().unwrap().is_empty() && !other.store.holds(&built.image.digest));
    let archive = world.path("cut.tar");
    world.store.export(&built.image.digest, "app", &archive).unwrap();
    let whole = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    assert!(other.store.import(&archive, None, "x", native_architecture(), &()).is_err());
}
