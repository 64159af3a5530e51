//! Heads of HTTP/1 messages (RFC 9112, sections 2 to 6).
//!
//! What a client sends is passed on to others, and none of them may understand it differently
//! ("request smuggling"). `httparse` is lenient where the standard lets it be: it takes a bare line
//! feed for the end of a line, and knows nothing of lengths. So before it, [`Scan`] refuses bare CR
//! and LF and folded fields, line by line as they come, and behind it are refused: two lengths, a
//! length beside chunks, an encoding other than `chunked`, and chunks in HTTP/1.0. Instances are
//! taken as the standard allows, since what they send is framed anew.

use std::mem::MaybeUninit;

use bytes::Bytes;
use httparse::{Error, Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
};
use hyper::http::{request, response};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use memchr::memchr2_iter;

use super::framing::{Decoder, Malformed};
use crate::http::forward::has_token;
use crate::http::limits;

/// Fields that a request gets on its way through.
const MADE: usize = 5;

/// Looks for the end of a request's head, each byte once.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Up to where was looked.
    at: usize,
    /// Where the present line begins.
    line: usize,
    /// Where the request line begins: empty lines may stand before it.
    begin: usize,
}

/// What is there of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// Its end has not come.
    More,
    /// It is what lies between these.
    Head { begin: usize, end: usize },
    /// It is refused with this status.
    Refused(StatusCode),
}

impl Scan {
    /// Looks at what has been read since the last call; `input` begins where it did then.
    pub(super) fn look(&mut self, input: &[u8]) -> Scanned {
        const REFUSED: Scanned = Scanned::Refused(StatusCode::BAD_REQUEST);
        const TOO_LARGE: Scanned = Scanned::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let mut fed = None;
        for found in memchr2_iter(b'\r', b'\n', &input[self.at..]) {
            let at = self.at + found;
            if input[at] == b'\r' {
                if fed.replace(at + 1).is_some() {
                    return REFUSED;
                }
                continue;
            }
            if fed.take() != Some(at) {
                return REFUSED;
            }
            let (line, next) = (&input[self.line..at - 1], at + 1);
            if !line.is_empty() {
                if is_folded(line) {
                    return REFUSED;
                }
            } else if self.line == self.begin {
                self.begin = next;
            } else if next - self.begin > limits::BUFFER {
                return TOO_LARGE;
            } else {
                return Scanned::Head { begin: self.begin, end: next };
            }
            self.line = next;
        }
        // A CR at the very end is looked at again, with what follows it.
        if fed.is_some_and(|fed| fed < input.len()) {
            return REFUSED;
        }
        self.at = if fed.is_some() { input.len() - 1 } else { input.len() };
        if input.len() > limits::BUFFER { TOO_LARGE } else { Scanned::More }
    }
}

/// Whether a line continues the field before it, which no one may do any more.
fn is_folded(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// A client's request, taken apart.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) parts: request::Parts,
    pub(super) body: Decoder,
    /// Whether the client goes on to use the connection.
    pub(super) keep: bool,
    /// Whether the client waits for leave before it sends the body.
    pub(super) expects: bool,
    /// Whether the client wants to know the fields after the last chunk.
    pub(super) trailers: bool,
}

type Headers<'h> = [MaybeUninit<Header<'h>>; limits::HEADERS];

/// Takes a request's head apart, or says with which status it is refused.
pub(super) fn request(head: Bytes) -> Result<RequestHead, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let mut space: Headers<'_> = [const { MaybeUninit::uninit() }; limits::HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&head, &mut space) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Err(Error::TooManyHeaders) => return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(Error::Version) => return Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
        _ => return Err(BAD),
    }
    let (method, path) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    let is_new = parsed.version == Some(1);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + MADE);
    let (mut length, mut chunked) = (None, false);
    let (mut keep, mut expects, mut trailers) = (is_new, false, false);
    for field in &*parsed.headers {
        let (name, value) = field_of(&head, field).map_err(|Malformed| BAD)?;
        match name {
            CONTENT_LENGTH if length.is_some() => return Err(BAD),
            CONTENT_LENGTH => length = Some(decimal(value.as_bytes()).ok_or(BAD)?),
            TRANSFER_ENCODING => {
                let known = value.as_bytes().eq_ignore_ascii_case(b"chunked");
                if chunked || !known || !is_new {
                    return Err(BAD);
                }
                chunked = true;
            }
            CONNECTION if has_token(&value, "close") => keep = false,
            CONNECTION if !is_new && has_token(&value, "keep-alive") => keep = true,
            EXPECT => expects |= value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
            TE => trailers |= has_token(&value, "trailers"),
            _ => {}
        }
        headers.append(name, value);
    }
    let body = match (length, chunked) {
        (Some(_), true) => return Err(BAD),
        (None, true) => Decoder::chunked(),
        (length, false) => Decoder::length(length.unwrap_or(0)),
    };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| BAD)?;
    parts.uri = Uri::from_maybe_shared(head.slice_ref(path.as_bytes())).map_err(|_| BAD)?;
    parts.version = if is_new { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers = headers;
    Ok(RequestHead { parts, body, keep, expects: expects && is_new, trailers })
}

