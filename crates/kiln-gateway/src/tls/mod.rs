//! TLS at endpoints: certificates from files, read anew when they change.

mod keeper;
mod keypair;
mod names;
mod proof;
mod source;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::route::Protocol;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

pub(crate) use keeper::{Keeper, Kept};
pub(crate) use keypair::Texts;
use names::ByName;
use proof::ACME_TLS;
pub(crate) use proof::Proofs;
pub(crate) use source::Source;

/// How often the files are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// HTTP/2 and HTTP/1.1 as a handshake names them (RFC 7301).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The same for PostgreSQL, which newer clients name.
const POSTGRESQL: &[u8] = b"postgresql";

/// What a client has agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Nothing was said.
    Nothing,
    /// A certificate authority asked for a proof, and has it.
    Proof,
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
    config.alpn_protocols = match protocol {
        Protocol::Tcp => Vec::new(),
        Protocol::Database => vec![POSTGRESQL.to_vec()],
        _ => vec![HTTP2.to_vec(), HTTP1.to_vec()],
    };
    Ok(config)
}

/// One side of TLS.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) config: Arc<ServerConfig>,
    /// Whether certificate authorities may ask for proofs.
    pub(crate) proves: bool,
}

/// The handshake with a client.
pub(crate) async fn accept(
    side: Side,
    proofs: &Proofs,
    stream: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, Agreed)> {
    let stream = if side.proves {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let hello = begun.client_hello();
        if hello.alpn().is_some_and(|mut offered| offered.any(|name| name == ACME_TLS)) {
            let config = proofs.of(hello.server_name())?;
            return Ok((begun.into_stream(config).await?, Agreed::Proof));
        }
        begun.into_stream(side.config).await?
    } else {
        TlsAcceptor::from(side.config).accept(stream).await?
    };
    let agreed = match stream.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Agreed::Http2,
        Some(HTTP1) => Agreed::Http1,
        _ => Agreed::Nothing,
    };
    Ok((stream, agreed))
}
