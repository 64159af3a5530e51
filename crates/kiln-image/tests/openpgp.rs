//! Signature verification against real releases of Debian.

use kiln_image::debian::suite::debian_keyring;
use kiln_image::openpgp::{Keyring, VerifyError, verify};

/// When the fixture was fetched, in seconds since 1970: 2026-11-24.
const NOW: i64 = 1_795_478_400;
/// 2040-01-01, when all keys of the ring have ended.
const MUCH_LATER: i64 = 2_208_988_800;
/// The release of bookworm-security, signed with two RSA keys, its lists of files shortened by
/// none: it is as the archive published it.
const RELEASE: &[u8] = include_bytes!("fixtures/InRelease.bookworm-security");
fn keyring() -> Keyring {
    debian_keyring().expect("the keys that come with the program can be read")
}

#[test]
fn a_real_release_is_accepted() {
    let signed = verify(RELEASE, &keyring(), NOW).unwrap();
    assert!(signed.text().starts_with("Origin: Debian\n"));
}

#[test]
fn without_its_key_it_is_refused() {
    assert!(matches!(verify(RELEASE, &Keyring::default(), NOW), Err(VerifyError::UnknownKey(_))));
}

#[test]
fn keys_end() {
    let refused = verify(RELEASE, &keyring(), MUCH_LATER);
    assert!(matches!(refused, Err(VerifyError::KeyNotValid(_))), "{refused:?}");
}

#[test]
fn no_flipped_bit_is_accepted() {
    let keyring = keyring();
    let text = verify(RELEASE, &keyring, NOW).unwrap().text().into_owned();
    for at in (0..RELEASE.len()).step_by(97) {
        let mut altered = RELEASE.to_vec();
        altered[at] ^= 1;
        // A flip in one of two signatures leaves the other; the text is then the same.
        if let Ok(signed) = verify(&altered, &keyring, NOW) {
            assert_eq!(signed.text(), text, "flipped byte {at}");
        }
    }
}
