//! Certificates of authorities, in the forms in which programs look for them.

mod java;
mod name;

use ring::digest;

use super::{RootfsError, conf};
use crate::openpgp::decode_base64;
use crate::tree::{Inode, Metadata, Tree, TreeError};

/// Where `ca-certificates` keeps them.
const SOURCE: &str = "usr/share/ca-certificates";
/// Where programs look.
const DIRECTORY: &str = "etc/ssl/certs";
/// Where OpenSSL looks first: a bundle and a directory that Debian builds in.
const OPENSSL: &str = "usr/lib/ssl";

/// One certificate.
struct Certificate {
    /// The file that it comes from, from the root.
    source: String,
    /// The name of its link, such as `ISRG_Root_X1.pem`.
    link: String,
    pem: Vec<u8>,
    der: Vec<u8>,
}

/// Joins the certificates of `ca-certificates` to the bundle that programs read, and makes the
/// links by name and by hash that OpenSSL looks for, as update-ca-certificates(8) and
/// openssl-rehash(1) do; and the keystore that Java reads, where its directory is there.
pub(super) fn install(tree: &mut Tree) -> Result<(), RootfsError> {
    let certificates = read(tree)?;
    if certificates.is_empty() {
        return Ok(());
    }
    tree.make_directories(DIRECTORY, &Metadata::new(0o755))?;
    let bundle = certificates.iter().flat_map(|certificate| certificate.pem.clone()).collect();
    put(tree, "ca-certificates.crt", bundle)?;
    let link = |target: String| Inode::symlink(Metadata::new(0o777), target);
    tree.replace("etc/ssl/cert.pem", link("certs/ca-certificates.crt".to_owned()))?;
    if tree.resolve(OPENSSL).is_ok_and(Inode::is_directory) {
        let path = format!("{OPENSSL}/cert.pem");
        if tree.get(&path).is_none() {
            tree.insert(path, link("/etc/ssl/certs/ca-certificates.crt".to_owned()))?;
        }
    }
    for certificate in &certificates {
        let path = format!("{DIRECTORY}/{}", certificate.link);
        tree.replace(path, link(format!("/{}", certificate.source)))?;
    }
    for (certificate, hash) in by_hash(&certificates) {
        tree.replace(format!("{DIRECTORY}/{hash}"), link(certificate.link.clone()))?;
    }
    if tree.resolve(format!("{DIRECTORY}/java")).is_ok_and(Inode::is_directory) {
        put(tree, "java/cacerts", java::keystore(&certificates))?;
    }
    Ok(())
}

fn put(tree: &mut Tree, name: &str, bytes: Vec<u8>) -> Result<(), TreeError> {
    let file = Inode::file(Metadata::new(0o644), bytes);
    tree.replace(format!("{DIRECTORY}/{name}"), file).map(drop)
}

fn read(tree: &Tree) -> Result<Vec<Certificate>, RootfsError> {
    let mut certificates = Vec::new();
    for (source, content) in conf::files_below(tree, SOURCE) {
        let Some(name) = source.rsplit('/').next().and_then(|name| name.strip_suffix(".crt"))
        else {
            continue;
        };
        let path = || source.clone();
        let mut pem =
            content.read().map_err(|error| RootfsError::Content { path: path(), source: error })?;
        if !pem.ends_with(b"\n") {
            pem.push(b'\n');
        }
        // What is no certificate is in the bundle, as Debian has it, and gets no hash.
        let der = der_of(&pem).unwrap_or_default();
        let link = name.replace([' ', ','], "_").replace(['(', ')'], "=") + ".pem";
        certificates.push(Certificate { source, link, pem, der });
    }
    Ok(certificates)
}

/// The certificate in a PEM file (RFC 7468).
fn der_of(pem: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    decode_base64(&body.split_ascii_whitespace().collect::<String>())
}

/// The links by hash: eight digits of the subject's, and a number that tells those of one hash
/// apart.
fn by_hash(certificates: &[Certificate]) -> Vec<(&Certificate, String)> {
    let mut links: Vec<(&Certificate, String)> = Vec::new();
    for certificate in certificates {
        let Some(subject) = name::canonical_subject(&certificate.der) else { continue };
        let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &subject);
        let sum = sum.as_ref();
        let hash = u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]);
        let same = links.iter().filter(|(_, link)| link.starts_with(&format!("{hash:08x}.")));
        let number = same.count();
        links.push((certificate, format!("{hash:08x}.{number}")));
    }
    links
}
