//! The bill of materials of an image: SPDX 2.3 in JSON
//! (<https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! It follows from the image and its lock alone: it holds no time but the locked one, and its
//! namespace is made of the image's digest, so that the same image has the same document.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::Subject;
use super::materials::{Materials, Other, Package, purl};
use super::status::{self, About};
use crate::erofs::read::{Image, ReadError};

/// Where SPDX wants a word although nothing is known.
const UNKNOWN: &str = "NOASSERTION";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "SPDX names them so")]
struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Item>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: [String; 1],
}

/// A package in the sense of SPDX: the image, and all that it is made of.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_file_name: Option<String>,
    primary_package_purpose: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    originator: Option<String>,
    download_location: String,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<String>,
    license_concluded: &'static str,
    license_declared: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_comments: Option<String>,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "SPDX names them so")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "SPDX names them so")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";

/// The document of an image. `rootfs` is its filesystem, which says who maintains its packages and
/// under which licences they are.
pub fn document(
    subject: Subject<'_>,
    materials: &Materials<'_>,
    rootfs: &Path,
) -> Result<Value, ReadError> {
    let about = status::of(&Image::open(rootfs)?)?;
    let mut packages = vec![image(subject)];
    // What only maintainer scripts needed is not in the image.
    let installed = materials.packages.iter().filter(|one| !one.locked.tool);
    packages.extend(installed.map(|one| package(one, materials.suite, &about)));
    packages.extend(materials.others.iter().enumerate().map(|(index, one)| other(index, one)));
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", IMAGE)];
    let parts = packages.iter().skip(1);
    relationships.extend(parts.map(|part| relationship(IMAGE, "CONTAINS", &part.id)));
    let document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: format!("image {}", subject.name),
        document_namespace: format!("urn:kiln:sbom:{}", subject.manifest),
        creation_info: CreationInfo {
            created: instant(materials.locked_at),
            creators: [format!("Tool: kiln-{}", env!("CARGO_PKG_VERSION"))],
        },
        packages,
        relationships,
    };
    Ok(serde_json::to_value(document).expect("texts and lists of them are JSON"))
}

/// SPDX takes seconds, without fractions.
fn instant(seconds: u64) -> String {
    let text = Timestamp(seconds.saturating_mul(1000)).to_string();
    text.replace(".000Z", "Z")
}

fn relationship(from: &str, kind: &'static str, to: &str) -> Relationship {
    Relationship {
        spdx_element_id: from.to_owned(),
        relationship_type: kind,
        related_spdx_element: to.to_owned(),
    }
}

/// An item of which nothing is known but its name and what it is for.
fn item(id: String, name: &str, purpose: &'static str) -> Item {
    Item {
        id,
        name: name.to_owned(),
        primary_package_purpose: purpose,
        download_location: UNKNOWN.to_owned(),
        license_concluded: UNKNOWN,
        license_declared: UNKNOWN.to_owned(),
        copyright_text: UNKNOWN,
        ..Item::default()
    }
}

fn sha256(digest: &Digest) -> Vec<Checksum> {
    vec![Checksum { algorithm: "SHA256", checksum_value: digest.hex() }]
}

fn image(subject: Subject<'_>) -> Item {
    Item {
        version_info: Some(subject.manifest.to_string()),
        checksums: sha256(&subject.manifest),
        ..item(IMAGE.to_owned(), subject.name, "CONTAINER")
    }
}

fn package(package: &Package<'_>, suite: Option<&str>, about: &BTreeMap<String, About>) -> Item {
    let locked = package.locked;
    let nothing = About::default();
    let about = about.get(&locked.name).unwrap_or(&nothing);
    let letters = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
    };
    // The checksum tells names apart that differ only in what an identifier can't hold.
    let id = format!(
        "SPDXRef-deb-{}-{}-{}",
        letters(&locked.name),
        letters(&locked.architecture),
        locked.sha256.short(12)
    );
    let supplier = locked.repository.as_deref().unwrap_or("Debian");
    let names: Vec<&str> = about.licence.names.iter().map(String::as_str).collect();
    let comment = format!("its copyright file names {}", names.join("; "));
    Item {
        version_info: Some(locked.version.clone()),
        package_file_name: locked.filename.rsplit('/').next().map(str::to_owned),
        supplier: Some(format!("Organization: {supplier}")),
        originator: about.maintainer.as_deref().map(agent),
        download_location: package
            .mirror
            .map_or(UNKNOWN.to_owned(), |mirror| format!("{mirror}/{}", locked.filename)),
        checksums: sha256(&locked.sha256),
        homepage: about.homepage.clone().filter(|url| url.starts_with("http")),
        license_declared: about.licence.expression.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        license_comments: (!names.is_empty()).then_some(comment),
        external_refs: vec![ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl(locked, suite),
        }],
        ..item(id, &locked.name, "APPLICATION")
    }
}

/// `NAME <EMAIL>` as SPDX writes it. Teams are organisations.
fn agent(maintainer: &str) -> String {
    let line = maintainer.lines().next().unwrap_or_default();
    let (name, email) = line
        .split_once('<')
        .map_or((line, ""), |(name, email)| (name.trim(), email.trim_end().trim_end_matches('>')));
    let lower = name.to_ascii_lowercase();
    let teams = ["team", "maintainers", "group", "developers", "packagers", "project", "debian"];
    let kind =
        if teams.iter().any(|word| lower.contains(word)) { "Organization" } else { "Person" };
    if email.is_empty() { format!("{kind}: {name}") } else { format!("{kind}: {name} ({email})") }
}

fn other(index: usize, other: &Other<'_>) -> Item {
    let id = format!("SPDXRef-Part-{}", index + 1);
    match other {
        Other::Copied { from, to, digest } => Item {
            version_info: Some(digest.to_string()),
            comment: Some(format!(
                "copied to {to}; the version is the digest of names, contents, modes and links"
            )),
            ..item(id, from, "FILE")
        },
        Other::Inline { path, digest } => {
            Item { checksums: sha256(digest), ..item(id, path, "FILE") }
        }
        Other::Base { path, digest } => {
            Item { version_info: Some(digest.to_string()), ..item(id, path, "ARCHIVE") }
        }
        Other::Named { name, manifest } => Item {
            version_info: manifest.map(|manifest| manifest.to_string()),
            ..item(id, name, "CONTAINER")
        },
    }
}
