//! A bucket, reached by the protocol of S3: objects are put, read, listed and removed, each by one
//! signed request to `ENDPOINT/BUCKET/NAME`.
//!
//! A body is signed by its checksum, so a service that checks signatures takes no altered one. One
//! object has at most 5 GiB: that is what one request may carry.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;
use kiln_model::spec::backup::Bucket;
use rustls_native_certs::load_native_certs;
use ureq::http::Request;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::sign::{Unsigned, path, query, sign};
use super::{Content, Object, Store, StoreError};

/// The largest object of one request, in bytes.
const LARGEST: u64 = 5 << 30;
/// How long a connection may take to be made.
const CONNECTION: Duration = Duration::from_secs(10);
/// How long the head of an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// How long nothing may move in the middle of an object.
const STALL: Duration = Duration::from_secs(60);
/// The longest answer that is not an object, in bytes.
const LONGEST: u64 = 16 << 20;
/// How much of a refusal is told.
const TOLD: usize = 300;

/// A key of a service.
#[derive(Clone)]
pub struct Access {
    /// Its id.
    pub id: String,
    /// The key itself.
    pub secret: String,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access(sensitive)")
    }
}

/// A bucket.
#[derive(Debug)]
pub struct S3 {
    bucket: Bucket,
    access: Access,
    /// The endpoint without its scheme.
    host: String,
    agent: Agent,
}

impl S3 {
    /// The bucket; nothing is asked yet.
    pub fn new(bucket: Bucket, access: Access) -> Self {
        let host = bucket.endpoint.split_once("://").map_or("", |(_, host)| host).to_owned();
        let agent = agent(bucket.endpoint.starts_with("https:"));
        Self { bucket, access, host, agent }
    }

    /// The name of an object.
    fn key(&self, name: &str) -> String {
        if self.bucket.prefix.is_empty() {
            return name.to_owned();
        }
        format!("{}/{name}", self.bucket.prefix)
    }

    fn ask(
        &self,
        method: &str,
        name: &str,
        parts: &[(&str, &str)],
        content: Option<&Content>,
    ) -> Result<ureq::http::Response<Body>, String> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = path(&self.bucket.bucket, name);
        let unsigned = Unsigned {
            method,
            host: &self.host,
            path: &path,
            query: parts,
            body: content.map_or_else(|| Digest::of(b""), |content| content.digest),
            at: Timestamp(u64::try_from(since.as_millis()).unwrap_or_default()),
        };
        let signed = sign(&unsigned, &self.bucket.region, &self.access);
        let mut url = format!("{}{path}", self.bucket.endpoint);
        if !parts.is_empty() {
            url = format!("{url}?{}", query(parts));
        }
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", signed.authorization)
            .header("x-amz-content-sha256", signed.body)
            .header("x-amz-date", signed.date);
        let say = |error: &dyn std::error::Error| error.to_string();
        let Some(content) = content else {
            let request = request.body(()).map_err(|error| say(&error))?;
            return self.agent.run(request).map_err(|error| say(&error));
        };
        let mut reader = content.reader().map_err(|error| say(&error))?;
        let request = request.header("content-length", content.size.to_string());
        let request =
            request.body(SendBody::from_reader(&mut reader)).map_err(|error| say(&error))?;
        self.agent.run(request).map_err(|error| say(&error))
    }

    fn done(
        &self,
        what: impl FnOnce() -> String,
        answer: Result<ureq::http::Response<Body>, String>,
    ) -> Result<ureq::http::Response<Body>, StoreError> {
        let fail = |what, why: String| StoreError::Io {
            what,
            place: self.place(),
            source: io::Error::other(why),
        };
        match answer {
            Err(why) => Err(fail(what(), why)),
            Ok(answer) if answer.status().is_success() => Ok(answer),
            Ok(mut answer) => {
                let status = answer.status();
                let text = answer.body_mut().with_config().limit(LONGEST).read_to_string();
                let text = text.unwrap_or_default();
                let code = element(&text, "Code").unwrap_or_default();
                let message = element(&text, "Message").unwrap_or_default();
                let told: String =
                    format!("{status} {code} {message}").chars().take(TOLD).collect();
                let answer = told.trim().to_owned();
                Err(StoreError::Refused { what: what(), place: self.place(), answer })
            }
        }
    }
}

