//! Names: of stacks, components and instances.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// What sort of thing a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A root filesystem with its way to be started.
    Image,
    /// A set of addresses that instances share.
    Network,
    /// A value that is never shown.
    Secret,
    /// A process with its replicas.
    Server,
    /// A process with data that outlives it.
    Database,
    /// A listener of the gateway.
    Endpoint,
}

impl Kind {
    /// All kinds, in the order in which a stack is built.
    pub const ALL: [Kind; 6] =
        [Kind::Image, Kind::Network, Kind::Secret, Kind::Server, Kind::Database, Kind::Endpoint];

    /// The word that stands in configuration and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Image => "image",
            Kind::Network => "network",
            Kind::Secret => "secret",
            Kind::Server => "server",
            Kind::Database => "database",
            Kind::Endpoint => "endpoint",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is not a name of the wanted sort.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}: expected {expected}")]
pub struct InvalidName {
    /// The text.
    pub text: String,
    /// What it should have named.
    pub what: &'static str,
    /// The rule.
    pub expected: &'static str,
}

const LABEL_RULE: &str =
    "a letter, then letters, digits, `-` or `_`, at most 63, the last no `-` or `_`";

/// Whether `text` is what a block may be labelled with.
pub fn is_label(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && text.len() <= 63
        && !text.ends_with(['-', '_'])
}

/// A component's kind and name, written `kind.name`.
///
/// A component that came from `count` or `for_each` has its key in its name:
/// `server.web[0]`, `server.web["eu"]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentId {
    /// The kind.
    pub kind: Kind,
    /// The name, unique within its kind in a stack.
    pub name: String,
}

impl ComponentId {
    /// The component `kind.name`. The name is the label of a block and perhaps a key.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// The name with what cannot stand in a host name, an interface or a file replaced by
    /// `-`: `web["eu"]` becomes `web-eu`. Lower case, at most 63 bytes.
    pub fn host_name(&self) -> String {
        let mut host = String::with_capacity(self.name.len());
        for c in self.name.chars() {
            if c.is_ascii_alphanumeric() {
                host.push(c.to_ascii_lowercase());
            } else if !host.ends_with('-') {
                host.push('-');
            }
        }
        host.truncate(63);
        host.trim_matches('-').to_owned()
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.name)
    }
}

impl FromStr for ComponentId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidName {
            text: text.to_owned(),
            what: "component",
            expected: "`kind.name`, such as `server.web`",
        };
        let (kind, name) = text.split_once('.').ok_or_else(invalid)?;
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(invalid)?;
        let label = name.split_once('[').map_or(name, |(label, _)| label);
        if !is_label(label) || (label.len() < name.len() && !name.ends_with(']')) {
            return Err(invalid());
        }
        Ok(Self::new(kind, name))
    }
}

/// Makes a newtype around a checked string, serialised as that string.
macro_rules! string_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { text: text.to_owned(), what: $what, expected: $expected })
                }
            }
        }

        string_serde!($name);
    };
}

/// Serialises a type by its `Display` and `FromStr`.
macro_rules! string_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

string_serde!(ComponentId);

string_name!(
    /// The name of a stack, unique within a root.
    StackName,
    "stack name",
    LABEL_RULE,
    is_label
);

string_name!(
    /// The name of one instance (of a server or of a network), unique within a root for ever:
    /// the component's host name, `-`, and 12 hex digits.
    InstanceId,
    "instance",
    "lower-case letters, digits and `-`, at most 80",
    |text| {
        !text.is_empty()
            && text.len() <= 80
            && !text.starts_with('-')
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    }
);

impl InstanceId {
    /// The id of a new instance of `component`; `seed` tells it from all others.
    pub fn derive(component: &ComponentId, seed: &Digest) -> Self {
        Self(format!("{}-{}", component.host_name(), seed.short(12)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_parse_and_print() {
        for text in ["server.web", "image.a-b_c", "server.web[0]", "server.web[\"eu.west\"]"] {
            assert_eq!(text.parse::<ComponentId>().unwrap().to_string(), text);
        }
        for text in ["web", "serv.web", "server.", "server.0", "server.web[0", "server.web-"] {
            assert!(text.parse::<ComponentId>().is_err(), "{text}");
        }
    }

    #[test]
    fn host_names_are_plain() {
        let id: ComponentId = "server.Web[\"eu.west\"]".parse().unwrap();
        assert_eq!(id.host_name(), "web-eu-west");
        let instance = InstanceId::derive(&id, &Digest::of(b"1"));
        assert_eq!(instance.as_str().parse(), Ok(instance));
    }
}
