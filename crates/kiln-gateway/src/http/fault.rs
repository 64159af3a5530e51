//! The gateway's own answers: what a client gets when no instance answers it.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::http::body::ResponseBody;

/// Why the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No instance is in rotation.
    NoInstance,
    /// No instance took a connection.
    Unreachable,
    /// The instance broke the connection before its response.
    Broken,
    /// The instance did not answer in time, or the client paused too long in its body.
    TimedOut,
    /// The request has no or several hosts, or a target that is not to be passed on.
    BadRequest,
    /// The gateway is not a forward proxy.
    Connect,
    /// All instances have what they may be given, and so has the queue.
    Overloaded,
    /// The path is one that servers understand in different ways.
    Ambiguous,
    /// The body is malformed.
    BadBody,
    /// The body is larger than the endpoint allows.
    TooLarge,
}

impl Fault {
    fn status(self) -> StatusCode {
        match self {
            Fault::NoInstance | Fault::Unreachable | Fault::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Fault::Broken => StatusCode::BAD_GATEWAY,
            Fault::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Fault::BadRequest | Fault::Ambiguous | Fault::BadBody => StatusCode::BAD_REQUEST,
            Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::Connect => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Fault::NoInstance => "no instance is ready\n",
            Fault::Unreachable => "no instance could be reached\n",
            Fault::Broken => "the instance closed the connection without an answer\n",
            Fault::TimedOut => "the instance did not answer in time\n",
            Fault::BadRequest => "the request needs exactly one host\n",
            Fault::Connect => "CONNECT is not offered here\n",
            Fault::Overloaded => "all instances are busy; try again in a moment\n",
            Fault::Ambiguous => "the path has segments that servers understand differently\n",
            Fault::BadBody => "the body of the request is malformed\n",
            Fault::TooLarge => "the body of the request is too large\n",
        }
    }

    /// Whether an instance should have answered.
    pub(crate) fn is_error(self) -> bool {
        self.status().is_server_error()
    }

    /// Whether it is unsure what the client means by what follows on its connection.
    pub(crate) fn ends_connection(self) -> bool {
        matches!(self, Fault::BadRequest | Fault::BadBody | Fault::TooLarge)
    }

    pub(crate) fn response(self) -> Response<ResponseBody> {
        let text = Bytes::from_static(self.text().as_bytes());
        let mut response = Response::new(ResponseBody::Text(Some(text), None));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
