//! How an endpoint's traffic is handled: `tls`, `balance`, `limits` and the rest.

use kiln_model::handling::{Balance, Handling, HashKey, Limits};
use kiln_model::quantity::{Bytes, Millis};

use super::Reader;
use super::certificate::tls;
use crate::stack::decode::Field;

/// Longer waits would not be noticed as such.
const LONGEST: Millis = Millis::seconds(86_400);
/// The shortest time that a client or an instance may be given.
const SHORTEST: Millis = Millis(10);
/// Requests that an instance may be given at a time, or that may wait.
const MOST_REQUESTS: u32 = 1_000_000;
/// The largest bound on a body.
const LARGEST_BODY: Bytes = Bytes(1 << 50);

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
