//! What a proxy has to change in the head of a message (RFC 9110, section 7.6; RFC 7239).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, Uri, Version};

use crate::http::fault::Fault;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What concerns one connection only, whether `Connection` names it or not; in the order of
/// [`strip_connection_fields`].
static OF_CONNECTION: [HeaderName; 7] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS];

/// Who the client is, written once for all requests of its connection.
#[derive(Debug)]
pub(crate) struct Origin {
    address: HeaderValue,
    element: String,
    /// `http` or `https`.
    scheme: &'static str,
    /// The `Forwarded` of the last request, with the host that it names.
    forwarded: Mutex<Option<(HeaderValue, HeaderValue)>>,
    /// Whether the client is outside: then what it says about host and protocol of the request
    /// before it is replaced, else it is kept.
    edge: bool,
}

impl Origin {
    pub(crate) fn new(remote: SocketAddr, edge: bool, secure: bool) -> Self {
        let ip = remote.ip().to_canonical();
        let element = match ip {
            IpAddr::V4(ip) => format!("for={ip}"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
        };
        let address = HeaderValue::from_str(&ip.to_string())
            .unwrap_or_else(|_not_ascii| HeaderValue::from_static("unknown"));
        let scheme = if secure { "https" } else { "http" };
        Self { address, element, scheme, forwarded: Mutex::default(), edge }
    }

    fn add_to(&self, headers: &mut HeaderMap, host: &HeaderValue) {
        let before = joined(headers, &X_FORWARDED_FOR, ", ");
        let chain = before.and_then(|mut list| {
            list.extend_from_slice(b", ");
            list.extend_from_slice(self.address.as_bytes());
            HeaderValue::from_bytes(&list).ok()
        });
        headers.insert(X_FORWARDED_FOR, chain.unwrap_or_else(|| self.address.clone()));
        if self.edge || !headers.contains_key(X_FORWARDED_HOST) {
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
        if self.edge || !headers.contains_key(X_FORWARDED_PROTO) {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
        }
        if let Some(element) = self.forwarded(host) {
            headers.append(FORWARDED, element);
        }
    }

    /// Clients seldom ask one connection for several hosts, so the last one is remembered.
    fn forwarded(&self, host: &HeaderValue) -> Option<HeaderValue> {
        let mut last = self.forwarded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, element)) = &*last
            && before == host
        {
            return Some(element.clone());
        }
        if host.as_bytes().contains(&b'"') {
            return None;
        }
        let element = [
            self.element.as_bytes(),
            b";host=\"",
            host.as_bytes(),
            b"\";proto=",
            self.scheme.as_bytes(),
        ];
        let element = HeaderValue::from_bytes(&element.concat()).ok()?;
        // Of its own: the one that is given is a part of the whole head.
        let own = HeaderValue::from_bytes(host.as_bytes()).ok()?;
        *last = Some((own, element.clone()));
        Some(element)
    }
}

/// All values of a field as one list; `None` where there is none.
fn joined(headers: &HeaderMap, name: &HeaderName, separator: &str) -> Option<Vec<u8>> {
    let mut values = headers.get_all(name).iter();
    let mut list = values.next()?.as_bytes().to_vec();
    for value in values {
        list.extend_from_slice(separator.as_bytes());
        list.extend_from_slice(value.as_bytes());
    }
    Some(list)
}

/// A request that may be passed on, and who it is for.
#[derive(Debug)]
pub(crate) struct Head {
    /// The host that it names.
    pub(crate) host: HeaderValue,
    /// Whether the client asks for another protocol on its connection.
    pub(crate) upgrade: bool,
}

