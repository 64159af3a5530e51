//! `endpoint` blocks.

use std::net::SocketAddr;

use kiln_model::handling::Handling;
use kiln_model::name::{ComponentId, Kind};
use kiln_model::route::Protocol;
use kiln_model::spec::database::Engine;
use kiln_model::spec::endpoint::{Endpoint, EndpointIdentity, EndpointPolicy, Route};

use super::Reader;
use super::handling;
use crate::diagnostic::Diagnostic;
use crate::stack::decode::Field;

/// The longest host name (RFC 1035, section 2.3.4).
const LONGEST_HOST: usize = 253;

pub(super) fn endpoint(reader: &Reader<'_>) -> Option<Endpoint> {
    let protocol = reader.read_or("protocol", Protocol::Auto, protocol);
    let address = reader.required("listen", |field| {
        let address = listen(field)?;
        reader.claim_listener(address, protocol == Some(Protocol::Udp), field.span());
        Some(address)
    });
    let to = reader.required("to", |field| {
        let to = field.component(&[Kind::Server, Kind::Database], "server.web")?;
        reader.note_talk(&to, field.span());
        Some(to)
    });
    let port = reader.read_or("port", None, |f| f.port().map(Some));
    let routes = routes(reader);
    let handling = handling::handling(reader);
    let (to, protocol) = (to?, protocol?);
    let (port, protocol) = match (to.kind, port?) {
        (Kind::Database, None) => (Engine::Postgres.port(), Protocol::Database),
        (Kind::Database, Some(_)) => return refuse(reader, "port"),
        (_, Some(port)) => (port, protocol),
        (_, None) => {
            let diagnostic = Diagnostic::error(reader.header, "`port` is missing")
                .with_label(format!("at which port does {to} listen?"));
            reader.world.report(diagnostic);
            return None;
        }
    };
    let policy = EndpointPolicy { to, port, protocol, routes: routes?, handling: handling? };
    fits(reader, &policy)?;
    Some(Endpoint { identity: EndpointIdentity { listen: address? }, policy })
}

fn server(reader: &Reader<'_>, field: &Field<'_>) -> Option<ComponentId> {
    let to = field.component(&[Kind::Server], "server.web")?;
    reader.note_talk(&to, field.span());
    Some(to)
}

/// Reports what a database decides by itself.
fn refuse<T>(reader: &Reader<'_>, attribute: &str) -> Option<T> {
    let summary = format!("`{attribute}` does not go with an endpoint of a database");
    let diagnostic = Diagnostic::error(reader.header, summary);
    reader.world.report(diagnostic.with_help("leave it out: the engine says which it is"));
    None
}

/// Reports what means nothing with the protocol.
fn fits(reader: &Reader<'_>, policy: &EndpointPolicy) -> Option<()> {
    let http = policy.protocol.is_http() || policy.protocol == Protocol::Auto;
    let Handling { tls, proxy_protocol, .. } = &policy.handling;
    let wrong = if policy.protocol == Protocol::Udp && !tls.is_empty() {
        Some(("tls", "datagrams have no TLS", "leave it out"))
    } else if !policy.routes.is_empty() && !http {
        Some(("route", "hosts and paths are HTTP's", "set `protocol = \"http\"`"))
    } else if *proxy_protocol && policy.protocol != Protocol::Tcp {
        let why = "instances of a TCP endpoint alone are told the client's address that way";
        Some(("proxy_protocol", why, "HTTP has `x-forwarded-for`, which is always set"))
    } else {
        None
    };
    let Some((what, why, help)) = wrong else { return Some(()) };
    let summary = format!("`{what}` does not go with this endpoint's `protocol`");
    let diagnostic = Diagnostic::error(reader.header, summary);
    reader.world.report(diagnostic.with_label(why).with_help(help));
    None
}

fn routes(reader: &Reader<'_>) -> Option<Vec<Route>> {
    let (mut found, mut complete) = (Vec::<Route>::new(), true);
    reader.each_block(|block| match route(reader, &block.reader) {
        Some(route) => {
            let twin = |r: &Route| r.host == route.host && r.path == route.path;
            if found.iter().any(twin) {
                let summary = "two routes for the same host and path";
                reader.world.report(Diagnostic::error(block.reader.header, summary));
                complete = false;
            }
            found.push(route);
        }
        None => complete = false,
    });
    found.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
    complete.then_some(found)
}

fn route(endpoint: &Reader<'_>, reader: &Reader<'_>) -> Option<Route> {
    let to = reader.required("to", |field| server(endpoint, field));
    let port = reader.required("port", |f| f.port());
    let host = reader.read_or("host", None, |field| host(field).map(Some));
    let path = reader.read_or("path", String::new(), path);
    let route = Route { host: host?, path: path?, to: to?, port: port? };
    if route.host.is_none() && route.path.is_empty() {
        let diagnostic = Diagnostic::error(reader.header, "a `route` needs a `host` or a `path`");
        let help = "where everything else goes is said by the endpoint's own `to`";
        reader.world.report(diagnostic.with_help(help));
        return None;
    }
    Some(route)
}

/// Whether it stands for all hosts below a name.
pub(super) fn is_wild(host: &str) -> bool {
    host.starts_with("*.")
}

/// A host name, or `*.` and a host name.
pub(super) fn host(field: &Field<'_>) -> Option<String> {
    let text = field.string()?.to_ascii_lowercase();
    let name = text.strip_prefix("*.").unwrap_or(&text);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() <= LONGEST_HOST && name.split('.').all(label) {
        return Some(text);
    }
    field.refuse("a host without a port, such as \"shop.example\" or \"*.example\"")
}

/// The beginning of a path, in whole segments; a slash at its end says nothing more.
fn path(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let path = text.strip_suffix('/').unwrap_or(&text);
    let plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_graphic() && !b"?#%\\".contains(&b))
    };
    match path.strip_prefix('/') {
        None if text == "/" => Some(String::new()),
        Some(rest) if rest.split('/').all(plain) => Some(path.to_owned()),
        _ => field.refuse("the beginning of a path, such as \"/api/\", without `.`, `..` and `%`"),
    }
}

/// An address and port of this machine.
pub(in crate::stack) fn listen(field: &Field<'_>) -> Option<SocketAddr> {
    const EXPECTED: &str = "an address and a port, such as \"127.0.0.1:8080\"";
    let text = field.string()?;
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let refusal = field.refusal(EXPECTED);
    field.report(if let Some(port) = text.strip_prefix(':') {
        refusal.with_help(format!("for all addresses of the machine write \"0.0.0.0:{port}\""))
    } else if let Some(port) = text.strip_prefix("localhost:") {
        refusal.with_help(format!("write \"127.0.0.1:{port}\""))
    } else if text.parse::<u16>().is_ok() {
        refusal.with_help(format!("write \"127.0.0.1:{text}\" or \"0.0.0.0:{text}\""))
    } else {
        refusal
    });
    None
}

fn protocol(field: &Field<'_>) -> Option<Protocol> {
    match field.string()?.as_str() {
        "auto" => Some(Protocol::Auto),
        "http" => Some(Protocol::Http),
        "h2c" => Some(Protocol::H2c),
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => field.refuse("\"auto\", \"http\", \"h2c\", \"tcp\" or \"udp\""),
    }
}
