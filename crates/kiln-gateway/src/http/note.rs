//! A request on its way to the access log: noted when its response has ended.

use std::sync::Arc;
use std::time::Instant;

use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Request, Version};

use crate::access_log::{self, Entry};
use crate::connection::Shared;
use crate::http::serve::Session;
use crate::table::EndpointId;

/// What of a client's words is noted, bytes.
const LONGEST: usize = 2048;

/// One request; dropping it notes it.
#[derive(Debug)]
pub(crate) struct Note {
    shared: Arc<Shared>,
    endpoint: Arc<EndpointId>,
    entry: Entry,
    started: Instant,
}

impl Note {
    /// Begins to note a request as the client has sent it.
    pub(crate) fn begin<B>(session: &Session, request: &Request<B>) -> Option<Box<Self>> {
        let endpoint = Arc::clone(session.connection.route.endpoint()?);
        let entry = Entry {
            time: access_log::now(),
            client: session.connection.remote.to_string(),
            protocol: match request.version() {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            method: request.method().to_string(),
            target: short(request.uri().to_string()),
            agent: request.headers().get(USER_AGENT).map(text).unwrap_or_default(),
            ..Entry::default()
        };
        let shared = Arc::clone(&session.connection.shared);
        Some(Box::new(Self { shared, endpoint, entry, started: Instant::now() }))
    }

    pub(crate) fn host(&mut self, host: &HeaderValue) {
        self.entry.host = text(host);
    }

    pub(crate) fn status(&mut self, status: u16) {
        self.entry.status = Some(status);
    }

    pub(crate) fn instance(&mut self, instance: &str) {
        self.entry.instance = Some(instance.to_owned());
    }

    /// So many bytes more of the response's body were handed on.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.entry.bytes += bytes as u64;
    }
}

fn text(value: &HeaderValue) -> String {
    short(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn short(mut text: String) -> String {
    if text.len() > LONGEST {
        // A character has at most four bytes.
        let end = (LONGEST - 3..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

impl Drop for Note {
    fn drop(&mut self) {
        self.entry.milliseconds = self.started.elapsed().as_secs_f64() * 1000.0;
        self.shared.log.note(self.endpoint.log_name(), &self.entry);
    }
}