/// Makes a client's request one for an instance, which speaks HTTP/1.1 or, with `http2`, that.
pub(crate) fn prepare_request<B>(
    request: &mut Request<B>,
    origin: &Origin,
    http2: bool,
) -> Result<Head, Fault> {
    if request.method() == Method::CONNECT {
        return Err(Fault::Connect);
    }
    let protocol = if http2 { None } else { asked_upgrade(request) };
    let upgrade = protocol.is_some();
    let host = host_of(request)?;
    let is_named = !http2 && request.uri().authority().is_none();
    if http2 {
        *request.uri_mut() = absolute_form(request.uri(), &host)?;
    } else if !is_named {
        *request.uri_mut() = origin_form(request.uri())?;
    }
    *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let headers = request.headers_mut();
    let trailers = headers.get(TE).is_some_and(|te| has_token(te, "trailers"));
    strip_connection_fields(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if !http2 {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    if let Some(protocol) = protocol {
        set_upgrade(headers, protocol);
    }
    // HTTP/2 may send cookies one by one, HTTP/1.1 may not (RFC 9113, section 8.2.3).
    if headers.get_all(COOKIE).iter().nth(1).is_some()
        && let Some(cookies) = joined(headers, &COOKIE, "; ")
        && let Ok(cookies) = HeaderValue::from_bytes(&cookies)
    {
        headers.insert(COOKIE, cookies);
    }
    origin.add_to(headers, &host);
    if http2 {
        headers.remove(HOST);
    } else if !is_named || host.is_empty() {
        headers.insert(HOST, host.clone());
    }
    Ok(Head { host, upgrade })
}

/// Makes an instance's response one for the client. `upgraded`: it has agreed to switch.
pub(crate) fn prepare_response<B>(response: &mut Response<B>, upgraded: bool) {
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    let protocol = if upgraded { headers.get(UPGRADE).cloned() } else { None };
    strip_connection_fields(headers);
    if let Some(protocol) = protocol {
        set_upgrade(headers, protocol);
    }
}

fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The protocol to which an HTTP/1.1 client wants to switch. The switch to HTTP/2 is not
/// offered: who speaks it says so with the first bytes.
fn asked_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let asked = headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"));
    let protocol = headers.get(UPGRADE)?;
    let offered = request.version() == Version::HTTP_11 && !has_token(protocol, "h2c");
    (asked && offered).then(|| protocol.clone())
}

/// The one host that a request is for. Where its target and its `Host` both name one, they have
/// to be the same: another server might go by the other one.
fn host_of<B>(request: &Request<B>) -> Result<HeaderValue, Fault> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || !host.is_none_or(|host| is_host(host.as_bytes())) {
        return Err(Fault::BadRequest);
    }
    // HTTP/1.1 has to name it, whatever its target says (RFC 9112, section 3.2).
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Fault::BadRequest);
    }
    if let Some(authority) = request.uri().authority() {
        let named = authority.as_str();
        let same = |host: &HeaderValue| {
            let plain = |host| <[u8]>::strip_suffix(host, b":80").unwrap_or(host);
            plain(host.as_bytes()).eq_ignore_ascii_case(plain(named.as_bytes()))
        };
        if named.contains('@') || !host.is_none_or(same) {
            return Err(Fault::BadRequest);
        }
        return HeaderValue::from_str(named).map_err(|_| Fault::BadRequest);
    }
    match host {
        Some(host) => Ok(host.clone()),
        // HTTP/1.0 knows no hosts.
        None if request.version() == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        None => Err(Fault::BadRequest),
    }
}

/// Whether a `Host` has only what a host and a port can have (RFC 3986, section 3.2.2).
fn is_host(host: &[u8]) -> bool {
    let known = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(b);
    host.iter().all(known)
}

/// The target with scheme and host, as HTTP/2 takes it apart.
fn absolute_form(uri: &Uri, host: &HeaderValue) -> Result<Uri, Fault> {
    let path = uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| hyper::http::uri::PathAndQuery::from_static("/"));
    let host = if host.is_empty() { &HeaderValue::from_static("localhost") } else { host };
    let uri = Uri::builder().scheme("http").authority(host.as_bytes()).path_and_query(path);
    uri.build().map_err(|_| Fault::BadRequest)
}

