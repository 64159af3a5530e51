//! Manifests and configurations as the OCI image specification gives them
//! (<https://github.com/opencontainers/image-spec>, version 1.1).

use std::collections::BTreeMap;

use kiln_model::digest::Digest;
use kiln_model::quantity::Bytes;
use serde::{Deserialize, Serialize};

/// The media type of a whole root filesystem as EROFS.
pub const EROFS_MEDIA_TYPE: &str = "application/vnd.kiln.rootfs.v1.erofs";
const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// A blob by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its checksum.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// What an image consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// That of a manifest.
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The filesystem.
    pub layers: Vec<Descriptor>,
}

/// The configuration of an image. It holds no time, so that the same inputs give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The architecture, as Go calls it: `amd64`, `arm64`.
    pub architecture: String,
    /// Always `linux`.
    pub os: String,
    /// How the program is started.
    pub config: ImageConfig,
    /// The filesystem.
    pub rootfs: RootFs,
}

/// The layers of a root filesystem, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Their checksums.
    pub diff_ids: Vec<Digest>,
}

/// How the program in an image is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `uid:gid`, as numbers, so that nobody has to read the image's accounts; empty for root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value`, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Further arguments; images of Kiln have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The working directory; empty for `/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free text, and under `kiln.writable.PATH` the writable space in bytes that servers get.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Labels that say how much writable space servers get at a path.
const WRITABLE_LABEL: &str = "kiln.writable.";

impl ImageConfig {
    /// The program with all arguments.
    pub fn argv(&self) -> Vec<String> {
        [&self.entrypoint[..], &self.cmd].concat()
    }

    /// The environment by name. What has no `=` is an empty variable.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let split = |entry: &String| {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            (name.to_owned(), value.to_owned())
        };
        self.env.iter().map(split).collect()
    }

    /// The writable space that servers get unless they say otherwise: path and size.
    pub fn writable(&self) -> BTreeMap<String, Bytes> {
        let read = |(label, value): (&String, &String)| {
            let path = label.strip_prefix(WRITABLE_LABEL)?;
            Some((path.to_owned(), Bytes(value.parse().ok()?)))
        };
        self.labels.iter().filter_map(read).collect()
    }

    /// Notes writable space among the labels.
    pub(crate) fn set_writable(&mut self, path: &str, size: Bytes) {
        self.labels.insert(format!("{WRITABLE_LABEL}{path}"), size.0.to_string());
    }
}

impl Manifest {
    /// The manifest of an image with one filesystem.
    pub fn new(config: (Digest, u64), filesystem: (Digest, u64)) -> Self {
        let descriptor = |media_type: &str, (digest, size)| Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
        };
        Self {
            schema_version: 2,
            media_type: MANIFEST_MEDIA_TYPE.to_owned(),
            config: descriptor(CONFIG_MEDIA_TYPE, config),
            layers: vec![descriptor(EROFS_MEDIA_TYPE, filesystem)],
        }
    }

    /// The filesystem, if there is just one and it is EROFS.
    pub fn filesystem(&self) -> Option<&Descriptor> {
        match &self.layers[..] {
            [layer] if layer.media_type == EROFS_MEDIA_TYPE => Some(layer),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_how_to_start() {
        let mut config = ImageConfig {
            entrypoint: vec!["/bin/app".into()],
            cmd: vec!["-v".into()],
            env: vec!["A=1=2".into(), "B=".into()],
            labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
            ..ImageConfig::default()
        };
        config.set_writable("/tmp", Bytes::mib(1));
        assert_eq!(config.argv(), ["/bin/app", "-v"]);
        assert_eq!(config.environment()["A"], "1=2");
        assert_eq!(config.writable(), BTreeMap::from([("/tmp".to_owned(), Bytes::mib(1))]));
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains("\"Entrypoint\":[\"/bin/app\"]") && !text.contains("User"));
        assert_eq!(serde_json::from_str::<ImageConfig>(&text).unwrap(), config);
    }
}
