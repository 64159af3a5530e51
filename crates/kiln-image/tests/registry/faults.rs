//! Registries on bad days.

use std::time::{Duration, Instant};

use kiln_image::debian::suite::native_architecture;
use kiln_image::oci::registry::{Credentials, Registry, RegistryError};
use kiln_image::oci::transfer::TransferError;
use kiln_model::spec::image::Base;

use crate::server::{Fault, Server};
use crate::{PATIENCE, World, attach, blobs, recipe, reference, registry, shown};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of several megabytes that do not compress, so that its layer goes in pieces.
fn large(world: &World) -> kiln_image::build::Built {
    let text: String =
        (0..700_000_u64).map(|n| kiln_model::digest::Digest::of(&n.to_le_bytes()).hex()).collect();
    world.build("large", &recipe(Base::Scratch, "/large", &text)).unwrap()
}

fn pull(world: &World, from: &str) -> Result<kiln_image::oci::transfer::Pulled, TransferError> {
    let reference = reference(from);
    world.store.pull(&registry(), &reference, "pulled", native_architecture(), &())
}

#[test]
fn an_image_comes_back_byte_for_byte() {
    let (world, server) = (World::new(), Server::start());
    let built = world.app();
    let note = attach(&world.store, &built.image.digest, "note");
    let about_note = attach(&world.store, &note, "note about the note");
    let there = reference(format!("{}/team/app:v1", server.host()));
    let pushed = world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    assert_eq!((pushed.digest, pushed.referrers), (built.image.digest, 2));
    let before = blobs(&world.path("root"));
    world.forget();
    let pulled = pull(&world, &there.to_string()).unwrap();
    assert_eq!(pulled.image, built.image, "also the filesystem is the same again");
    assert_eq!(pulled.referrers, 2);
    assert_eq!(blobs(&world.path("root")), before);
    assert!(world.store.verify().unwrap().is_empty());
    let found = world.store.referrers(&built.image.digest).unwrap();
    assert_eq!(found.iter().map(|(digest, _)| *digest).collect::<Vec<_>>(), [note]);
    let needed = world.store.blobs_of(&built.image.digest).unwrap();
    assert!(needed.contains(&about_note));
    assert_eq!(needed.len(), before.len());
    let listed = world.store.list().unwrap();
    assert_eq!((listed[0].name.as_str(), listed.len()), ("pulled", 1));
    assert_eq!(listed[0].reference, Some(there.to_string()));
    // Nothing of it is sent again.
    server.log();
    world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    assert!(
        server.log().iter().all(|line| !line.starts_with("POST") && !line.starts_with("PATCH"))
    );
}

#[test]
fn artifacts_are_listed_under_a_tag_where_the_registry_keeps_no_account() {
    let (world, server) = (World::new(), Server::start());
    server.without_referrers();
    let built = world.app();
    let there = reference(format!("{}/app:v1", server.host()));
    for text in ["one", "two"] {
        attach(&world.store, &built.image.digest, text);
        world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    }
    let tag = format!("sha256-{}", built.image.digest.hex());
    let index: serde_json::Value =
        serde_json::from_slice(&server.manifest("app", &tag).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(index["manifests"][0]["artifactType"], "application/vnd.test.note");
    world.forget();
    assert_eq!(pull(&world, &there.to_string()).unwrap().referrers, 2);
}

#[test]
fn cut_connections_are_resumed_and_busy_servers_asked_again() {
    let (world, server) = (World::new(), Server::start());
    let built = large(&world);
    let there = reference(format!("{}/large:v1", server.host()));
    server.fail("POST /v2/large/blobs/", [Fault::Status(500, ""), Fault::Status(503, "")]);
    server.fail(
        "PATCH /v2/large/blobs/",
        [Fault::CutRequest(5 << 20), Fault::Status(502, ""), Fault::CutRequest(3 << 20)],
    );
    server.fail("PUT /v2/large/manifests/", [Fault::Status(429, "Retry-After: 1")]);
    let started = Instant::now();
    world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "the server was left alone for a second");
    let log = server.log();
    let asked = |start: &str| log.iter().filter(|line| line.starts_with(start)).count();
    assert!(asked("GET /v2/large/blobs/uploads/") >= 3, "{log:?}");
    let manifest = world.store.manifest(&built.image.digest).unwrap();
    assert!(manifest.layers[0].size > 20 << 20);
    world.forget();
    let layer = format!("GET /v2/large/blobs/{}", manifest.layers[0].digest);
    server.fail(&layer, [Fault::CutAnswer(1 << 20), Fault::Status(500, ""), Fault::CutAnswer(9)]);
    pull(&world, &there.to_string()).unwrap();
    let log = server.log();
    assert!(log.contains(&format!("{layer} bytes={}-", 1 << 20)), "{log:?}");
    assert!(log.contains(&format!("{layer} bytes={}-", (1 << 20) + 9)), "{log:?}");
}

