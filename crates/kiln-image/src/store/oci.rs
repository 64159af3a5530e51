//! Manifests and configurations as the OCI image specification gives them
//! (<https://github.com/opencontainers/image-spec>, version 1.1).

use std::collections::BTreeMap;

use kiln_model::digest::Digest;
use kiln_model::quantity::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The media type of an image's manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of a list of manifests.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an image's configuration.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of the layers that are written here.
pub const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A blob by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Its checksum.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Of an artifact: what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Of a manifest in an index: what it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text for tools.
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "nullable")]
    pub annotations: Annotations,
}

impl Descriptor {
    /// A blob of a type.
    pub fn new(media_type: &str, (digest, size): (Digest, u64)) -> Self {
        let media_type = media_type.to_owned();
        let annotations = Annotations::new();
        Self { media_type, digest, size, artifact_type: None, platform: None, annotations }
    }
}

/// Free text for tools, by name.
pub type Annotations = BTreeMap<String, String>;

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, as Go calls it.
    pub architecture: String,
    /// The operating system.
    pub os: String,
    /// The version of the architecture, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// What an image, or an artifact about one, consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// That of a manifest; empty where a foreign one does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Of an artifact: what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first; of an artifact its parts.
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
    /// Of an artifact: the image that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text for tools.
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "nullable")]
    pub annotations: Annotations,
}

/// Several manifests: of one image for several platforms, of a layout, of what refers to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// That of an index; empty where a foreign one does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The manifests.
    #[serde(default, deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    /// Free text for tools.
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "nullable")]
    pub annotations: Annotations,
}

impl Index {
    /// An index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        let media_type = INDEX_MEDIA_TYPE.to_owned();
        Self { schema_version: 2, media_type, manifests, annotations: Annotations::new() }
    }
}

/// Reads `null`, which programs in Go write for what is empty, as the default.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The configuration of an image. It holds no time, so that the same inputs give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The architecture, as Go calls it: `amd64`, `arm64`.
    pub architecture: String,
    /// The version of the architecture, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Always `linux`.
    pub os: String,
    /// How the program is started.
    #[serde(default, deserialize_with = "nullable")]
    pub config: ImageConfig,
    /// The layers.
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
    /// A foreign image may have a name.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub user: String,
    /// Ports that the program listens at, such as `80/tcp`, for people.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `NAME=value`; by name where the image was made here from nothing.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// The program and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    /// Further arguments; only images on a foreign base have any.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    /// Places for data, which other programs put volumes at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub volumes: BTreeMap<String, Value>,
    /// The working directory; empty for `/`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub working_dir: String,
    /// Free text, and under `kiln.writable.PATH` the writable space in bytes that servers get.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end; empty for SIGTERM.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub stop_signal: String,
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
    /// The manifest of an image.
    pub fn new(config: (Digest, u64), layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST_MEDIA_TYPE.to_owned(),
            artifact_type: None,
            config: Descriptor::new(CONFIG_MEDIA_TYPE, config),
            layers,
            subject: None,
            annotations: Annotations::new(),
        }
    }

    /// The blobs that it names, each once.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let mut blobs: Vec<&Descriptor> = Vec::with_capacity(1 + self.layers.len());
        for blob in std::iter::once(&self.config).chain(&self.layers) {
            if blobs.iter().all(|known| known.digest != blob.digest) {
                blobs.push(blob);
            }
        }
        blobs
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

    #[test]
    fn configurations_of_other_programs_are_read() {
        let text = r#"{"architecture":"amd64","os":"linux","created":"2020-01-01T00:00:00Z",
            "config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,"Labels":null,"OnBuild":null,
            "ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT"},
            "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x"}]}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.argv(), ["sh"]);
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""ExposedPorts":{"80/tcp":{}}"#) && text.contains("SIGQUIT"));
        assert!(!text.contains("created") && !text.contains("null"));
    }
}
