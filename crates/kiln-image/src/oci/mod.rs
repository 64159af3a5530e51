//! The Open Container Initiative's formats: images as other programs make and take them.
//!
//! [`reference`](mod@reference) names an image in a registry, [`registry`] talks to one, [`layout`]
//! is an image in a directory or an archive, [`layer`] is what a filesystem travels as. The documents
//! themselves (manifest, configuration) are in [`store`](crate::store), which keeps them as they are.

pub mod layer;
pub mod layout;
pub mod reference;
pub mod registry;
pub mod transfer;

use std::collections::BTreeMap;

use crate::store::{Descriptor, Index, Manifest, Platform};

/// The OCI specification names architectures as Go does.
pub fn go_architecture(debian: &str) -> &str {
    match debian {
        "i386" => "386",
        "armhf" => "arm",
        "ppc64el" => "ppc64le",
        other => other,
    }
}

/// The media types of other programs that mean what one of OCI's does.
const SYNONYMS: [(&str, &str); 6] = [
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    ),
    (
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    ),
    ("application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json"),
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
    (
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ),
];

/// OCI's name of a media type.
pub fn oci_media_type(media_type: &str) -> &str {
    SYNONYMS.iter().find(|(other, _)| *other == media_type).map_or(media_type, |(_, oci)| oci)
}

/// The media types of manifests and lists of them that can be read.
pub const READABLE_MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest, or a list of them.
#[derive(Clone, Debug)]
pub enum Document {
    /// Of one image or artifact.
    Manifest(Box<Manifest>),
    /// Of several.
    Index(Index),
}

/// Reads a manifest or a list of them, told apart by what they hold.
pub fn parse_document(bytes: &[u8]) -> Result<Document, serde_json::Error> {
    let value: BTreeMap<String, serde_json::Value> = serde_json::from_slice(bytes)?;
    if value.contains_key("manifests") {
        serde_json::from_slice(bytes).map(Document::Index)
    } else {
        serde_json::from_slice(bytes).map(|manifest| Document::Manifest(Box::new(manifest)))
    }
}

/// The manifest of an index for an architecture, as Debian calls it; of several the first. A list
/// that names no platform at all has just images for any.
pub fn for_architecture<'a>(index: &'a Index, architecture: &str) -> Option<&'a Descriptor> {
    let wanted = go_architecture(architecture);
    let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == wanted;
    let named = |d: &&Descriptor| d.platform.as_ref().is_some_and(fits);
    let unnamed = |d: &&Descriptor| d.platform.is_none();
    index.manifests.iter().find(named).or_else(|| index.manifests.iter().find(unnamed))
}

/// The architectures that an index has images for.
pub fn architectures(index: &Index) -> Vec<String> {
    let platforms = index.manifests.iter().filter_map(|d| d.platform.as_ref());
    platforms.map(|p| format!("{}/{}", p.os, p.architecture)).collect()
}