/// An instance's response, taken apart.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) parts: response::Parts,
    pub(super) body: Decoder,
    /// Whether the instance goes on to use the connection.
    pub(super) keep: bool,
    /// The bytes that it took.
    pub(super) length: usize,
}

/// Takes the head of a response to a `method` request apart; `None` when its end has not come.
pub(super) fn response(input: &[u8], method: &Method) -> Result<Option<ResponseHead>, Malformed> {
    let mut space: Headers<'_> = [const { MaybeUninit::uninit() }; limits::HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, input, &mut space) {
        Ok(Status::Complete(length)) if length <= limits::BUFFER => length,
        Ok(Status::Partial) if input.len() <= limits::BUFFER => return Ok(None),
        _ => return Err(Malformed),
    };
    // One copy, of which each value is a part.
    let head = Bytes::copy_from_slice(&input[..length]);
    let base = input.as_ptr().addr();
    let part = |bytes: &[u8]| {
        let begin = bytes.as_ptr().addr() - base;
        head.slice(begin..begin + bytes.len())
    };
    let is_new = parsed.version == Some(1);
    let status = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(|_| Malformed)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 1);
    let (mut length_field, mut coding, mut keep) = (None, None, is_new);
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        let value = HeaderValue::from_maybe_shared(part(field.value)).map_err(|_| Malformed)?;
        match name {
            CONTENT_LENGTH => {
                let said = decimal(value.as_bytes()).ok_or(Malformed)?;
                // The same once more is the same; it is passed on once.
                match length_field.replace(said) {
                    None => {}
                    Some(before) if before == said => continue,
                    Some(_) => return Err(Malformed),
                }
            }
            TRANSFER_ENCODING => coding = Some(is_chunked_last(&value)),
            CONNECTION if has_token(&value, "close") => keep = false,
            CONNECTION if !is_new && has_token(&value, "keep-alive") => keep = true,
            _ => {}
        }
        headers.append(name, value);
    }
    let bodiless = method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match (coding, length_field) {
        _ if bodiless => Decoder::Done,
        (Some(true), _) => Decoder::chunked(),
        (None, Some(length)) => Decoder::length(length),
        (Some(false), _) | (None, None) => Decoder::UntilEnd,
    };
    if coding.is_some() {
        // Chunks decide (RFC 9112, section 6.3); who sends both is not asked again.
        keep &= headers.remove(CONTENT_LENGTH).is_none();
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    if let Some(reason) = parsed.reason
        && Some(reason) != status.canonical_reason()
        && let Ok(reason) = ReasonPhrase::try_from(part(reason.as_bytes()))
    {
        parts.extensions.insert(reason);
    }
    parts.status = status;
    parts.headers = headers;
    Ok(Some(ResponseHead { parts, body, keep: keep && body != Decoder::UntilEnd, length }))
}

/// The fields after the last chunk, with the empty line behind them.
pub(super) fn trailers(bytes: Bytes) -> Result<HeaderMap, Malformed> {
    let mut fields = HeaderMap::new();
    if bytes.len() <= 2 {
        return Ok(fields);
    }
    let mut space = [httparse::EMPTY_HEADER; limits::HEADERS];
    let Ok(Status::Complete((_, parsed))) = httparse::parse_headers(&bytes, &mut space) else {
        return Err(Malformed);
    };
    for field in parsed {
        let (name, value) = field_of(&bytes, field)?;
        fields.append(name, value);
    }
    Ok(fields)
}

fn field_of(head: &Bytes, field: &Header<'_>) -> Result<(HeaderName, HeaderValue), Malformed> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
    let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
    Ok((name, value.map_err(|_| Malformed)?))
}

/// Digits and nothing else.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(value).ok()?.parse().ok() } else { None }
}

