//! The canonical encoding, of which every digest in Kiln is the SHA-256.
//!
//! It is the JSON Canonicalization Scheme (RFC 8785) restricted to what identities hold:
//! no white space, object keys sorted by their bytes, integers only (no fractions), strings
//! with the shortest escapes, absent optional fields left out. A digest is taken over the
//! domain's name, a line feed, and that text, so that it can be checked by hand:
//!
//! ```text
//! { printf 'kiln.network.v1\n'; printf '{"cidr":"10.60.0.0/24"}'; } | sha256sum
//! ```
//!
//! What a component is *built from* appears in its identity as [`BuiltFrom`], which the
//! encoding replaces by the referent's digest: names never enter, content always does.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::name::ComponentId;

/// The key by which a built-from reference is recognised in a serialised identity.
const BUILT_FROM: &str = "$built-from";

/// A reference to what a component is built from (image, network, secret). In the canonical
/// encoding it stands as the referent's digest, so that a change of the referent cascades.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BuiltFrom {
    /// The component referred to.
    #[serde(rename = "$built-from")]
    pub id: ComponentId,
}

impl From<ComponentId> for BuiltFrom {
    fn from(id: ComponentId) -> Self {
        Self { id }
    }
}

/// Why an identity cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A built-from reference whose digest the caller does not know.
    #[error("the digest of {0} is not known")]
    UnknownReference(ComponentId),
    /// A number that is not a 64-bit integer.
    #[error("{0} is not an integer: identities hold integers only")]
    Fraction(String),
    /// A value whose type cannot be written as JSON.
    #[error("{0}")]
    NotJson(String),
}

/// The canonical encoding of `value`, with each built-from reference replaced by the digest
/// that `digest_of` gives for it.
pub fn encode<T: Serialize>(
    value: &T,
    digest_of: &dyn Fn(&ComponentId) -> Option<Digest>,
) -> Result<String, EncodeError> {
    let value = serde_json::to_value(value).map_err(|e| EncodeError::NotJson(e.to_string()))?;
    let mut text = String::with_capacity(256);
    write_value(&value, digest_of, &mut text)?;
    Ok(text)
}

/// The digest of `value` in `domain` (such as `kiln.server.v1`).
pub fn digest<T: Serialize>(
    domain: &str,
    value: &T,
    digest_of: &dyn Fn(&ComponentId) -> Option<Digest>,
) -> Result<Digest, EncodeError> {
    let text = encode(value, digest_of)?;
    Ok(Digest::of(format!("{domain}\n{text}").as_bytes()))
}

fn write_value(
    value: &Value,
    digest_of: &dyn Fn(&ComponentId) -> Option<Digest>,
    out: &mut String,
) -> Result<(), EncodeError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) if number.is_f64() => {
            return Err(EncodeError::Fraction(number.to_string()));
        }
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(string) => write_string(string, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(item, digest_of, out)?;
            }
            out.push(']');
        }
        Value::Object(fields) => write_object(fields, digest_of, out)?,
    }
    Ok(())
}

fn write_object(
    fields: &serde_json::Map<String, Value>,
    digest_of: &dyn Fn(&ComponentId) -> Option<Digest>,
    out: &mut String,
) -> Result<(), EncodeError> {
    if let Some(Value::String(id)) = fields.get(BUILT_FROM) {
        let id: ComponentId = id
            .parse()
            .map_err(|e: crate::name::InvalidName| EncodeError::NotJson(e.to_string()))?;
        let digest = digest_of(&id).ok_or(EncodeError::UnknownReference(id))?;
        write_string(&digest.to_string(), out);
        return Ok(());
    }
    // Sorted here and not by the map, whose order depends on a feature that any crate in the
    // dependency tree could switch on.
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    out.push('{');
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(key, out);
        out.push(':');
        write_value(value, digest_of, out)?;
    }
    out.push('}');
    Ok(())
}

/// A JSON string with the escapes of RFC 8785, section 3.2.2.2.
fn write_string(string: &str, out: &mut String) {
    out.push('"');
    for c in string.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{9}' => out.push_str("\\t"),
            '\u{a}' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\u{d}' => out.push_str("\\r"),
            c if c < '\u{20}' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn nothing(_: &ComponentId) -> Option<Digest> {
        None
    }

    #[test]
    fn keys_are_sorted_and_strings_escaped() {
        let value = serde_json::json!({ "b": [1, true, null], "a": "x\n\"\u{1}é" });
        let text = encode(&value, &nothing).unwrap();
        assert_eq!(text, "{\"a\":\"x\\n\\\"\\u0001é\",\"b\":[1,true,null]}");
    }

    #[test]
    fn a_literal_digest_is_pinned() {
        let value = BTreeMap::from([("cidr", "10.60.0.0/24")]);
        let digest = digest("kiln.network.v1", &value, &nothing).unwrap();
        // printf 'kiln.network.v1\n{"cidr":"10.60.0.0/24"}' | sha256sum
        let expected = "sha256:fe3e6fe3e2067826348fe0da3508bce0e7996563ac7a027492f26d76c29b7560";
        assert_eq!(digest.to_string(), expected);
    }

    #[test]
    fn references_stand_as_digests() {
        let reference = BuiltFrom { id: "image.web".parse().unwrap() };
        let digest = Digest::of(b"web");
        let text = encode(&vec![reference.clone()], &|_| Some(digest)).unwrap();
        assert_eq!(text, format!("[\"{digest}\"]"));
        let unknown = encode(&vec![reference.clone()], &nothing);
        assert_eq!(unknown, Err(EncodeError::UnknownReference(reference.id)));
    }

    #[test]
    fn fractions_are_refused() {
        assert!(matches!(encode(&0.5, &nothing), Err(EncodeError::Fraction(_))));
    }
}
