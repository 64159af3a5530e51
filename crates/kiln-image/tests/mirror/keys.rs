//! Which keys of a certificate count.

use kiln_image::openpgp::{Keyring, VerifyError, verify, verify_detached};

use crate::signer::{ENCRYPTS, NOW, SIGNS, Signer, armoured};

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
fn armoured_keys_and_detached_signatures_count() {
    let (signer, other) = (Signer::new(), Signer::new());
    let mut keyring = Keyring::default();
    let both = format!("# keys\n{}{}", other.armoured(), signer.armoured());
    keyring.add(both.as_bytes()).unwrap();
    assert!(verify(signer.sign("Suite: test\n").as_bytes(), &keyring, NOW).is_ok());
    let binary = signer.sign_detached(b"Suite: test\n");
    let text = armoured("SIGNATURE", &binary).into_bytes();
    for signature in [&binary, &text] {
        assert!(verify_detached(b"Suite: test\n", signature, &keyring, NOW).is_ok());
        let altered = verify_detached(b"Suite: evil\n", signature, &keyring, NOW);
        assert!(matches!(altered, Err(VerifyError::Altered(_))), "{altered:?}");
    }
    assert!(verify_detached(b"", b"no signature", &keyring, NOW).is_err());
    for damaged in ["", "no key", &signer.armoured()[..60]] {
        assert!(Keyring::default().add(damaged.as_bytes()).is_err(), "{damaged}");
    }
}

#[test]
fn a_key_of_a_third_party_as_it_is_published() {
    // PostgreSQL's: RSA with 4096 bits, certified several times.
    let file = include_bytes!("../fixtures/apt.postgresql.org.asc");
    Keyring::default().add(file).unwrap();
}

#[test]
fn rsa_signatures_of_gpg_count() {
    let home = tempfile::tempdir().unwrap();
    let gpg = |arguments: &[&str]| {
        let mut command = std::process::Command::new("gpg");
        command.args(["--batch", "--quiet", "--homedir"]).arg(home.path()).args(arguments);
        command.current_dir(home.path()).output()
    };
    let made = gpg(&["--passphrase", "", "--quick-gen-key", "Test", "rsa3072", "sign", "never"]);
    if !made.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: rsa_signatures_of_gpg_count: gpg makes no key: {made:?}");
        return;
    }
    let key = gpg(&["--armor", "--export"]).unwrap().stdout;
    let mut keyring = Keyring::default();
    keyring.add(&key).unwrap();
    std::fs::write(home.path().join("Release"), "Suite: test\n").unwrap();
    let now = i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
    )
    .unwrap();
    for hash in ["SHA256", "SHA384", "SHA512"] {
        let clear = gpg(&["--digest-algo", hash, "-o", "-", "--clearsign", "Release"]).unwrap();
        verify(&clear.stdout, &keyring, now).unwrap();
        let apart = gpg(&["--digest-algo", hash, "-o", "-", "--detach-sign", "Release"]).unwrap();
        verify_detached(b"Suite: test\n", &apart.stdout, &keyring, now).unwrap();
    }
    let weak = gpg(&["--digest-algo", "SHA1", "-o", "-", "--clearsign", "Release"]).unwrap();
    assert!(verify(&weak.stdout, &keyring, now).is_err());
    // The agent that gpg has started ends.
    let _ = std::process::Command::new("gpgconf")
        .args(["--homedir"])
        .arg(home.path())
        .args(["--kill", "all"])
        .output();
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