#[test]
fn an_interrupted_pull_goes_on_where_it_stopped() {
    let (world, server) = (World::new(), Server::start());
    let built = large(&world);
    let there = reference(format!("{}/large:v1", server.host()));
    world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    let manifest = world.store.manifest(&built.image.digest).unwrap();
    world.forget();
    let layer = format!("GET /v2/large/blobs/{}", manifest.layers[0].digest);
    let cut = [Fault::CutAnswer(2 << 20)].into_iter();
    server.fail(&layer, cut.chain(std::iter::repeat_n(Fault::Status(500, ""), 3)));
    let error = pull(&world, &there.to_string()).unwrap_err();
    assert!(shown(&error).contains("status 500"), "{}", shown(&error));
    assert!(world.store.list().unwrap().is_empty() && !world.store.holds(&built.image.digest));
    assert!(world.store.verify().unwrap().is_empty());
    server.log();
    pull(&world, &there.to_string()).unwrap();
    assert!(server.log().contains(&format!("{layer} bytes={}-", 2 << 20)));
}

#[test]
fn refusals_are_clear_and_leave_nothing() {
    let (world, server) = (World::new(), Server::start());
    let built = world.app();
    let there = reference(format!("{}/app:v1", server.host()));
    let push = || world.store.push(&registry(), &built.image.digest, &there, &());
    let again = |code| std::iter::repeat_n(Fault::Status(code, ""), 3);
    server.fail("HEAD", [Fault::Status(403, "")]);
    let error = shown(&push().unwrap_err());
    assert!(error.contains("does not let this login write to app (status 403)"), "{error}");
    push().unwrap();
    let other = World::new();
    for (faults, part) in [
        (again(500).collect::<Vec<_>>(), "status 500"),
        (again(429).collect(), "status 429"),
        (vec![Fault::Status(401, ""); 1], "wants a login that is not known"),
        (vec![Fault::CutAnswer(0); 3], "3 attempts"),
        (vec![Fault::Status(418, "")], "status 418"),
    ] {
        server.fail("GET /v2/app/manifests/v1", faults);
        let error = pull(&other, &there.to_string()).unwrap_err();
        assert!(shown(&error).contains(part), "{}", shown(&error));
    }
    let missing = pull(&other, &format!("{}/none:v1", server.host())).unwrap_err();
    assert!(shown(&missing).contains("none:v1 does not exist in the registry"));
    assert!(blobs(&other.path("root")).is_empty() && other.store.list().unwrap().is_empty());
    let gone = Server::start().host();
    let nobody = pull(&other, &format!("{gone}/app")).unwrap_err();
    assert!(matches!(nobody, TransferError::Registry(RegistryError::Unreachable { .. })));
}

#[test]
fn altered_bytes_are_refused_and_nothing_of_them_kept() {
    let (world, server) = (World::new(), Server::start());
    let built = world.app();
    let there = reference(format!("{}/app:v1", server.host()));
    world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    let other = World::new();
    server.fail("GET /v2/app/blobs/", [Fault::Flip, Fault::Flip]);
    let error = shown(&pull(&other, &there.to_string()).unwrap_err());
    assert!(error.contains("has the checksum"), "{error}");
    let pinned = there.at(built.image.digest).to_string();
    server.fail("GET /v2/app/manifests/", [Fault::Flip]);
    let error = shown(&pull(&other, &pinned).unwrap_err());
    assert!(error.contains("has the checksum"), "{error}");
    assert!(!other.store.holds(&built.image.digest) && other.store.verify().unwrap().is_empty());
    pull(&other, &pinned).unwrap();
    // What is altered here does not go out.
    let layer = world.store.manifest(&built.image.digest).unwrap().layers[0].digest;
    std::fs::remove_file(world.store.blob(&layer)).unwrap();
    std::fs::write(world.store.blob(&layer), "evil").unwrap();
    let elsewhere = reference(format!("{}/other:v1", Server::start().host()));
    let fresh = Server::start();
    let elsewhere = kiln_image::oci::reference::Reference { host: fresh.host(), ..elsewhere };
    assert!(world.store.push(&registry(), &built.image.digest, &elsewhere, &()).is_err());
}

