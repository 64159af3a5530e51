//! A real image from Debian's mirror: nginx-light, built twice from one lock.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use kiln_image::build::Order;
use kiln_image::lock::{Lock, Sources};
use kiln_image::progress::Event;
use kiln_image::store::ImageStore;
use kiln_model::spec::image::{Base, Recipe, Step};

fn recipe(stack: &Path) -> Recipe {
    Recipe {
        packages: BTreeSet::from(["nginx-light".to_owned()]),
        steps: vec![Step::Copy {
            from: "site/".into(),
            to: "/srv/www".into(),
            digest: kiln_image::copy::digest(stack, "site/").expect("the site was written"),
            owner: None,
            mode: None,
        }],
        user: Some("www-data".into()),
        entrypoint: vec!["/usr/sbin/nginx".into()],
        ..Recipe::on(Base::Debian { suite: "bookworm".into() })
    }
}

/// Why the mirror can't be used, if it can't.
fn unreachable(sources: &Sources) -> Option<String> {
    let url = format!("{}/dists/bookworm/InRelease", sources.mirrors.main);
    sources.fetcher.fetch(&url, 4 << 20).err().map(|error| error.to_string())
}

#[test]
fn one_lock_gives_the_same_bytes_elsewhere_and_the_program_runs() {
    let name = "one_lock_gives_the_same_bytes_elsewhere_and_the_program_runs";
    let root = tempfile::tempdir().unwrap();
    let stack = root.path().join("stack");
    std::fs::create_dir_all(stack.join("site")).unwrap();
    std::fs::write(stack.join("site/index.html"), "<h1>v1</h1>").unwrap();
    let sources = Sources::of_root(root.path()).unwrap();
    if let Some(reason) = unreachable(&sources) {
        println!("skipped: {name}: {reason}");
        return;
    }
    let recipe = recipe(&stack);
    let mut lock = Lock::default();
    let started = Instant::now();
    lock.update([&recipe], &sources, false, &()).unwrap();
    println!("lock: {:?}", started.elapsed());
    lock.save(&stack).unwrap();
    let loaded = Lock::load(&stack).unwrap();
    assert_eq!(loaded, lock);

    let store = ImageStore::open(root.path()).unwrap();
    let order = Order { name: "web", recipe: &recipe, stack: &stack };
    let started = Instant::now();
    let progress = |event: Event<'_>| {
        if let Event::Warning(warning) = event {
            println!("warning: {warning}");
        }
    };
    let first = store.build(order, &lock, &sources, &progress).unwrap();
    println!("cold build: {:?}, {} bytes", started.elapsed(), first.image.size_bytes);
    assert!(!first.cached);
    assert_eq!(first.image.config.user, "33:33");
    let started = Instant::now();
    assert!(store.build(order, &lock, &sources, &()).unwrap().cached);
    println!("no-change build: {:?}", started.elapsed());
    assert!(store.verify().unwrap().is_empty());

    // Another root, filled from the first one's cache; a copy of the stack with other times.
    let other = tempfile::tempdir().unwrap();
    let elsewhere = other.path().join("deeper/stack");
    std::fs::create_dir_all(elsewhere.join("site")).unwrap();
    std::fs::write(elsewhere.join("site/index.html"), "<h1>v1</h1>").unwrap();
    std::fs::create_dir_all(other.path().join("cache")).unwrap();
    std::fs::rename(root.path().join("cache/sha256"), other.path().join("cache/sha256")).unwrap();
    let sources = Sources::of_root(other.path()).unwrap();
    let store = ImageStore::open(other.path()).unwrap();
    let order = Order { name: "web", recipe: &recipe, stack: &elsewhere };
    let started = Instant::now();
    let second = store.build(order, &loaded, &sources, &()).unwrap();
    println!("warm build: {:?}", started.elapsed());
    assert_eq!(second.image.digest, first.image.digest);
    assert_eq!(second.image.erofs_digest, first.image.erofs_digest);
    runs(&second.image.erofs);

    // The filesystem follows from the layers that other programs see.
    let whole = std::fs::read(&second.image.erofs).unwrap();
    std::fs::remove_file(&second.image.erofs).unwrap();
    let started = Instant::now();
    assert_eq!(store.derive(&second.image.digest, &()).unwrap(), second.image);
    println!("derived from the layers: {:?}", started.elapsed());
    assert!(std::fs::read(&second.image.erofs).unwrap() == whole);
}

/// Mounts the filesystem in a mount namespace of its own and starts the program in it.
fn runs(erofs: &Path) {
    let script = "mount -t erofs -o ro \"$0\" /mnt || exit 77; \
                  chroot /mnt /usr/sbin/nginx -v && cat /mnt/srv/www/index.html";
    let output = Command::new("unshare").args(["--mount", "sh", "-c", script]).arg(erofs).output();
    match output {
        Err(error) => println!("skipped: runs: unshare can't be run: {error}"),
        Ok(output) if output.status.code() == Some(77) => {
            println!("skipped: runs: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(String::from_utf8_lossy(&output.stdout).contains("<h1>v1</h1>"));
        }
    }
}
