//! The keystore from which Java takes the authorities that it trusts, in the form `JKS`, which
//! each version of Java reads.
//!
//! The form: magic and version, how many entries, the entries (here all of trusted certificates:
//! alias, time, type, certificate), and at the end SHA-1 over the password, a fixed text and all
//! before. The password is the one that everybody uses; it guards nothing.

use ring::digest;

use super::Certificate;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED: u32 = 2;
const PASSWORD: &str = "changeit";
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// The keystore with all certificates, under the names that Debian gives them.
pub(super) fn keystore(certificates: &[Certificate]) -> Vec<u8> {
    let entries: Vec<&Certificate> =
        certificates.iter().filter(|certificate| !certificate.der.is_empty()).collect();
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_be_bytes());
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(length(entries.len()).to_be_bytes());
    for certificate in entries {
        bytes.extend(TRUSTED.to_be_bytes());
        text(&mut bytes, &format!("debian:{}", certificate.link.to_lowercase()));
        // When it was added, in milliseconds since 1970: the same in each image.
        bytes.extend(0_u64.to_be_bytes());
        text(&mut bytes, "X.509");
        bytes.extend(length(certificate.der.len()).to_be_bytes());
        bytes.extend(&certificate.der);
    }
    let mut hashed: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    hashed.extend(WHITENER);
    hashed.extend(&bytes);
    bytes.extend(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref());
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    // Names of files are shorter than 64 KiB.
    bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(text.as_bytes());
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
