//! `endpoint` blocks.

use std::net::SocketAddr;

use kiln_model::name::Kind;
use kiln_model::route::Protocol;
use kiln_model::spec::endpoint::{Endpoint, EndpointIdentity, EndpointPolicy};

use super::Reader;
use crate::stack::decode::Field;

pub(super) fn endpoint(reader: &Reader<'_>) -> Option<Endpoint> {
    let address = reader.required("listen", |field| {
        let address = listen(field)?;
        reader.claim_listener(address, field.span());
        Some(address)
    });
    let to = reader.required("to", |field| {
        let to = field.component(&[Kind::Server], "server.web")?;
        reader.note_talk(&to, field.span());
        Some(to)
    });
    let port = reader.required("port", |f| f.port());
    let protocol = reader.read_or("protocol", Protocol::Auto, protocol);
    let identity = EndpointIdentity { listen: address? };
    Some(Endpoint {
        identity,
        policy: EndpointPolicy { to: to?, port: port?, protocol: protocol? },
    })
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
        "tcp" => Some(Protocol::Tcp),
        _ => field.refuse("\"auto\", \"http\" or \"tcp\""),
    }
}
