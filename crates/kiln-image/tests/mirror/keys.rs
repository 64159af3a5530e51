//! Which keys of a certificate count.

use kiln_image::openpgp::{Keyring, VerifyError, verify};

use crate::signer::{ENCRYPTS, NOW, SIGNS, Signer};

const BINDING: u8 = 0x18;
const REVOCATION: u8 = 0x28;

/// What becomes of a document that `signer` signed, where the certificate `file` is trusted.
fn judged(file: &[Vec<u8>], signer: &Signer) -> Result<String, VerifyError> {
    let mut keyring = Keyring::default();
    // A certificate without a usable key leaves the ring empty.
    let _ = keyring.add(&file.concat());
    let document = signer.sign("Suite: test\n");
    verify(document.as_bytes(), &keyring, NOW).map(|signed| signed.text().into_owned())
}

#[test]
fn a_bound_subkey_signs() {
    let (primary, sub) = (Signer::new(), Signer::new());
    let file = [primary.public_key(), sub.as_subkey(), primary.binding(BINDING, &sub, SIGNS)];
    assert_eq!(judged(&file, &sub).unwrap(), "Suite: test\n");
    assert!(judged(&file, &primary).is_ok());
    assert!(matches!(judged(&file, &Signer::new()), Err(VerifyError::UnknownKey(_))));
}

#[test]
fn other_subkeys_do_not() {
    let (primary, sub, other) = (Signer::new(), Signer::new(), Signer::new());
    let key = || primary.public_key();
    for (case, file) in [
        ("unbound", vec![key(), sub.as_subkey()]),
        ("bound by another", vec![key(), sub.as_subkey(), other.binding(BINDING, &sub, SIGNS)]),
        ("for encryption", vec![key(), sub.as_subkey(), primary.binding(BINDING, &sub, ENCRYPTS)]),
        ("another is bound", vec![key(), sub.as_subkey(), primary.binding(BINDING, &other, SIGNS)]),
        (
            "revoked",
            vec![
                key(),
                sub.as_subkey(),
                primary.binding(REVOCATION, &sub, SIGNS),
                primary.binding(BINDING, &sub, SIGNS),
            ],
        ),
    ] {
        assert!(matches!(judged(&file, &sub), Err(VerifyError::UnknownKey(_))), "{case}");
        assert!(judged(&file, &primary).is_ok(), "{case}");
    }
}

#[test]
fn a_revoked_key_and_its_subkeys_do_not() {
    let (primary, sub) = (Signer::new(), Signer::new());
    let file = [
        primary.public_key(),
        primary.revocation(),
        sub.as_subkey(),
        primary.binding(BINDING, &sub, SIGNS),
    ];
    assert!(judged(&file, &primary).is_err() && judged(&file, &sub).is_err());
    // Another's revocation means nothing.
    let file = [primary.public_key(), sub.revocation()];
    assert!(judged(&file, &primary).is_ok());
}

#[test]
fn subkeys_end_with_their_primary_key() {
    let (primary, sub) = (Signer::new().expiring_after(1000), Signer::new());
    let binding = Signer::binding(&primary, BINDING, &sub, SIGNS);
    let file = [primary.public_key(), sub.as_subkey(), binding];
    assert!(matches!(judged(&file, &sub), Err(VerifyError::KeyNotValid(_))));
}

#[test]
fn no_flipped_bit_of_a_document_is_accepted() {
    let signer = Signer::new();
    let mut keyring = Keyring::default();
    keyring.add(&signer.public_key()).unwrap();
    let document = signer.sign("Suite: test\nCodename: test\n").into_bytes();
    let start = document.windows(6).position(|window| window == b"Suite:").unwrap();
    for at in start..document.len() {
        let mut altered = document.clone();
        altered[at] ^= 1 << (at % 7);
        if let Ok(signed) = verify(&altered, &keyring, NOW) {
            // Space at the end of a line is not signed, nor read.
            assert_eq!(signed.text(), "Suite: test\nCodename: test\n", "flipped byte {at}");
        }
    }
}
