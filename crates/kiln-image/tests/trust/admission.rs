//! Who may be started, and what is said to those who may not.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use kiln_image::admission::{AdmitError, Refusal, admitted, vouch};
use kiln_image::sign::{Derivation, What};
use kiln_model::quantity::Timestamp;
use kiln_model::trust::{Demands, PublicKey, Signer};

use crate::world::{World, passed, recipe, shown, test};

fn trusting(signers: &[Signer]) -> Demands {
    Demands { trust: Some(signers.iter().copied().collect::<BTreeSet<_>>()), integrity: None }
}

#[test]
fn what_passed_is_signed_once_and_again_for_other_tests() {
    let world = World::new();
    let recipe = recipe("v1");
    let built = world.build(&recipe);
    let tests = [test("/bin/sh")];
    let refused = world.admit(&recipe, &built, &tests, &[]).unwrap_err();
    assert!(matches!(refused, AdmitError::NotPassed { .. }), "{refused}");
    let other = passed(&test("/bin/bash"));
    assert!(world.admit(&recipe, &built, &tests, &[other]).is_err(), "of another check");
    assert_eq!(world.signing.ring().unwrap(), None, "nothing was signed");
    let key = world.admit(&recipe, &built, &tests, &[passed(&tests[0])]).unwrap();
    let count = || world.store.referrers(&built.record.digest).unwrap().len();
    assert_eq!(count(), 3);
    let again = admitted(&world.store, &world.signing, &built, &tests).unwrap();
    assert_eq!(again, Some(key));
    assert_eq!(world.admit(&recipe, &built, &tests, &[passed(&tests[0])]).unwrap(), key);
    assert_eq!(count(), 3, "nothing was signed again");
    assert_eq!(admitted(&world.store, &world.signing, &built, &[]).unwrap(), None);
    world.admit(&recipe, &built, &[], &[]).unwrap();
    assert_eq!(count(), 4, "another admission; the same bill and provenance");
}

#[test]
fn an_image_that_is_not_admitted_is_refused() {
    let world = World::new();
    let built = world.build(&recipe("v1"));
    let refused = world.guard().check(&built.image, &Demands::default()).unwrap_err();
    assert!(matches!(refused, Refusal::NotAdmitted { .. }), "{refused}");
    world.admitted("another");
    let refused = world.guard().check(&built.image, &Demands::default()).unwrap_err();
    assert!(matches!(refused, Refusal::NotAdmitted { .. }), "{refused}");
}

#[test]
fn rotation_keeps_what_was_signed_and_revocation_does_not() {
    let world = World::new();
    let built = world.admitted("v1");
    let first = world.guard().check(&built.image, &Demands::default()).unwrap();
    let second = world.signing.rotate().unwrap();
    let guard = world.guard();
    assert_eq!(guard.check(&built.image, &Demands::default()).unwrap(), first);
    let next = world.admitted("v2");
    assert_eq!(guard.check(&next.image, &Demands::default()).unwrap(), second);
    let reason = Some("laptop lost".to_owned());
    world.signing.revoke(What::Key(first), reason, Timestamp(0)).unwrap();
    let refused = guard.check(&built.image, &Demands::default()).unwrap_err();
    let text = shown(&refused);
    assert!(text.contains(&first.to_string()) && text.contains("laptop lost"), "{text}");
    assert!(text.contains("1970-01-01"), "{text}");
    assert_eq!(guard.check(&next.image, &Demands::default()).unwrap(), second);
    // Tested anew, it is signed by the present key.
    world.admitted("v1");
    assert_eq!(guard.check(&built.image, &Demands::default()).unwrap(), second);
}

#[test]
fn a_revoked_image_stays_so() {
    let world = World::new();
    let built = world.admitted("v1");
    let guard = world.guard();
    guard.check(&built.image, &Demands::default()).unwrap();
    let what = What::Image(built.record.digest);
    world.signing.revoke(what, Some("CVE-2026-1".into()), Timestamp(0)).unwrap();
    let refused = guard.check(&built.image, &Demands::default()).unwrap_err();
    assert!(matches!(refused, Refusal::ImageRevoked { .. }));
    assert!(refused.to_string().contains("CVE-2026-1"), "{refused}");
    let refused = world.admit(&recipe("v1"), &built, &[], &[]).unwrap_err();
    assert!(refused.to_string().contains("CVE-2026-1"), "{refused}");
}

/// Copies an image with all that refers to it, as a pull does.
fn pull(from: &World, to: &World, built: &kiln_image::build::Built) {
    for part in ["images/blobs/sha256", "store/images/rootfs"] {
        for entry in fs::read_dir(from.path().join(part)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.path().join(part).join(entry.file_name())).unwrap();
        }
    }
    for artifact in from.store.noted_referrers(&built.record.digest).unwrap() {
        to.store.note_referrer(&built.record.digest, &artifact).unwrap();
    }
    vouch(&to.signing, &to.store.get(&built.record.digest).unwrap()).unwrap();
}

