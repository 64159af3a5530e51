//! Signing requests as services of S3 ask for it: AWS Signature Version 4
//! (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

use std::fmt::Write as _;

use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;
use ring::hmac;

use super::s3::Access;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A request that is to be signed.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// With port, where it is not the scheme's.
    pub(super) host: &'a str,
    /// Encoded, from the first slash on.
    pub(super) path: &'a str,
    /// Names and values as they are; in the order of the names.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// The SHA-256 of the body.
    pub(super) body: Digest,
    pub(super) at: Timestamp,
}

/// The headers that a signed request has besides `host`.
pub(super) struct Signed {
    pub(super) authorization: String,
    pub(super) date: String,
    pub(super) body: String,
}

/// Signs a request for a region's service of S3.
pub(super) fn sign(request: &Unsigned<'_>, region: &str, access: &Access) -> Signed {
    const HEADERS: &str = "host;x-amz-content-sha256;x-amz-date";
    let date = basic(request.at);
    let day = &date[..8];
    let body = request.body.hex();
    let canonical = format!(
        "{}\n{}\n{}\nhost:{}\nx-amz-content-sha256:{body}\nx-amz-date:{date}\n\n{HEADERS}\n{body}",
        request.method,
        request.path,
        query(request.query),
        request.host,
    );
    let scope = format!("{day}/{region}/s3/aws4_request");
    let hash = Digest::of(canonical.as_bytes()).hex();
    let text = format!("{ALGORITHM}\n{date}\n{scope}\n{hash}");
    let mut key = format!("AWS4{}", access.secret).into_bytes();
    for part in [day, region, "s3", "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex(&mac(&key, text.as_bytes()));
    let id = &access.id;
    let authorization = format!(
        "{ALGORITHM} Credential={id}/{scope}, SignedHeaders={HEADERS}, Signature={signature}"
    );
    Signed { authorization, date, body }
}

/// A query as it stands in the URL and is signed.
pub(super) fn query(parts: &[(&str, &str)]) -> String {
    let parts = parts.iter().map(|(name, value)| {
        let (mut text, slash) = (String::new(), false);
        encode(name, slash, &mut text);
        text.push('=');
        encode(value, slash, &mut text);
        text
    });
    parts.collect::<Vec<String>>().join("&")
}

/// A path as it stands in the URL and is signed.
pub(super) fn path(bucket: &str, name: &str) -> String {
    let mut text = format!("/{bucket}");
    if !name.is_empty() {
        text.push('/');
        encode(name, true, &mut text);
    }
    text
}

fn encode(text: &str, keeps_slash: bool, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keeps_slash && byte == b'/')
        {
            into.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// An instant in the basic form of ISO 8601, to the second.
fn basic(at: Timestamp) -> String {
    let extended = at.to_string();
    let seconds = extended.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "GET Bucket (List Objects)" of the service's documentation, "Authenticating Requests: Using
    /// the Authorization Header".
    #[test]
    fn the_published_example_is_signed_as_published() {
        let request = Unsigned {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/",
            query: &[("max-keys", "2"), ("prefix", "J")],
            body: Digest::of(b""),
            at: "2013-05-24T00:00:00Z".parse().unwrap(),
        };
        let access = Access {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        let signed = sign(&request, "us-east-1", &access);
        assert_eq!(signed.date, "20130524T000000Z");
        assert!(
            signed.authorization.ends_with(
                "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
            ),
            "{}",
            signed.authorization
        );
    }

    #[test]
    fn names_are_encoded_once() {
        assert_eq!(path("b", "x/a b+ü"), "/b/x/a%20b%2B%C3%BC");
        assert_eq!(query(&[("list-type", "2"), ("prefix", "a/b")]), "list-type=2&prefix=a%2Fb");
    }
}
