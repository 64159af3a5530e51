//! References to images in registries: `[HOST[:PORT]/]NAME[:TAG][@sha256:…]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use kiln_model::digest::Digest;

/// Where names without a host are.
const DEFAULT_HOST: &str = "docker.io";
/// Where that registry's interface is.
const DEFAULT_API_HOST: &str = "registry-1.docker.io";
/// The tag where none is named.
const DEFAULT_TAG: &str = "latest";

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The registry's host, perhaps with a port.
    pub host: String,
    /// The repository, such as `library/nginx`.
    pub repository: String,
    /// The tag, if one is named.
    pub tag: Option<String>,
    /// The digest, if one is named; it counts more than the tag.
    pub digest: Option<Digest>,
}

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a reference to an image ({reason}); write it as \
     registry.example/name:tag, without https://"
)]
pub struct InvalidReference {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// The registry's name for what is asked for: the digest, or the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The same image by its digest.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// What the image is called where nobody gave it a name: the repository's last part.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// The root of the registry's interface, such as `https://registry.example`. Only a registry
    /// on this machine may speak without encryption.
    pub fn root(&self) -> String {
        let host = if self.host == DEFAULT_HOST { DEFAULT_API_HOST } else { &self.host };
        let scheme = if is_loopback(&self.host) { "http" } else { "https" };
        format!("{scheme}://{host}")
    }
}

/// Whether a host is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None if self.tag.is_none() => write!(f, ":{DEFAULT_TAG}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidReference { text: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| invalid("the digest is not SHA-256"))?))
            }
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("the tag has other letters than a tag may have"));
        }
        // Only what looks like a host is one.
        let is_host = |part: &str| part.contains(['.', ':', '[']) || part == "localhost";
        let (host, repository) = match rest.split_once('/') {
            Some((host, repository)) if is_host(host) => (host, repository.to_owned()),
            Some(_) => (DEFAULT_HOST, rest.to_owned()),
            None => (DEFAULT_HOST, format!("library/{rest}")),
        };
        let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err(invalid("the host has other letters than a host may have"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_path_component) {
            return Err(invalid("the name is not of lower-case letters, digits and . _ - /"));
        }
        Ok(Self { host: host.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`, as the distribution specification has it.
fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower-case words with separators between them.
fn is_path_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(|b| plain(*b))
        && bytes.last().is_some_and(|b| plain(*b))
        && bytes.iter().all(|b| plain(*b) || b"._-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let digest = Digest::of(b"x");
        let pinned = format!("registry.example/a@{digest}");
        for (text, host, repository, tag) in [
            ("nginx", "docker.io", "library/nginx", None),
            ("team/app:1.2", "docker.io", "team/app", Some("1.2")),
            ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", None),
            ("localhost/app:v1", "localhost", "app", Some("v1")),
            ("[::1]:5000/a/b-c/d:x", "[::1]:5000", "a/b-c/d", Some("x")),
            (&pinned, "registry.example", "a", None),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((&*reference.host, &*reference.repository), (host, repository));
            assert_eq!(reference.tag.as_deref(), tag);
        }
        let reference: Reference = pinned.parse().unwrap();
        assert_eq!((reference.version(), reference.to_string()), (digest.to_string(), pinned));
        assert_eq!("a".parse::<Reference>().unwrap().to_string(), "docker.io/library/a:latest");
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        let root = |text: &str| text.parse::<Reference>().unwrap().root();
        assert_eq!(root("127.0.0.1:5000/a"), "http://127.0.0.1:5000");
        assert_eq!(root("[::1]:5000/a"), "http://[::1]:5000");
        assert_eq!(root("localhost:1/a"), "http://localhost:1");
        assert_eq!(root("127.0.0.1.example:5000/a"), "https://127.0.0.1.example:5000");
        assert_eq!(root("a"), "https://registry-1.docker.io");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "https://a/b",
            "A",
            "a:",
            "a@sha256:0",
            "a//b",
            "a/../b",
            "a b",
            "a:b:c",
            "-a",
            "a:-",
            "h.example/",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
