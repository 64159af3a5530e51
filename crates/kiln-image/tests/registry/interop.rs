//! What other programs make of Kiln's images, and Kiln of theirs.

use std::path::Path;
use std::process::Command;

use kiln_image::debian::suite::native_architecture;
use kiln_image::lock::Lock;
use kiln_model::spec::image::{Base, Step};
use serde_json::Value;

use crate::distribution::{Distribution, run};
use crate::{Bases, World, attach, recipe, reference, registry};

/// Debian's registry, or a word about why the test is skipped.
fn distribution(name: &str, directory: &Path) -> Option<Distribution> {
    for program in ["skopeo", "umoci", "buildah"] {
        if Command::new(program).arg("--version").output().is_err() {
            println!("skipped: {name}: {program} is not installed");
            return None;
        }
    }
    match Distribution::start(directory) {
        Ok(distribution) => Some(distribution),
        Err(reason) => {
            println!("skipped: {name}: {reason}");
            None
        }
    }
}

#[test]
fn other_programs_take_what_kiln_pushes() {
    let world = World::new();
    let name = "other_programs_take_what_kiln_pushes";
    let Some(distribution) = distribution(name, world.directory.path()) else { return };
    let mut wanted = recipe(Base::Scratch, "/bin/app", "v1");
    wanted.steps.push(Step::Symlink { path: "/bin/link".into(), target: "app".into() });
    let built = world.build("app", &wanted).unwrap();
    let note = attach(&world.store, &built.image.digest, "note");
    let there = reference(format!("{}/team/app:v1", distribution.host));
    let pushed = world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    assert_eq!(pushed.referrers, 1);

    let directory = world.directory.path();
    let url = format!("docker://{there}");
    let inspected = run("skopeo", &["inspect", "--tls-verify=false", &url], directory).unwrap();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], built.image.digest.to_string());
    let copy = ["copy", "--src-tls-verify=false", &url, "oci:copied:v1"];
    run("skopeo", &copy, directory).unwrap();
    let copied = std::fs::read_to_string(world.path("copied/index.json")).unwrap();
    assert!(copied.contains(&built.image.digest.to_string()), "{copied}");
    run("umoci", &["unpack", "--image", "copied:v1", "bundle"], directory).unwrap();
    let rootfs = world.path("bundle/rootfs");
    assert_eq!(std::fs::read_to_string(rootfs.join("bin/link")).unwrap(), "v1");
    assert!(rootfs.join("proc").is_dir() && rootfs.join("etc/passwd").is_file());
    let config = std::fs::read_to_string(world.path("bundle/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["/bin/app"]));

    world.forget();
    let pulled = world.store.pull(&registry(), &there, "app", native_architecture(), &()).unwrap();
    assert_eq!((pulled.image, pulled.referrers), (built.image.clone(), 1));
    assert!(world.store.blob(&note).is_file());
    // Another repository takes the blobs from the first.
    let second = reference(format!("{}/other:v1", distribution.host));
    world.store.push(&registry(), &built.image.digest, &second, &()).unwrap();
}

#[test]
fn large_blobs_go_in_pieces() {
    let world = World::new();
    let Some(distribution) = distribution("large_blobs_go_in_pieces", world.directory.path())
    else {
        return;
    };
    let text: String =
        (0..700_000_u64).map(|n| kiln_model::digest::Digest::of(&n.to_le_bytes()).hex()).collect();
    let built = world.build("large", &recipe(Base::Scratch, "/large", &text)).unwrap();
    let there = reference(format!("{}/large:v1", distribution.host));
    world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    world.forget();
    let pulled = world.store.pull(&registry(), &there, "l", native_architecture(), &()).unwrap();
    assert_eq!(pulled.image, built.image);
}

/// An image of buildah with two layers: a removal, an owner, a program that gives rights, a user.
fn pushed_by_buildah(world: &World, host: &str, format: &str, compression: &str) -> String {
    let directory = world.directory.path();
    let make = |from: &str, args: &[&[&str]], to: &str| {
        let container = run("buildah", &["from", "--pull-never", from], directory).unwrap();
        let container = container.trim();
        for args in args {
            let args: Vec<&str> =
                args.iter().map(|a| if *a == "CONTAINER" { container } else { a }).collect();
            run("buildah", &args, directory).unwrap();
        }
        let commit = ["commit", "--rm", "--format", format, container, to];
        run("buildah", &commit, directory).unwrap();
    };
    let files = world.path("files");
    std::fs::create_dir_all(files.join("etc")).unwrap();
    std::fs::create_dir_all(files.join("data")).unwrap();
    std::fs::write(files.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44::/:/x\n")
        .unwrap();
    std::fs::write(files.join("etc/group"), "root:x:0:\nweb:x:44:\n").unwrap();
    std::fs::write(files.join("data/old"), "old").unwrap();
    std::fs::write(files.join("data/kept"), "kept").unwrap();
    let files = files.to_str().unwrap().to_owned();
    let setuid = world.path("su");
    std::fs::write(&setuid, "su").unwrap();
    make("scratch", &[&["copy", "CONTAINER", &files, "/"]], "first");
    let mounted = format!(
        "set -e; m=$(buildah mount CONTAINER); rm $m/data/old; install -o 33 -m 4755 {} $m/su; \
         ln $m/su $m/su2; buildah umount CONTAINER",
        setuid.display()
    );
    let container =
        run("buildah", &["from", "--pull-never", "localhost/first"], directory).unwrap();
    let container = container.trim();
    let script = mounted.replace("CONTAINER", container);
    run("sh", &["-c", &script], directory).unwrap();
    let config = [
        "config",
        "--user",
        "web",
        "--env",
        "MODE=base",
        "--env",
        "PATH=/bin",
        "--cmd",
        "serve",
        "--entrypoint",
        "[\"/su\"]",
        "--port",
        "80",
        "--label",
        "team=blue",
        "--stop-signal",
        "SIGQUIT",
        "--workingdir",
        "/data",
        container,
    ];
    run("buildah", &config, directory).unwrap();
    run("buildah", &["commit", "--rm", "--format", format, container, "second"], directory)
        .unwrap();
    let url = format!("docker://{host}/foreign:{format}-{compression}");
    let mut push = vec![
        "push",
        "--tls-verify=false",
        "--format",
        if format == "oci" { "oci" } else { "v2s2" },
    ];
    push.extend(["--compression-format", compression, "localhost/second", &url]);
    run("buildah", &push, directory).unwrap();
    format!("{host}/foreign:{format}-{compression}")
}

#[test]
fn kiln_takes_what_other_programs_push() {
    let world = World::new();
    let name = "kiln_takes_what_other_programs_push";
    let Some(distribution) = distribution(name, world.directory.path()) else { return };
    for (format, compression) in [("oci", "gzip"), ("docker", "gzip"), ("oci", "zstd")] {
        let text = pushed_by_buildah(&world, &distribution.host, format, compression);
        let there = reference(&text);
        let pulled = world.store.pull(&registry(), &there, "foreign", native_architecture(), &());
        let pulled = pulled.unwrap();
        assert_eq!(pulled.record.reference, Some(text.clone()));
        let skopeo = ["inspect", "--tls-verify=false", &format!("docker://{text}")];
        let inspected = run("skopeo", &skopeo, world.directory.path()).unwrap();
        assert!(inspected.contains(&pulled.image.digest.to_string()));

        // The lock names it; no network is needed to build on it.
        let mut lock = Lock::default();
        let architecture = native_architecture();
        let base = Base::Oci { reference: text.clone() };
        let wanted = recipe(base, "/etc/own", "own");
        lock.pin([&wanted], &registry(), architecture, false, &()).unwrap();
        assert_eq!(lock.manifest(&text, architecture), Some(pulled.image.digest));
        lock.save(&world.stack()).unwrap();
        assert_eq!(Lock::load(&world.stack()).unwrap(), lock);
        let built = world.build_on("own", &wanted, &Bases::new(), &lock).unwrap();
        let config = &built.image.config;
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("33:44", "/data"));
        assert_eq!(config.argv(), ["/etc/own"], "an entrypoint of its own replaces both");
        assert_eq!(config.environment()["MODE"], "own");
        assert_eq!(config.environment()["PATH"], "/bin");
        assert_eq!(
            (config.labels["team"].as_str(), config.stop_signal.as_str()),
            ("blue", "SIGQUIT")
        );
        assert!(config.exposed_ports.keys().any(|port| port.starts_with("80")), "{config:?}");
        assert!(built.warnings.is_empty(), "{:?}", built.warnings);
        let below = world.store.manifest(&pulled.image.digest).unwrap();
        let manifest = world.store.manifest(&built.image.digest).unwrap();
        assert_eq!(manifest.layers.len(), below.layers.len() + 1);
        mounted(&built.image.erofs);

        // What was built goes back, and other programs unpack it.
        let back = reference(format!("{}/own:{format}-{compression}", distribution.host));
        world.store.push(&registry(), &built.image.digest, &back, &()).unwrap();
        if compression == "gzip" {
            let directory = world.directory.path();
            let (to, bundle) = (format!("oci:own-{format}:v1"), format!("bundle-{format}"));
            let url = format!("docker://{back}");
            run("skopeo", &["copy", "--src-tls-verify=false", &url, &to], directory).unwrap();
            let image = format!("own-{format}:v1");
            run("umoci", &["unpack", "--image", &image, &bundle], directory).unwrap();
            let rootfs = world.path(&bundle).join("rootfs");
            assert!(rootfs.join("etc/own").is_file() && !rootfs.join("data/old").exists());
        }
    }
}

/// Mounts the filesystem in a mount namespace of its own and looks at it.
fn mounted(erofs: &Path) {
    let script = "mount -t erofs -o ro \"$0\" /mnt || exit 77; cd /mnt; set -e; \
                  test ! -e data/old; test \"$(cat data/kept etc/own)\" = keptown; \
                  test \"$(stat -c %a,%u,%h su)\" = 755,33,2; test -d proc; test -f etc/hosts";
    let output = Command::new("unshare").args(["--mount", "sh", "-c", script]).arg(erofs).output();
    match output {
        Err(error) => println!("skipped: mounted: unshare can't be run: {error}"),
        Ok(output) if output.status.code() == Some(77) => {
            println!("skipped: mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output) => assert!(output.status.success(), "{output:?}"),
    }
}
