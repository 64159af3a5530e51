//! Single requests, with whom they are from.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, SendBody};

use super::retry::Trouble;
use super::{Registry, RegistryError};
use crate::fetch::{OnceResolver, Patience};
use crate::oci::reference::Reference;

/// The longest text of an error that is read, in bytes.
const MAX_ERROR_BYTES: u64 = 8 << 10;

/// What a request may do.
#[derive(Clone, Debug)]
pub(super) struct Scope<'a> {
    pub(super) host: &'a str,
    pub(super) repository: &'a str,
    pub(super) push: bool,
    /// Another repository of the registry that a blob is to be taken from.
    pub(super) from: Option<&'a str>,
}

impl<'a> Scope<'a> {
    pub(super) fn pull(reference: &'a Reference) -> Self {
        let Reference { host, repository, .. } = reference;
        Self { host, repository, push: false, from: None }
    }

    pub(super) fn push(reference: &'a Reference) -> Self {
        Self { push: true, ..Self::pull(reference) }
    }

    /// The scopes as tokens name them.
    pub(super) fn names(&self) -> Vec<String> {
        let actions = if self.push { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.repository);
        let from = self.from.map(|from| format!("repository:{from}:pull"));
        std::iter::once(own).chain(from).collect()
    }

    fn action(&self) -> &'static str {
        if self.push { "write to" } else { "read" }
    }
}

/// What is sent with a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// `length` bytes from `offset` on of a file.
    Part {
        path: &'a Path,
        offset: u64,
        length: u64,
    },
}

/// A request.
pub(super) struct Call<'a> {
    pub(super) method: &'static str,
    pub(super) url: &'a str,
    pub(super) scope: &'a Scope<'a>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload<'a>,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: &'static str, url: &'a str, scope: &'a Scope<'a>) -> Self {
        Self { method, url, scope, headers: Vec::new(), payload: Payload::None }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn with(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }
}

impl Registry {
    /// The connections, made ready at the first request.
    pub(super) fn agent(&self, url: &str) -> &Agent {
        if url.starts_with("http://") {
            self.near.get_or_init(|| agent(&self.patience, false))
        } else {
            self.far.get_or_init(|| agent(&self.patience, true))
        }
    }

    /// Sends one request. What the server is too busy for, or does not allow, is trouble; any other
    /// answer is an answer.
    pub(super) fn send(&self, call: &Call<'_>) -> Result<Response<Body>, Trouble> {
        let mut challenged = false;
        loop {
            let response = self.send_once(call)?;
            let status = response.status().as_u16();
            let Scope { host, repository, .. } = call.scope;
            match status {
                401 if !challenged => {
                    challenged = true;
                    self.authenticate(call.scope, &response)?;
                }
                401 => {
                    let known = "is refused";
                    let (host, repository) = ((*host).to_owned(), (*repository).to_owned());
                    return Err(RegistryError::Unauthorized { host, repository, known }.into());
                }
                403 => {
                    return Err(Trouble::Failed(RegistryError::Denied {
                        host: (*host).to_owned(),
                        repository: (*repository).to_owned(),
                        action: call.scope.action(),
                    }));
                }
                408 | 429 | 500.. => {
                    return Err(Trouble::Busy { status, after: retry_after(&response) });
                }
                _ => return Ok(response),
            }
        }
    }

    fn send_once(&self, call: &Call<'_>) -> Result<Response<Body>, Trouble> {
        let mut request = Request::builder().method(call.method).uri(call.url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let key = (call.scope.host.to_owned(), call.scope.names().join(" "));
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = tokens.get(&key) {
            request = request.header("Authorization", token);
        }
        drop(tokens);
        let agent = self.agent(call.url);
        let again = |error: ureq::Error| Trouble::Again(Box::new(error));
        let malformed = |error: ureq::http::Error| Trouble::Again(Box::new(error));
        match call.payload {
            Payload::None => agent.run(request.body(()).map_err(malformed)?).map_err(again),
            Payload::Bytes(bytes) => {
                agent.run(request.body(bytes).map_err(malformed)?).map_err(again)
            }
            Payload::Part { path, offset, length } => {
                let io = |source| {
                    Trouble::Failed(RegistryError::Io { path: path.to_path_buf(), source })
                };
                let mut file = File::open(path).map_err(io)?;
                file.seek(SeekFrom::Start(offset)).map_err(io)?;
                let mut part = file.take(length);
                let request = request.header("Content-Length", length.to_string());
                let body = SendBody::from_reader(&mut part);
                agent.run(request.body(body).map_err(malformed)?).map_err(again)
            }
        }
    }
}

fn agent(patience: &Patience, proxied: bool) -> Agent {
    let found = rustls_native_certs::load_native_certs().certs;
    let found: Vec<Certificate<'static>> =
        found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&found)).build();
    let mut config = Agent::config_builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .tls_config(tls)
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.stall))
        .timeout_per_read(Some(patience.stall))
        .timeout_per_write(Some(patience.stall))
        .timeout_global(Some(patience.whole));
    if !proxied {
        config = config.proxy(None);
    }
    Agent::with_parts(config.build(), DefaultConnector::default(), OnceResolver::default())
}

/// How long a server asks to be left alone; of dates nothing is known.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = header(response, "retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A header as text.
pub(super) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// An answer that was not expected, with what the registry says about it.
pub(super) fn unexpected(url: &str, response: Response<Body>) -> RegistryError {
    let status = response.status().as_u16();
    let mut said = Vec::new();
    // What can't be read says nothing.
    let _ = response.into_body().into_reader().take(MAX_ERROR_BYTES).read_to_end(&mut said);
    let document: Option<serde_json::Value> = serde_json::from_slice(&said).ok();
    let first = document.as_ref().and_then(|document| document.get("errors")?.get(0));
    let text = |key: &str| first.and_then(|e| e.get(key)?.as_str()).unwrap_or_default();
    let said = format!("{} {}", text("code"), text("message")).trim().to_owned();
    RegistryError::Status { url: url.to_owned(), status, said }
}
