//! How an endpoint's traffic is handled: `tls`, `balance`, `limits` and the rest.

use kiln_model::handling::{Balance, CertificateFiles, Handling, HashKey, Limits};
use kiln_model::quantity::{Bytes, Millis};

use super::Reader;
use super::paths::is_canonical;
use crate::stack::decode::Field;

/// Longer waits would not be noticed as such.
const LONGEST: Millis = Millis::seconds(86_400);
/// The shortest time that a client or an instance may be given.
const SHORTEST: Millis = Millis(10);
/// Requests that an instance may be given at a time, or that may wait.
const MOST_REQUESTS: u32 = 1_000_000;
/// The largest bound on a body.
const LARGEST_BODY: Bytes = Bytes(1 << 50);
/// Certificates of one endpoint.
const MOST_CERTIFICATES: usize = 10_000;

pub(super) fn handling(reader: &Reader<'_>) -> Option<Handling> {
    let tls = reader.read_or("tls", Vec::new(), tls);
    let balance = reader.read_or("balance", Balance::default(), balance);
    let limits = reader.read_or("limits", Limits::default(), limits);
    let proxy_protocol = reader.read_or("proxy_protocol", false, |field| field.boolean());
    let access_log = reader.read_or("access_log", false, |field| field.boolean());
    Some(Handling {
        tls: tls?,
        balance: balance?,
        limits: limits?,
        proxy_protocol: proxy_protocol?,
        access_log: access_log?,
    })
}

/// One certificate, or a list of them.
fn tls(field: &Field<'_>) -> Option<Vec<CertificateFiles>> {
    if field.value().as_elements().is_none() {
        return certificate(field).map(|one| vec![one]);
    }
    let elements = field.elements()?;
    if elements.is_empty() || elements.len() > MOST_CERTIFICATES {
        return field.refuse("at least one certificate, such as { certificate = …, key = … }");
    }
    // Not lazily: each wrong one is to be reported.
    let read: Vec<_> = elements.iter().map(certificate).collect();
    read.into_iter().collect()
}

fn certificate(field: &Field<'_>) -> Option<CertificateFiles> {
    let settings = field.settings(&["certificate", "key", "acme"])?;
    if let Some(acme) = settings.get("acme") {
        let refusal = acme.refusal("left out: certificates by ACME are not supported yet");
        acme.report(refusal.with_help(
            "let an ACME client of the machine write the files: they are read anew when they change",
        ));
        return None;
    }
    let [Some(certificate), Some(key)] = ["certificate", "key"].map(|name| settings.get(name))
    else {
        return field.refuse("{ certificate = \"/path.pem\", key = \"/path.key\" }");
    };
    let key = if key.value().first_secret().is_some() {
        let refusal = key.refusal("the path of a file: keys are never handed on by value");
        key.report(refusal.with_help("write the key into a file that only root can read"));
        None
    } else {
        path(key)
    };
    Some(CertificateFiles { certificate: path(certificate)?, key: key? })
}

/// A file that the gateway reads, wherever the stack's directory is.
fn path(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    if is_canonical(&text) && text != "/" {
        return Some(text);
    }
    field.refuse("an absolute path of this machine without `.`, `..` or a final `/`")
}

fn balance(field: &Field<'_>) -> Option<Balance> {
    const EXPECTED: &str = "\"power_of_two\", \"least_connections\", \"hash\", \
        { header = \"x-user\" } or { cookie = \"session\" }";
    if field.value().as_entries().is_none() {
        return match field.string()?.as_str() {
            "power_of_two" => Some(Balance::PowerOfTwo),
            "least_connections" => Some(Balance::LeastConnections),
            "hash" => Some(Balance::Hash(HashKey::Address)),
            _ => field.refuse(EXPECTED),
        };
    }
    let settings = field.settings(&["header", "cookie"])?;
    match (settings.get("header"), settings.get("cookie")) {
        (Some(header), None) => {
            let name = token(header)?.to_ascii_lowercase();
            Some(Balance::Hash(HashKey::Header(name)))
        }
        (None, Some(cookie)) => Some(Balance::Hash(HashKey::Cookie(token(cookie)?))),
        _ => field.refuse(EXPECTED),
    }
}

/// The name of a header field or cookie (RFC 9110, section 5.6.2).
fn token(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let known = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !text.is_empty() && text.len() <= 256 && text.bytes().all(known) {
        return Some(text);
    }
    field.refuse("a name of letters, digits and `-`")
}

fn limits(field: &Field<'_>) -> Option<Limits> {
    let settings = field.settings(&[
        "concurrency",
        "queue",
        "wait",
        "hold",
        "head",
        "idle",
        "response",
        "body",
    ])?;
    let count = |name, least| {
        settings.read_or(name, None, |field| field.integer(least..=MOST_REQUESTS).map(Some))
    };
    let span =
        |name, least| settings.read_or(name, None, |field| field.millis(least..=LONGEST).map(Some));
    let (concurrency, queue) = (count("concurrency", 1), count("queue", 0));
    let (wait, hold) = (span("wait", Millis(0)), span("hold", Millis(0)));
    let (head, idle) = (span("head", SHORTEST), span("idle", SHORTEST));
    let response = span("response", SHORTEST);
    let body = |field: &Field<'_>| field.bytes(Bytes(0)..=LARGEST_BODY).map(Some);
    let body = settings.read_or("body", None, body);
    if concurrency == Some(None)
        && let Some(lonely) = settings.set_of(&["queue", "wait"]).first()
    {
        return lonely.refuse("set together with `concurrency`: without it nothing waits");
    }
    Some(Limits {
        concurrency: concurrency?,
        queue: queue?,
        wait: wait?,
        hold: hold?,
        head: head?,
        idle: idle?,
        response: response?,
        body: body?,
    })
}