impl Store for S3 {
    fn place(&self) -> String {
        let Bucket { bucket, prefix, endpoint, .. } = &self.bucket;
        format!("s3://{bucket}/{prefix} at {endpoint}")
    }

    fn put(&self, name: &str, content: &Content) -> Result<(), StoreError> {
        let what = || format!("put {name}");
        if content.size > LARGEST {
            let gib = LARGEST >> 30;
            let why = format!("{} bytes are more than the {gib} GiB of one object", content.size);
            let source = io::Error::other(why);
            return Err(StoreError::Io { what: what(), place: self.place(), source });
        }
        let answer = self.ask("PUT", &self.key(name), &[], Some(content));
        self.done(what, answer).map(drop)
    }

    fn get(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let answer = self.ask("GET", &self.key(name), &[], None);
        if answer.as_ref().is_ok_and(|answer| answer.status() == 404) {
            return Err(StoreError::Absent { name: name.to_owned(), place: self.place() });
        }
        let answer = self.done(|| format!("read {name}"), answer)?;
        Ok(Box::new(answer.into_body().into_with_config().limit(u64::MAX).reader()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let what = || format!("list {prefix}");
        let (key, mut all, mut next) = (self.key(prefix), Vec::new(), None::<String>);
        let own = self.key("").len();
        loop {
            let token = next.take();
            let mut parts = vec![("list-type", "2"), ("prefix", key.as_str())];
            if let Some(token) = &token {
                parts.insert(0, ("continuation-token", token));
            }
            let mut answer = self.done(what, self.ask("GET", "", &parts, None))?;
            let text = answer.body_mut().with_config().limit(LONGEST).read_to_string();
            let text = text.map_err(|error| StoreError::Io {
                what: what(),
                place: self.place(),
                source: io::Error::other(error),
            })?;
            let senseless = || StoreError::Refused {
                what: what(),
                place: self.place(),
                answer: "something that is no list of objects".to_owned(),
            };
            if !text.contains("<ListBucketResult") || !text.contains("</ListBucketResult>") {
                return Err(senseless());
            }
            for piece in text.split("<Contents>").skip(1) {
                let object = object(piece, own).ok_or_else(senseless)?;
                all.push(object);
            }
            if element(&text, "IsTruncated").as_deref() != Some("true") {
                break;
            }
            next = Some(element(&text, "NextContinuationToken").ok_or_else(senseless)?);
            if next == token {
                return Err(senseless());
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let answer = self.ask("DELETE", &self.key(name), &[], None);
        if answer.as_ref().is_ok_and(|answer| answer.status() == 404) {
            return Ok(());
        }
        self.done(|| format!("remove {name}"), answer).map(drop)
    }
}

/// An object as it stands in a list; `own` characters of its key are the bucket's prefix.
fn object(text: &str, own: usize) -> Option<Object> {
    let name = element(text, "Key")?.get(own..)?.to_owned();
    let size = element(text, "Size")?.parse().ok()?;
    let modified = element(text, "LastModified")?.parse().ok()?;
    Some(Object { name, size, modified })
}

/// The text of the first element of that name, which holds no other.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#34;", "\""),
        ("&#39;", "'"),
    ];
    let plain = entities.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to));
    Some(plain.replace("&amp;", "&"))
}

/// It trusts whom the machine trusts, and goes nowhere else than it is told.
fn agent(tls: bool) -> Agent {
    let config = Agent::config_builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_connect(Some(CONNECTION))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(STALL))
        .timeout_per_write(Some(STALL));
    if !tls {
        return Agent::new_with_config(config.build());
    }
    let found = load_native_certs().certs;
    let trusted: Vec<Certificate<'static>> =
        found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let roots = RootCerts::new_with_certs(&trusted);
    Agent::new_with_config(
        config.tls_config(TlsConfig::builder().root_certs(roots).build()).build(),
    )
}
