//! TLS at endpoints: certificates from files, read anew when they change.

mod keeper;
mod keypair;
mod names;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::route::Protocol;
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) use keeper::{Keeper, Kept};
pub(crate) use keypair::Texts;
use names::ByName;

/// How often the files are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// HTTP/2 and HTTP/1.1 as a handshake names them (RFC 7301).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What a client has agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Nothing was said.
    Nothing,
}

/// The side of a server that has these certificates: TLS 1.2 and 1.3. Sessions are resumed by
/// tickets, whose keys stay in this process and change by themselves.
pub(crate) fn server(
    certificates: Vec<Arc<Kept>>,
    protocol: Protocol,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName::new(certificates)));
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    if protocol != Protocol::Tcp {
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    }
    Ok(config)
}

/// The handshake with a client.
pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, Agreed)> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let agreed = match stream.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Agreed::Http2,
        Some(HTTP1) => Agreed::Http1,
        _ => Agreed::Nothing,
    };
    Ok((stream, agreed))
}
