//! Real images from Debian's mirror: what their packages' scripts would do is covered.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use kiln_image::build::Order;
use kiln_image::lock::{Lock, Sources};
use kiln_image::progress::Event;
use kiln_image::store::{ImageFiles, ImageStore};
use kiln_model::spec::image::{Base, Recipe};

fn recipe(suite: &str, packages: &[&str]) -> Recipe {
    Recipe {
        packages: packages.iter().map(ToString::to_string).collect::<BTreeSet<_>>(),
        entrypoint: vec!["/bin/true".into()],
        ..Recipe::on(Base::Debian { suite: suite.into() })
    }
}

/// Whether the mirror can be used; says so where not.
fn is_reachable(sources: &Sources, test: &str) -> bool {
    let url = format!("{}/dists/bookworm/InRelease", sources.mirrors.main);
    match sources.fetcher.fetch(&url, 4 << 20) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {test}: {error}");
            false
        }
    }
}

/// Locks and builds an image; what it is, and what was warned of.
fn built(root: &Path, recipe: &Recipe, sources: &Sources) -> (ImageFiles, Vec<String>) {
    let mut lock = Lock::default();
    lock.update([recipe], sources, false, &()).expect("the packages can be had");
    let store = ImageStore::open(root).expect("a store below the root");
    let order = Order { name: "image", recipe, stack: root };
    let warnings = Mutex::new(Vec::new());
    let progress = |event: Event<'_>| {
        if let Event::Warning(warning) = event {
            warnings.lock().expect("nobody has panicked").push(warning.to_owned());
        }
    };
    let built = store.build(order, &lock, sources, &progress).expect("an image");
    (built.image, warnings.into_inner().expect("nobody has panicked"))
}

/// Runs programs in the image, mounted in a mount namespace of its own.
fn run(image: &ImageFiles, test: &str, script: &str) -> Option<String> {
    let script = format!("mount -t erofs -o ro \"$0\" /mnt || exit 77; {script}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &script]).arg(&image.erofs);
    match command.output() {
        Err(error) => println!("skipped: {test}: unshare can't be run: {error}"),
        Ok(output) if output.status.code() == Some(77) => {
            println!("skipped: {test}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            return Some(String::from_utf8_lossy(&output.stdout).into_owned());
        }
    }
    None
}

#[test]
fn usual_images_need_no_script() {
    let test = "usual_images_need_no_script";
    let root = tempfile::tempdir().unwrap();
    let sources = Sources::of_root(root.path()).unwrap();
    if !is_reachable(&sources, test) {
        return;
    }
    for packages in [
        &["nginx", "ca-certificates"][..],
        &["dash", "postgresql-15"],
        &["redis-server"],
        &["python3-minimal"],
    ] {
        let (image, warnings) = built(root.path(), &recipe("bookworm", packages), &sources);
        assert!(warnings.is_empty(), "{packages:?}: {warnings:#?}");
        let script = match packages[0] {
            "nginx" => {
                // Each link by hash is the one that OpenSSL would make.
                "chroot /mnt /usr/sbin/nginx -v; test -L /mnt/etc/nginx/sites-enabled/default; \
                 test $(stat -c %u:%g:%a /mnt/var/log/nginx/error.log) = 33:4:640; \
                 cd /mnt/etc/ssl/certs; test $(ls *.0 | wc -l) -gt 100; for link in *.[0-9]; do \
                 hash=$(chroot /mnt openssl x509 -noout -hash -in /etc/ssl/certs/$link); \
                 test $hash = ${link%.*}; done"
            }
            // Its script makes this link, which the package has already.
            "dash" => {
                "test $(readlink /mnt/bin/sh) = dash; test ! -e /mnt/bin/sh.distrib; \
                 chroot /mnt /bin/sh -c '/usr/lib/postgresql/15/bin/postgres --version'"
            }
            "redis-server" => "chroot /mnt /usr/bin/redis-server --version",
            _ => "chroot /mnt /usr/bin/python3 -c 'import sys; print(sys.version)'",
        };
        run(&image, test, script);
    }
}

#[test]
fn java_trusts_the_authorities() {
    let test = "java_trusts_the_authorities";
    if std::env::var_os("KILN_LARGE_IMAGES").is_none() {
        println!("skipped: {test}: KILN_LARGE_IMAGES is not set");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let sources = Sources::of_root(root.path()).unwrap();
    if !is_reachable(&sources, test) {
        return;
    }
    let recipe = recipe("bookworm", &["openjdk-17-jre-headless"]);
    let (image, warnings) = built(root.path(), &recipe, &sources);
    assert!(warnings.is_empty(), "{warnings:#?}");
    let script = "mount -t proc proc /mnt/proc; \
                  chroot /mnt /usr/bin/keytool -list -cacerts -storepass changeit";
    if let Some(text) = run(&image, test, script) {
        assert!(text.contains("debian:isrg_root_x1.pem"), "{text}");
    }
}

#[test]
fn larger_images_need_no_script() {
    let test = "larger_images_need_no_script";
    if std::env::var_os("KILN_LARGE_IMAGES").is_none() {
        println!("skipped: {test}: KILN_LARGE_IMAGES is not set");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let sources = Sources::of_root(root.path()).unwrap();
    if !is_reachable(&sources, test) {
        return;
    }
    let bookworm = ["nginx-light", "mariadb-server", "haproxy", "php-fpm", "nodejs", "git", "curl"];
    let trixie = ["nginx", "postgresql-17", "redis-server", "python3", "apache2", "ruby"];
    let bookworm = bookworm.map(|package| ("bookworm", package));
    let trixie = trixie.map(|package| ("trixie", package));
    for (suite, package) in bookworm.into_iter().chain(trixie) {
        let (_, warnings) = built(root.path(), &recipe(suite, &[package]), &sources);
        assert!(warnings.is_empty(), "{package} of {suite}: {warnings:#?}");
    }
}
