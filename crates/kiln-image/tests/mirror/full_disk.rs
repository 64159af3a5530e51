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

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_download_is_said() {
    let test = "a_disk_that_is_full_in_the_middle_of_a_download_is_said";
    let world = World::new();
    // Random bytes do not pack: larger than the disk.
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let mut data = tar::Builder::new(Vec::new());
    let content: Vec<u8> = noise.take(200 << 10).collect();
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    data.append_data(&mut header, "./big", &content[..]).unwrap();
    let mut big = crate::archive::TestPackage::new("app", "");
    let control = "Package: app\nVersion: 1.0-1\nArchitecture: all\n";
    big.deb = crate::archive::deb(control, &data.into_inner().unwrap());
    let base = crate::archive::TestPackage::new("base-files", "");
    crate::archive::publish(&world.server, &world.signer, &[base, big]);
    let lock = world.lock(&["app"]).unwrap();
    let disk = world.root.path().join("small");
    std::fs::create_dir(&disk).unwrap();
    let tried = std::thread::scope(|scope| {
        let fetch = || {
            small_disk(&disk)?;
            let mut sources = world.sources();
            let cache = kiln_image::fetch::Cache::open(disk.join("cache")).unwrap();
            sources.fetcher =
                kiln_image::fetch::Fetcher::new(cache, kiln_image::fetch::Patience::default());
            let store = ImageStore::open(world.root.path()).unwrap();
            let recipe = recipe(&["app"]);
            let order = Order { name: "app", recipe: &recipe, stack: world.root.path() };
            let error = store.build(order, &lock, &sources, &()).unwrap_err();
            let whole = std::fs::read_dir(disk.join("cache/sha256")).unwrap().count();
            Ok::<_, rustix::io::Errno>((shown(&error), whole))
        };
        scope.spawn(fetch).join().unwrap()
    });
    match tried {
        Err(error) => println!("skipped: {test}: {error}"),
        Ok((said, whole)) => {
            assert!(
                said.contains("can't use the cache") && said.contains("No space left"),
                "{said}"
            );
            assert!(whole <= 1, "nothing half fetched counts as whole");
        }
    }
    // The same build goes through where there is room.
    world.build(&["app"], &lock).unwrap();
}
