//! TLS at endpoints: what is spoken, which certificate, and what happens when files change.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kiln_gateway::GatewayError;
use kiln_gateway::control::Refusal;
use kiln_model::certificate::{Certificate, CertificatePair, Key};
use kiln_model::route::{EndpointRoute, Protocol};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::backend::Backend;
use crate::world::{World, endpoint, eventually, table};

/// Where a certificate and its key are.
pub(crate) struct Files {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Files {
    pub(crate) fn pair(&self) -> Certificate {
        let (certificate, key) = (self.certificate.clone(), Key::File(self.key.clone()));
        CertificatePair { certificate, key }.into()
    }
}

/// A certificate for a host, made by the `openssl` command; `None` where there is none.
pub(crate) fn certificate(directory: &Path, name: &str, hosts: &[&str]) -> Option<Files> {
    let path = |ending: &str| directory.join(format!("{name}.{ending}")).display().to_string();
    let files = Files { certificate: path("pem"), key: path("key") };
    let names: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=kiln", "-addext"])
        .arg(format!("subjectAltName={}", names.join(",")))
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &files.key, "-out", &files.certificate])
        .output();
    match made {
        Ok(made) => {
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            Some(files)
        }
        Err(error) => {
            println!("skipped: tls: the openssl command: {error}");
            None
        }
    }
}

/// A client that trusts what these files hold.
fn client(files: &[&Files], protocols: &[&str], version: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for files in files {
        for found in CertificateDer::pem_file_iter(&files.certificate).unwrap() {
            roots.add(found.unwrap()).unwrap();
        }
    }
    let versions = match version {
        Some("1.2") => &[&rustls::version::TLS12][..],
        _ => rustls::DEFAULT_VERSIONS,
    };
    let mut config = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    config
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, host: &str, config: ClientConfig) -> std::io::Result<Tls> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

fn ask(stream: &mut Tls, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(e),
        _ => Ok(answer),
    }
}

fn secured(route: EndpointRoute, files: &[&Files]) -> EndpointRoute {
    let mut route = route;
    route.handling.tls = files.iter().map(|files| files.pair()).collect();
    route
}

#[test]
fn clients_get_the_certificate_of_their_host_and_speak_what_they_agreed_on() {
    let Some(world) = World::start("clients_get_the_certificate") else { return };
    let Some(one) = certificate(world.root.path(), "one", &["a.example", "b.example"]) else {
        return;
    };
    let two = certificate(world.root.path(), "two", &["*.wild.example"]).unwrap();
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let echo = Backend::bytes(&network, "echo-1");
    let routes = vec![
        secured(endpoint("auto", 0, Protocol::Auto, vec![backend.route.clone()]), &[&one, &two]),
        secured(endpoint("echo", 0, Protocol::Tcp, vec![echo.route.clone()]), &[&one]),
    ];
    let bound = world.gateway.set_table(table(routes, vec![])).unwrap().bound;
    let (web, tcp) = (bound[0].address, bound[1].address);
    let config = |p: &[&str], version| client(&[&one, &two], p, version);
    for (host, protocols, version) in [
        ("a.example", &["http/1.1"][..], None),
        ("b.example", &[], None),
        ("x.wild.example", &["http/1.1"], None),
        ("a.example", &[], Some("1.2")),
    ] {
        let mut stream = connect(web, host, config(protocols, version)).unwrap();
        let answer = ask(&mut stream, "/headers").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{host} {answer}");
        assert!(answer.contains("x-forwarded-proto: https"), "{answer}");
        assert!(answer.contains(";proto=https"), "{answer}");
    }
    let stream = connect(web, "a.example", config(&["h2", "http/1.1"], None)).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    // The certificate of another host is not trusted for this one.
    assert!(connect(web, "deep.x.wild.example", config(&[], None)).is_err());
    let mut stream = connect(tcp, "a.example", config(&[], None)).unwrap();
    let mut name = [0; 7];
    stream.read_exact(&mut name).unwrap();
    assert_eq!(&name, b"echo-1\n");
    let sent = vec![7; 300_000];
    let mut back = vec![0; sent.len()];
    for (piece, back) in sent.chunks(30_000).zip(back.chunks_mut(30_000)) {
        stream.write_all(piece).unwrap();
        stream.read_exact(back).unwrap();
    }
    assert_eq!(sent, back);
    // In the clear nobody is served, and others are not disturbed.
    let mut plain = TcpStream::connect(web).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn changed_files_are_taken_and_broken_ones_are_not() {
    let Some(world) = World::start("changed_files_are_taken") else { return };
    let Some(files) = certificate(world.root.path(), "one", &["a.example"]) else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let routes = |port| {
        vec![secured(endpoint("web", port, Protocol::Http, vec![backend.route.clone()]), &[&files])]
    };
    let applied = world.gateway.set_table(table(routes(0), vec![])).unwrap();
    let address = applied.bound[0].address;
    let old = client(&[&files], &[], None);
    let mut kept = connect(address, "a.example", old.clone()).unwrap();
    certificate(world.root.path(), "one", &["a.example"]).unwrap();
    let new = client(&[&files], &[], None);
    eventually(Duration::from_secs(5), "the new certificate is taken", || {
        connect(address, "a.example", new.clone()).is_ok()
    });
    assert!(connect(address, "a.example", old).is_err());
    // A connection that was there goes on.
    assert!(ask(&mut kept, "/").unwrap().starts_with("HTTP/1.1 200"));
    // A key that does not belong to it, a text that is none, a file that is gone.
    let key = std::fs::read(&files.key).unwrap();
    let other = certificate(world.root.path(), "other", &["a.example"]).unwrap();
    std::fs::copy(&other.key, &files.key).unwrap();
    let trouble = || world.gateway.status().unwrap().endpoints[0].certificates[0].trouble.clone();
    eventually(Duration::from_secs(5), "the foreign key is told", || {
        trouble().is_some_and(|t| t.contains("the key is not that of the certificate"))
    });
    std::fs::remove_file(&files.key).unwrap();
    eventually(Duration::from_secs(5), "the absence is told", || {
        trouble().is_some_and(|t| t.contains("No such file"))
    });
    assert!(connect(address, "a.example", new.clone()).is_ok());
    // An unrelated change is not refused for it.
    world.gateway.set_table(table(routes(0), vec![])).unwrap();
    assert!(connect(address, "a.example", new.clone()).is_ok());
    std::fs::write(&files.key, key).unwrap();
    eventually(Duration::from_secs(5), "all is well again", || trouble().is_none());
    let log = std::fs::read_to_string(world.root.path().join("logs/gateway.log")).unwrap();
    assert!(log.contains("cannot be renewed, the one before stays in use"), "{log}");
}

#[test]
fn an_unusable_certificate_is_refused_and_changes_nothing() {
    let Some(world) = World::start("an_unusable_certificate") else { return };
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let plain = endpoint("web", 0, Protocol::Http, vec![backend.route.clone()]);
    world.gateway.set_table(table(vec![plain.clone()], vec![])).unwrap();
    let path = |name: &str| world.root.path().join(name).display().to_string();
    std::fs::write(path("empty"), "").unwrap();
    for (certificate, reason) in [("none", "No such file"), ("empty", "holds no certificate")] {
        let files = Files { certificate: path(certificate), key: path("empty") };
        let offered = vec![secured(plain.clone(), &[&files])];
        let refused = world.gateway.set_table(table(offered, vec![]));
        let Err(GatewayError::Refused(Refusal::Certificate { error, .. })) = refused else {
            panic!("{refused:?}");
        };
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(world.gateway.status().unwrap().tables[0].endpoints, [plain]);
}
