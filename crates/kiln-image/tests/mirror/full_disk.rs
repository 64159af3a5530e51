//! A build on a disk that is full.

use std::path::Path;

use kiln_image::build::Order;
use kiln_image::store::ImageStore;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::{World, recipe, shown};

/// Gives this thread a mount namespace of its own with an empty disk of 64 KiB at `path`.
fn small_disk(path: &Path) -> Result<(), rustix::io::Errno> {
    // SAFETY: only this thread's mount namespace and working directory are unshared; no file
    // descriptors or other resources that Rust code relies on are affected.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(c"size=64k"))
}

#[test]
fn a_full_disk_is_said_and_leaves_no_image() {
    let world = World::with_app();
    let lock = world.lock(&["app"]).unwrap();
    let disk = world.root.path().join("small");
    std::fs::create_dir(&disk).unwrap();
    let tried = std::thread::scope(|scope| {
        let build = || {
            small_disk(&disk)?;
            let store = ImageStore::open(&disk).unwrap();
            // Downloads go to the large disk; the image has no room on the small one.
            let recipe = recipe(&["app"]);
            let order = Order { name: "app", recipe: &recipe, stack: world.root.path() };
            let error = store.build(order, &lock, &world.sources(), &()).unwrap_err();
            assert!(store.list().unwrap().is_empty() && store.verify().unwrap().is_empty());
            let left = std::fs::read_dir(disk.join("cache/tmp")).unwrap().count();
            Ok::<_, rustix::io::Errno>((shown(&error), left))
        };
        scope.spawn(build).join().unwrap()
    });
    match tried {
        Err(error) => println!("skipped: a_full_disk_is_said_and_leaves_no_image: {error}"),
        Ok((text, left)) => {
            assert!(text.contains("No space left on device"), "{text}");
            assert_eq!(left, 0, "temporary files are taken away");
        }
    }
}