#[test]
fn only_signers_that_the_stack_trusts_count() {
    let (ours, theirs) = (World::new(), World::new());
    let built = theirs.admitted("v1");
    let key = theirs.signing.current().unwrap().public();
    pull(&theirs, &ours, &built);
    let image = ours.store.get(&built.record.digest).unwrap();
    let guard = ours.guard();
    assert_eq!(guard.signatures(&image.digest).unwrap().keys, [key]);
    let refused = guard.check(&image, &Demands::default()).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, Refusal::NotTrusted { .. }), "{text}");
    assert!(text.contains(&format!("signed by {key}")) && text.contains("(own)"), "{text}");
    let trusted = trusting(&[Signer::Own, Signer::Key(key)]);
    assert_eq!(guard.check(&image, &trusted).unwrap(), key);
    let nobody = trusting(&[Signer::Key(PublicKey([7; 32]))]);
    assert!(matches!(guard.check(&image, &nobody), Err(Refusal::NotTrusted { .. })));
    assert!(matches!(guard.check(&image, &trusting(&[])), Err(Refusal::NotTrusted { .. })));
    ours.signing.revoke(What::Key(key), None, Timestamp(0)).unwrap();
    assert!(matches!(guard.check(&image, &trusted), Err(Refusal::SignerRevoked { .. })));
}

#[test]
fn a_filesystem_that_this_root_has_not_made_is_refused() {
    let world = World::new();
    let (built, other) = (world.admitted("v1"), world.admitted("v2"));
    let guard = world.guard();
    let mut swapped = built.image.clone();
    swapped.erofs_digest = other.image.erofs_digest;
    let refused = guard.check(&swapped, &Demands::default()).unwrap_err();
    assert!(shown(&refused).contains("stands in its place"), "{}", shown(&refused));
    fs::remove_dir_all(world.path().join("store/signing/rootfs")).unwrap();
    let refused = guard.check(&built.image, &Demands::default()).unwrap_err();
    assert!(matches!(refused, Refusal::Rootfs { .. }));
    world.admitted("v1");
    guard.check(&built.image, &Demands::default()).unwrap();
}

#[test]
fn what_a_kernel_measures_of_a_filesystem_is_signed() {
    let world = World::new();
    let built = world.admitted("v1");
    let cleared = world.guard().clear(&built.image, &Demands::default()).unwrap();
    let file = fs::File::open(&built.image.erofs).unwrap();
    let found = kiln_image::verity::of_reader(file).unwrap();
    let blocks = cleared.blocks.unwrap();
    assert_eq!((blocks.fs_verity, blocks.root), (found.fs_verity, found.root));
    // A record of before that was said is still good for what it says, and is replaced by the next.
    let record = Derivation::of(&built.image);
    world.signing.vouch_rootfs(&record).unwrap();
    let cleared = world.guard().clear(&built.image, &Demands::default()).unwrap();
    assert_eq!(cleared.blocks, None);
    vouch(&world.signing, &built.image).unwrap();
    let cleared = world.guard().clear(&built.image, &Demands::default()).unwrap();
    assert_eq!(cleared.blocks, Some(blocks));
    // One that was altered measures nothing: it is not made to look right by being measured anew.
    fs::remove_file(&built.image.erofs).unwrap();
    fs::write(&built.image.erofs, "other").unwrap();
    world.signing.vouch_rootfs(&record).unwrap();
    assert!(vouch(&world.signing, &built.image).is_err());
}

#[test]
fn a_ring_that_went_back_is_refused_and_so_is_one_that_is_gone() {
    let world = World::new();
    let built = world.admitted("v1");
    let guard = world.guard();
    guard.check(&built.image, &Demands::default()).unwrap();
    let path = world.signing.ring_path();
    let old = fs::read(&path).unwrap();
    world.signing.revoke(What::Image(built.record.digest), None, Timestamp(0)).unwrap();
    assert!(guard.check(&built.image, &Demands::default()).is_err());
    fs::write(&path, old).unwrap();
    let text = shown(&guard.check(&built.image, &Demands::default()).unwrap_err());
    assert!(text.contains("went back from revision 2 to 1"), "{text}");
    fs::remove_file(&path).unwrap();
    let text = shown(&guard.check(&built.image, &Demands::default()).unwrap_err());
    assert!(text.contains("is gone"), "{text}");
}

#[test]
fn a_check_is_a_matter_of_microseconds() {
    let world = World::new();
    let built = world.admitted("v1");
    let guard = world.guard();
    guard.check(&built.image, &Demands::default()).unwrap();
    let started = Instant::now();
    for _ in 0..200 {
        guard.check(&built.image, &Demands::default()).unwrap();
    }
    println!("a check that was done before: {:?}", started.elapsed() / 200);
}
