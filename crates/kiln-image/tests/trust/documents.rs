//! The statements as they stand in `golden/`: read the difference before you commit it.
//! `UPDATE_GOLDEN=1 cargo test -p kiln-image --test trust` writes them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_image::attest::materials::Materials;
use kiln_image::attest::provenance::{self, Build};
use kiln_image::attest::{Kind, Statement, Subject, attestations, spdx};
use kiln_image::erofs::{self, Options};
use kiln_image::lock::Lock;
use kiln_image::tree::{Inode, Metadata, Tree};
use kiln_model::digest::Digest;
use kiln_model::spec::image::{Base, Recipe, Step};
use serde_json::Value;

use crate::world::{World, passed, recipe, test};

const LOCK: &str = r#"{
  "version": 1,
  "debian": [{
    "suite": "bookworm", "architecture": "amd64", "request": ["libstdc++6", "nginx-light"],
    "archives": [
      {"suite":"bookworm","mirror":"http://deb.debian.org/debian","date":"Sat, 11 Jul 2026 10:16:37 UTC","release":"sha256:1111111111111111111111111111111111111111111111111111111111111111"},
      {"suite":"bookworm-security","mirror":"http://deb.debian.org/debian-security","date":"Mon, 13 Jul 2026 08:00:00 UTC","release":"sha256:2222222222222222222222222222222222222222222222222222222222222222"}
    ],
    "packages": [
      {"name":"libstdc++6","version":"12.2.0-14+deb12u1","architecture":"amd64","sha256":"sha256:3333333333333333333333333333333333333333333333333333333333333333","size":613000,"suite":"bookworm","filename":"pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_amd64.deb"},
      {"name":"nginx-light","version":"1:1.22.1-9","architecture":"all","sha256":"sha256:4444444444444444444444444444444444444444444444444444444444444444","size":98000,"suite":"bookworm-security","filename":"pool/updates/main/n/nginx/nginx-light_1.22.1-9_all.deb"}
    ]
  }],
  "copies": []
}"#;

const STATUS: &str = "Package: libstdc++6
Status: install ok installed
Maintainer: Debian GCC Maintainers <debian-gcc@lists.debian.org>
Homepage: http://gcc.gnu.org/
Description: the library

Package: nginx-light
Status: install ok installed
Maintainer: Jane Doe <jane@example.org>
Description: the server

";

const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2026 somebody
License: BSD-2-clause