#[test]
fn logins_get_tokens_and_are_asked_for_where_they_miss() {
    let (world, server) = (World::new(), Server::start());
    let built = world.app();
    let there = reference(format!("{}/app:v1", server.host()));
    // user:secret
    server.with_login("dXNlcjpzZWNyZXQ=");
    let push = |credentials| {
        let registry = Registry::new(PATIENCE, credentials);
        world.store.push(&registry, &built.image.digest, &there, &())
    };
    let error = shown(&push(Credentials::default()).unwrap_err());
    assert!(error.contains("wants a login that is not known") && error.contains("docker login"));
    let file = world.path("auth.json");
    let write = |auth: &str| {
        let text = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.host());
        std::fs::write(&file, text).unwrap();
    };
    write("dXNlcjp3cm9uZw==");
    let error = shown(&push(Credentials::of_file(&file)).unwrap_err());
    assert!(error.contains("wants a login that is refused"), "{error}");
    write("dXNlcjpzZWNyZXQ=");
    push(Credentials::of_file(&file)).unwrap();
    let log = server.log();
    let asked = log.iter().find(|line| line.starts_with("GET /token")).unwrap();
    assert!(asked.contains("scope=repository:app:pull,push"), "{asked}");
}

#[test]
fn blobs_are_taken_from_another_repository() {
    let (world, server) = (World::new(), Server::start());
    let built = world.app();
    let first = reference(format!("{}/first:v1", server.host()));
    world.store.push(&registry(), &built.image.digest, &first, &()).unwrap();
    // The registry of the test has one pool of blobs: only a blob that is not found is asked for.
    server.fail("HEAD /v2/second/", std::iter::repeat_n(Fault::Status(404, ""), 2));
    server.log();
    let second = reference(format!("{}/second:v1", server.host()));
    world.store.push(&registry(), &built.image.digest, &second, &()).unwrap();
    let log = server.log();
    assert_eq!(log.iter().filter(|line| line.contains("mount=sha256:")).count(), 2, "{log:?}");
    assert!(log.iter().all(|line| !line.contains("digest=")), "{log:?}");
}

#[test]
fn of_a_list_the_image_for_this_machine_is_taken() {
    let (world, server) = (World::new(), Server::start());
    let built = world.app();
    let there = reference(format!("{}/app:single", server.host()));
    world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    let size = world.store.bytes(&built.image.digest).unwrap().len();
    let here = kiln_image::oci::go_architecture(native_architecture());
    let entry = |architecture: &str, digest: String| {
        serde_json::json!({ "mediaType": MANIFEST, "digest": digest, "size": size,
            "platform": { "os": "linux", "architecture": architecture } })
    };
    let list = |entries: Vec<serde_json::Value>| {
        let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
        let index =
            serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
        server.put_manifest("app", "many", kind, &serde_json::to_vec(&index).unwrap());
    };
    let other = entry("s390x", format!("sha256:{}", "0".repeat(64)));
    list(vec![other.clone(), entry(here, built.image.digest.to_string())]);
    let elsewhere = World::new();
    let many = format!("{}/app:many", server.host());
    assert_eq!(pull(&elsewhere, &many).unwrap().image.digest, built.image.digest);
    list(vec![other]);
    let error = shown(&pull(&elsewhere, &many).unwrap_err());
    assert!(error.contains("it has linux/s390x"), "{error}");
}

#[test]
fn a_reference_to_another_digest_is_refused() {
    let (world, server) = (World::new(), Server::start());
    let built = world.app();
    let other = kiln_model::digest::Digest::of(b"other");
    let there = reference(format!("{}/app:v1", server.host())).at(other);
    let refused = world.store.push(&registry(), &built.image.digest, &there, &());
    assert!(matches!(refused, Err(TransferError::OtherDigest { .. })));
    assert!(server.log().is_empty());
    // An artifact is no image to be pulled.
    let note = attach(&world.store, &built.image.digest, "note");
    let there = reference(format!("{}/app:v1", server.host()));
    world.store.push(&registry(), &built.image.digest, &there, &()).unwrap();
    let other = World::new();
    let pulled = other.store.pull(&registry(), &there.at(note), "note", native_architecture(), &());
    assert!(shown(&pulled.unwrap_err()).contains("it is an artifact"));
}
