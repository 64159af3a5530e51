//! What must not be started is not, and what serves serves on.

use std::fs;

use crate::load::Load;
use crate::replace::SHOP;
use crate::site::{Site, site_or_skip, told};

/// The digest of the image that the newest build made.
fn image(site: &Site, index: usize) -> serde_json::Value {
    let list: serde_json::Value =
        serde_json::from_str(&site.must(&["image", "list", "--json"])).unwrap();
    list["images"][index].clone()
}

/// Two releases are made, and the second serves; the digest of the first one's image.
fn two_releases(site: &Site) -> String {
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let first = image(site, 0)["digest"].as_str().unwrap().to_owned();
    site.must(&["apply", "--yes", "--var", "release=v2"]);
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
    first
}

/// Goes back to the first release, which must be given up at once, for this reason.
fn refuse_rollback(site: &Site, reasons: &[&str]) {
    let load = Load::start(site.address(), 4);
    let ids = site.instances("web", "id");
    let begun = std::time::Instant::now();
    let output = site.run(&["rollback", "1", "--yes"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for reason in reasons {
        assert!(text.contains(reason), "{reason:?} is not in {text}");
    }
    assert!(begun.elapsed().as_secs() < 20, "given up at once, not at its deadline");
    assert_eq!(site.instances("web", "id"), ids, "what serves was not touched");
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
    load.stop();
}

#[test]
fn a_revoked_image_never_starts_again() {
    let site = site_or_skip!("a_revoked_image_never_starts_again");
    let first = two_releases(&site);
    site.must(&["image", "revoke", &first, "--reason", "CVE-2026-1", "--yes"]);
    refuse_rollback(&site, &["was revoked", "CVE-2026-1", &first]);
    // Nor is it built and applied anew.
    let output = site.run(&["apply", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("CVE-2026-1"), "{}", told(&output));
}

#[test]
fn what_a_revoked_key_signed_never_starts_again() {
    let site = site_or_skip!("what_a_revoked_key_signed_never_starts_again");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let key = image(&site, 0)["signed_by"].as_str().unwrap().to_owned();
    site.must(&["image", "key", "new"]);
    site.must(&["apply", "--yes", "--var", "release=v2"]);
    site.must(&["image", "key", "revoke", &key, "--yes"]);
    refuse_rollback(&site, &["a key that was revoked", &key]);
    // Built anew, it is signed by the key of today.
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
}

#[test]
fn what_is_not_admitted_or_altered_never_starts() {
    let site = site_or_skip!("what_is_not_admitted_or_altered_never_starts");
    let first = two_releases(&site);
    let hex = first.strip_prefix("sha256:").unwrap();
    let referrers = site.root().join("store/images/referrers");
    fs::rename(referrers.join(hex), referrers.join("aside")).unwrap();
    refuse_rollback(&site, &["is not admitted", &first]);
    fs::rename(referrers.join("aside"), referrers.join(hex)).unwrap();
    let record = site.root().join("store/signing/rootfs").join(format!("{hex}.json"));
    let good = fs::read(&record).unwrap();
    fs::write(&record, &good[1..]).unwrap();
    refuse_rollback(&site, &["is not one that this root has made", "was altered"]);
    fs::write(&record, good).unwrap();
    site.must(&["rollback", "1", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
}

#[test]
fn an_image_whose_test_fails_is_refused_and_the_old_generation_serves_on() {
    let site = site_or_skip!("an_image_whose_test_fails_is_refused");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let (load, ids) = (Load::start(site.address(), 4), site.instances("web", "id"));
    let tastes = "test \"tastes\" {\n    http = { port = 8080, path = \"/\", status = 418 }\n    \
                deadline = \"1s\"\n  }\n  entrypoint =";
    site.write(&SHOP.replace("entrypoint =", tastes));
    let output = site.run(&["apply", "--yes", "--var", "release=v2"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["image.probe", "tastes", "418", "what serves is untouched"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let status = site.status();
    assert_eq!((&status["generation"], &status["healthy"]), (&1.into(), &true.into()), "{status}");
    assert_eq!(site.instances("web", "id"), ids, "what serves was not touched");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    load.stop();
    // It was built, and is not admitted: nothing else starts it either.
    let images: serde_json::Value =
        serde_json::from_str(&site.must(&["image", "list", "--json"])).unwrap();
    let admitted = images["images"].as_array().unwrap().iter().filter(|i| i["admitted"] == true);
    assert_eq!(admitted.count(), 1, "{images}");
}

#[test]
fn a_stack_that_trusts_others_only_starts_nothing_of_its_own() {
    let site = site_or_skip!("a_stack_that_trusts_others_only");
    site.write(SHOP);
    site.must(&["apply", "--yes"]);
    let stranger = format!("ed25519:{}", "0a".repeat(32));
    site.write(&format!("stack {{ trust = [\"{stranger}\"] }}\n{SHOP}"));
    let output = site.run(&["apply", "--yes", "--var", "release=v2"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("not signed by a key that the stack trusts"), "{text}");
    assert!(text.contains(&stranger), "{text}");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
}

#[test]
fn a_collection_takes_nothing_that_history_or_an_instance_needs() {
    let site = site_or_skip!("a_collection_takes_nothing");
    two_releases(&site);
    let gc = |more: &[&str]| -> serde_json::Value {
        let args = [&["image", "gc", "--grace", "0s", "--yes", "--json"], more].concat();
        serde_json::from_str(&site.must(&args)).unwrap()
    };
    assert_eq!(gc(&[])["removed"].as_array().unwrap().len(), 0, "all history counts");
    site.must(&["rollback", "1", "--yes"]);
    site.must(&["rollback", "2", "--yes"]);
    let went = gc(&["--keep", "1"]);
    let removed = went["removed"].as_array().unwrap();
    assert_eq!(removed.iter().filter(|one| one["kind"] == "image").count(), 1, "{went}");
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
    site.must(&["image", "verify"]);
    // What went is built again when it is asked for.
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
}