fn is_chunked_last(value: &HeaderValue) -> bool {
    let last = value.to_str().ok().and_then(|list| list.rsplit(',').next());
    last.is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head that is found when the bytes come in pieces of this size.
    fn scanned(bytes: &[u8], piece: usize) -> Scanned {
        let mut scan = Scan::default();
        let mut end = 0;
        while end < bytes.len() {
            end = (end + piece).min(bytes.len());
            match scan.look(&bytes[..end]) {
                Scanned::More => {}
                found => return found,
            }
        }
        Scanned::More
    }

    fn refused(bytes: &[u8], piece: usize) -> Option<StatusCode> {
        match scanned(bytes, piece) {
            Scanned::More => None,
            Scanned::Refused(status) => Some(status),
            Scanned::Head { begin, end } => {
                request(Bytes::copy_from_slice(&bytes[begin..end])).err()
            }
        }
    }

    #[test]
    fn good_heads_pass_however_they_are_cut() {
        let bytes = b"\r\n\r\nPOST /x?y HTTP/1.1\r\nhost: a\r\nContent-Length: 7\r\nx:\r\n\r\nGET";
        for piece in 1..bytes.len() {
            assert_eq!(scanned(bytes, piece), Scanned::Head { begin: 4, end: bytes.len() - 3 });
        }
        let head = request(Bytes::from_static(&bytes[4..bytes.len() - 3])).unwrap();
        assert_eq!((head.parts.method, head.parts.uri.path()), (Method::POST, "/x"));
        assert_eq!((head.body, head.keep), (Decoder::Length(7), true));
        assert_eq!(
            (&head.parts.headers["host"], &head.parts.headers["x"]),
            (&"a".parse().unwrap(), &"".parse().unwrap())
        );
        let old = request(Bytes::from_static(b"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"));
        assert!(old.is_ok_and(|old| old.keep && old.parts.version == Version::HTTP_10));
        let last = request(Bytes::from_static(b"GET / HTTP/1.1\r\nconnection: x, Close\r\n\r\n"));
        assert!(last.is_ok_and(|last| !last.keep));
    }

    #[test]
    fn heads_that_could_be_understood_twice_are_refused() {
        for bad in [
            &b"GET / HTTP/1.1\nhost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nhost: a\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\n\n",
            b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
            b"GET / HTTP/1.1\r\n folded: b\r\n\r\n",
            b" GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost a\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
            b"POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\nabc",
            b"POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\nabc",
            b"POST / HTTP/1.1\r\ncontent-length:\r\n\r\nabc",
            b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 3\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
            b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        ] {
            for piece in 1..=bad.len() {
                let text = String::from_utf8_lossy(bad);
                assert_eq!(refused(bad, piece), Some(StatusCode::BAD_REQUEST), "{text} in {piece}");
            }
        }
        let long = [&b"GET / HTTP/1.1\r\nx: "[..], &vec![b'y'; limits::BUFFER]].concat();
        assert_eq!(refused(&long, 9999), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        let many = ["GET / HTTP/1.1\r\n", &"x: y\r\n".repeat(limits::HEADERS + 1), "\r\n"].concat();
        let too_many = Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(refused(many.as_bytes(), 9999), too_many);
        let status = refused(b"GET / HTTP/9.9\r\n\r\n", 99);
        assert_eq!(status, Some(StatusCode::HTTP_VERSION_NOT_SUPPORTED));
    }

    #[test]
    fn responses_are_framed_as_the_standard_says() {
        let read = |text: &str, method: &Method| {
            let head = response(text.as_bytes(), method)?;
            Ok::<_, Malformed>(head.map(|head| (head.body, head.keep, head.length == text.len())))
        };
        for (text, expected) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
                Some((Decoder::Length(3), true, true)),
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n", None),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some((Decoder::Done, true, true))),
            ("HTTP/1.1 200 OK\r\n\r\n", Some((Decoder::UntilEnd, false, true))),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
                Some((Decoder::chunked(), true, true)),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
                Some((Decoder::chunked(), false, true)),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n",
                Some((Decoder::Length(3), true, true)),
            ),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n",
                Some((Decoder::Length(3), false, true)),
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n",
                Some((Decoder::Length(3), false, true)),
            ),
        ] {
            assert_eq!(read(text, &Method::GET), Ok(expected), "{text}");
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(read(head, &Method::HEAD), Ok(Some((Decoder::Done, true, true))));
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert_eq!(read(bad, &Method::GET), Err(Malformed), "{bad}");
        }
        let own = response(b"HTTP/1.1 200 Fine\r\n\r\n", &Method::GET).unwrap().unwrap();
        assert_eq!(own.parts.extensions.get::<ReasonPhrase>().unwrap().as_bytes(), b"Fine");
    }
}