/// The target without scheme and host, as an origin server expects it.
fn origin_form(uri: &Uri) -> Result<Uri, Fault> {
    if uri.authority().is_none() {
        return Ok(uri.clone());
    }
    let path = uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| hyper::http::uri::PathAndQuery::from_static("/"));
    let mut parts = hyper::http::uri::Parts::default();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| Fault::BadRequest)
}

/// Tells the client that this was the last request on its connection.
pub(crate) fn say_close<B>(response: &mut Response<B>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Removes what concerns this connection only: the fields known as such and those that
/// `Connection` names. Nobody may have the length, the host or the client's address removed
/// that way.
fn strip_connection_fields(headers: &mut HeaderMap) {
    let mut found = [false; OF_CONNECTION.len()];
    for name in headers.keys() {
        // Compiled to a look at the length for nearly all others.
        let index = match name.as_str() {
            "connection" => 0,
            "keep-alive" => 1,
            "proxy-connection" => 2,
            "te" => 3,
            "transfer-encoding" => 4,
            "upgrade" => 5,
            "http2-settings" => 6,
            _ => continue,
        };
        found[index] = true;
    }
    if found[0] {
        strip_named(headers);
    }
    for (name, _) in OF_CONNECTION.iter().zip(found).filter(|(_, found)| *found) {
        headers.remove(name);
    }
}

/// Removes the fields that `Connection` names.
fn strip_named(headers: &mut HeaderMap) {
    let is_usual = |value: &HeaderValue| {
        [&b"keep-alive"[..], b"close"]
            .iter()
            .any(|usual| value.as_bytes().eq_ignore_ascii_case(usual))
    };
    if headers.get_all(CONNECTION).iter().all(is_usual) {
        return;
    }
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    let names = values.iter().filter_map(|value| value.to_str().ok());
    for name in names.flat_map(|names| names.split(',')) {
        let Ok(name) = HeaderName::try_from(name.trim()) else { continue };
        if name != CONTENT_LENGTH && name != HOST && !name.as_str().starts_with("x-forwarded") {
            headers.remove(name);
        }
    }
}

/// Whether a list contains a word, in any case and with any parameters.
pub(crate) fn has_token(list: &HeaderValue, token: &str) -> bool {
    list.len() >= token.len()
        && list.to_str().is_ok_and(|list| {
            list.split(',').any(|item| {
                let word = item.split(';').next().unwrap_or_default().trim();
                word.eq_ignore_ascii_case(token)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(parse).collect()
    }

    #[test]
    fn connection_fields_end_here_and_others_do_not() {
        let mut fields = headers(&[
            ("connection", "close, X-Secret, content-length"),
            ("x-secret", "1"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("accept", "*/*"),
        ]);
        strip_connection_fields(&mut fields);
        assert_eq!(fields, headers(&[("content-length", "3"), ("accept", "*/*")]));
    }

    #[test]
    fn the_client_is_added_to_the_chain() {
        let origin = Origin::new("10.0.0.7:5".parse().unwrap(), true, false);
        let mut fields = headers(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]);
        origin.add_to(&mut fields, &HeaderValue::from_static("shop:8080"));
        let expected = headers(&[
            ("x-forwarded-for", "1.1.1.1, 10.0.0.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop:8080"),
            ("forwarded", "for=10.0.0.7;host=\"shop:8080\";proto=http"),
        ]);
        assert_eq!(fields, expected);
        let inside = Origin::new("10.0.0.7:5".parse().unwrap(), false, false);
        let mut fields = headers(&[("x-forwarded-proto", "https")]);
        inside.add_to(&mut fields, &HeaderValue::from_static("api"));
        assert_eq!(fields["x-forwarded-proto"], "https");
        assert_eq!(fields["x-forwarded-for"], "10.0.0.7");
    }

    #[test]
    fn targets_lose_scheme_and_host() {
        for (target, expected) in
            [("http://a/b?c", "/b?c"), ("http://a", "/"), ("/x", "/x"), ("*", "*")]
        {
            assert_eq!(origin_form(&target.parse().unwrap()).unwrap(), expected);
        }
    }
}