Files: debian/*
Copyright: 2026 somebody else
License: GPL-2+ or Expat
";

fn debian_recipe() -> Recipe {
    let digest = Digest::of(b"site");
    Recipe {
        packages: BTreeSet::from(["libstdc++6".into(), "nginx-light".into()]),
        steps: vec![
            Step::Copy {
                from: "site/".into(),
                to: "/srv/www".into(),
                digest,
                owner: None,
                mode: None,
            },
            Step::File {
                path: "/etc/motd".into(),
                content: "hello\n".into(),
                owner: None,
                mode: None,
            },
        ],
        entrypoint: vec!["/usr/sbin/nginx".into()],
        ..Recipe::on(Base::Debian { suite: "bookworm".into() })
    }
}

/// The lock and a filesystem that says what such packages say.
fn inputs(directory: &Path) -> (Lock, PathBuf) {
    std::fs::write(directory.join("kiln.lock"), LOCK).unwrap();
    let mut tree = Tree::new();
    let text = |text: &str| Inode::file(Metadata::new(0o644), text.as_bytes());
    for (path, content) in [
        ("var/lib/dpkg/status", STATUS),
        ("usr/share/doc/nginx-common/copyright", COPYRIGHT),
        ("usr/share/doc/libstdc++6/copyright", "An old text without a form."),
    ] {
        let parent = path.rsplit_once('/').unwrap().0;
        tree.make_directories(parent, &Metadata::new(0o755)).unwrap();
        tree.insert(path, text(content)).unwrap();
    }
    let link = Inode::symlink(Metadata::new(0o777), "nginx-common");
    tree.insert("usr/share/doc/nginx-light", link).unwrap();
    let mut bytes = Vec::new();
    let _ = erofs::write(&tree, Options::default(), &mut bytes).unwrap();
    let rootfs = directory.join("rootfs");
    std::fs::write(&rootfs, bytes).unwrap();
    (Lock::load(directory).unwrap(), rootfs)
}

/// Compares a document with the committed one.
fn check(name: &str, document: &Value) {
    let mut text = serde_json::to_string_pretty(document).unwrap();
    text.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trust/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, committed, "{name}: run with UPDATE_GOLDEN=1");
}

fn subject() -> Subject<'static> {
    Subject { name: "web", manifest: Digest::of(b"manifest") }
}

#[test]
fn the_bill_of_materials_is_spdx_and_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let (lock, rootfs) = inputs(directory.path());
    let recipe = debian_recipe();
    let materials = Materials::of(&recipe, &lock, "amd64");
    let document = spdx::document(subject(), &materials, &rootfs).unwrap();
    assert_eq!(document, spdx::document(subject(), &materials, &rootfs).unwrap());
    assert_spdx(&document);
    check("sbom.spdx.json", &document);
}

/// The rules of SPDX 2.3 that its schema and its text state for what is used here.
fn assert_spdx(document: &Value) {
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    assert_eq!(document["dataLicense"], "CC0-1.0");
    assert_eq!(document["SPDXID"], "SPDXRef-DOCUMENT");
    assert!(!document["documentNamespace"].as_str().unwrap().contains('#'));
    let created = document["creationInfo"]["created"].as_str().unwrap();
    assert!(created.len() == 20 && created.ends_with('Z'), "{created}: seconds, in UTC");
    let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT"]);
    for package in document["packages"].as_array().unwrap() {
        let id = package["SPDXID"].as_str().unwrap();
        let rest = id.strip_prefix("SPDXRef-").unwrap();
        assert!(rest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')), "{id}");
        assert!(ids.insert(id), "{id} twice");
        for field in ["name", "downloadLocation", "licenseDeclared", "copyrightText"] {
            assert!(package[field].as_str().is_some_and(|text| !text.is_empty()), "{id}: {field}");
        }
        assert_eq!(package["filesAnalyzed"], false, "{id}");
        for checksum in package["checksums"].as_array().into_iter().flatten() {
            assert_eq!(checksum["checksumValue"].as_str().unwrap().len(), 64, "{id}");
        }
    }
    for relationship in document["relationships"].as_array().unwrap() {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            assert!(ids.contains(relationship[end].as_str().unwrap()), "{relationship}");
        }
    }
}

#[test]
fn the_provenance_is_slsa_and_the_same_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let (lock, _) = inputs(directory.path());
    let recipe = debian_recipe();
    let materials = Materials::of(&recipe, &lock, "amd64");
    let component = Digest::of(b"component");
    let build = Build { recipe: &recipe, component, architecture: "amd64", builder: 1 };
    let predicate = provenance::predicate(&build, &materials);
    for dependency in predicate["buildDefinition"]["resolvedDependencies"].as_array().unwrap() {
        let known = dependency.get("uri").is_some() || dependency.get("digest").is_some();
        assert!(known, "a resource has a uri or a digest: {dependency}");
    }
    let statement = Statement::new(Kind::Provenance, subject(), predicate);
    check("provenance.intoto.json", &serde_json::to_value(statement).unwrap());
}

#[test]
fn the_admission_says_what_was_tested() {
    let world = World::new();
    let recipe = recipe("v1");
    let built = world.build(&recipe);
    let tests = [test("/bin/sh")];
    world.admit(&recipe, &built, &tests, &[passed(&tests[0])]).unwrap();
    let digest = built.record.digest;
    let (found, wrong) = attestations(&world.store, &digest, None).unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
    let kinds: Vec<Kind> = Kind::ALL.to_vec();
    for kind in kinds {
        assert_eq!(found.iter().filter(|one| one.kind == kind).count(), 1, "{kind:?}");
    }
    let admission = found.iter().find(|one| one.kind == Kind::Admission).unwrap();
    assert_eq!(admission.signers, [world.signing.current().unwrap().public()]);
    assert_eq!(admission.predicate["component"], built.record.recipe.to_string());
    assert_eq!(admission.predicate["rootfs"]["digest"], built.image.erofs_digest.to_string());
    let mut predicate = admission.predicate.clone();
    predicate["component"] = "DIGEST".into();
    predicate["rootfs"] = serde_json::json!({ "digest": "DIGEST", "size": 0 });
    check("admission.json", &predicate);
    // The form of the artifact, without what follows from the image and the key.
    let artifact = world.store.read_blob(&admission.artifact).unwrap();
    let mut artifact: Value = serde_json::from_slice(&artifact).unwrap();
    assert_eq!(artifact["subject"]["digest"], digest.to_string());
    artifact["subject"]["digest"] = "DIGEST".into();
    artifact["subject"]["size"] = 0.into();
    artifact["layers"][0]["digest"] = "DIGEST".into();
    artifact["layers"][0]["size"] = 0.into();
    check("artifact.json", &artifact);
    let sbom = found.iter().find(|one| one.kind == Kind::Sbom).unwrap();
    assert_spdx(&sbom.predicate);
}
