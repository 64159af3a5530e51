//! Messages of PostgreSQL's protocol, version 3: their heads, and the few that are written here.
//!
//! A message is a byte that says its kind, four bytes of length that count themselves, and a
//! body. Only heads are read of most of them; what is long is passed on as it comes.

/// The version of the protocol that is spoken.
pub(super) const VERSION: i32 = 3 << 16;

/// What a client begins with instead of a version.
pub(super) const CANCEL: i32 = 80_877_102;
pub(super) const TLS: i32 = 80_877_103;
pub(super) const GSS: i32 = 80_877_104;

/// The head of a message: its kind and its length.
const HEAD: usize = 5;

/// No message is longer; PostgreSQL itself takes none that is.
const LONGEST: usize = 1 << 30;

/// Codes of errors (PostgreSQL's manual, appendix A).
pub(super) mod code {
    pub(in crate::postgres) const UNSUPPORTED: &str = "0A000";
    pub(in crate::postgres) const PROTOCOL: &str = "08P01";
    pub(in crate::postgres) const NOT_ALLOWED: &str = "28000";
    pub(in crate::postgres) const PASSWORD: &str = "28P01";
    pub(in crate::postgres) const NO_DATABASE: &str = "3D000";
    pub(in crate::postgres) const TOO_MANY: &str = "53300";
    pub(in crate::postgres) const SHUTDOWN: &str = "57P01";
    pub(in crate::postgres) const CRASHED: &str = "57P02";
    pub(in crate::postgres) const STARTING: &str = "57P03";
}

/// What is wrong with what a peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// What comes next in a stream of messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A whole message, head included.
    Whole { kind: u8, bytes: &'a [u8] },
    /// The beginning of a message that is passed on as it comes.
    Begun { kind: u8, bytes: &'a [u8] },
    /// More of that message.
    Rest(&'a [u8]),
    /// What is there is too little to say.
    More,
}

impl Step<'_> {
    /// How many bytes it takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Step::Whole { bytes, .. } | Step::Begun { bytes, .. } | Step::Rest(bytes) => {
                bytes.len()
            }
            Step::More => 0,
        }
    }
}

/// The body of a whole message.
pub(super) fn body(message: &[u8]) -> &[u8] {
    message.get(HEAD..).unwrap_or_default()
}

/// Goes through a stream of messages.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Bytes of a begun message that are still to come.
    left: usize,
}

impl Scanner {
    /// Whether a message has been begun and not ended.
    pub(super) fn is_within(&self) -> bool {
        self.left > 0
    }

    /// What is at the beginning of `bytes`. A message of at most `wanted` bytes, by its kind, is
    /// waited for until it is whole.
    #[inline]
    pub(super) fn step<'a>(
        &mut self,
        bytes: &'a [u8],
        wanted: impl Fn(u8) -> Option<usize>,
    ) -> Result<Step<'a>, Malformed> {
        if self.left > 0 {
            let rest = &bytes[..self.left.min(bytes.len())];
            self.left -= rest.len();
            return Ok(if rest.is_empty() { Step::More } else { Step::Rest(rest) });
        }
        let Some(&[kind, a, b, c, d]) = bytes.first_chunk::<HEAD>() else {
            return match bytes.first() {
                Some(kind) if wanted(*kind).is_none() => Err(Malformed("invalid message type")),
                _ => Ok(Step::More),
            };
        };
        let longest = wanted(kind).ok_or(Malformed("invalid message type"))?;
        let length = i32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(length).ok().filter(|n| (4..LONGEST).contains(n));
        let size = length.ok_or(Malformed("invalid message length"))? + 1;
        if let Some(whole) = bytes.get(..size) {
            return Ok(Step::Whole { kind, bytes: whole });
        }
        if size <= longest {
            return Ok(Step::More);
        }
        self.left = size - bytes.len();
        Ok(Step::Begun { kind, bytes })
    }
}

/// Writes a message: `body` appends to what it is given.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    out.extend([0; 4]);
    body(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Writes a text and its end. What follows a zero byte in it is left out.
pub(super) fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().take_while(|byte| **byte != 0));
    out.push(0);
}

/// A question in one message.
pub(super) fn query(out: &mut Vec<u8>, sql: &[u8]) {
    put(out, b'Q', |out| text(out, sql));
}

/// Has what was asked be done, and a `ReadyForQuery` sent.
pub(super) fn sync(out: &mut Vec<u8>) {
    put(out, b'S', |_| {});
}

/// An error that ends the session.
pub(super) fn fatal(out: &mut Vec<u8>, code: &str, message: &str) {
    put(out, b'E', |out| {
        for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message)] {
            out.push(field);
            text(out, value.as_bytes());
        }
        out.push(0);
    });
}

/// The value of a setting, as the server tells it.
pub(super) fn parameter(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put(out, b'S', |out| {
        text(out, name);
        text(out, value);
    });
}

/// What a client needs to cancel what it has asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct CancelKey {
    pub(crate) pid: i32,
    pub(crate) secret: i32,
}

impl CancelKey {
    /// The key in eight bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (pid, rest) = bytes.split_first_chunk()?;
        let secret = rest.first_chunk()?;
        Some(Self { pid: i32::from_be_bytes(*pid), secret: i32::from_be_bytes(*secret) })
    }

    /// The message by which a client is told it.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        put(out, b'K', |out| {
            out.extend(self.pid.to_be_bytes());
            out.extend(self.secret.to_be_bytes());
        });
    }

    /// The message by which something is cancelled.
    pub(super) fn request(self) -> Vec<u8> {
        let words = [16, CANCEL, self.pid, self.secret];
        words.into_iter().flat_map(i32::to_be_bytes).collect()
    }
}

/// The text at the beginning, without its end, and what follows it.
pub(super) fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// What an error says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fault<'a> {
    pub(super) severity: &'a [u8],
    pub(super) code: &'a [u8],
    pub(super) message: &'a [u8],
}

impl<'a> Fault<'a> {
    pub(super) fn read(mut body: &'a [u8]) -> Self {
        let mut fault = Self::default();
        while let [field @ (1..=u8::MAX), rest @ ..] = body {
            let Some((value, rest)) = split_text(rest) else { break };
            match field {
                b'V' => fault.severity = value,
                // Not translated in 'V', which servers before 9.6 do not send.
                b'S' if fault.severity.is_empty() => fault.severity = value,
                b'C' => fault.code = value,
                b'M' => fault.message = value,
                _ => {}
            }
            body = rest;
        }
        fault
    }

    /// Whether the session ends with it.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }

    /// Whether it says that the instance ends, has crashed or is not there yet.
    pub(super) fn is_of_instance(&self) -> bool {
        [code::SHUTDOWN, code::CRASHED, code::STARTING].iter().any(|c| c.as_bytes() == self.code)
    }
}

impl std::fmt::Display for Fault<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [message, code] = [self.message, self.code].map(String::from_utf8_lossy);
        write!(formatter, "{message} ({code})")
    }
}

/// The columns of a `DataRow`, in text.
pub(super) fn columns(mut body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut number = |size: usize| {
        let (bytes, rest) = body.split_at_checked(size)?;
        body = rest;
        Some(bytes)
    };
    let count = u16::from_be_bytes(*number(2)?.first_chunk()?);
    let mut columns = Vec::new();
    for _ in 0..count {
        let length = i32::from_be_bytes(*number(4)?.first_chunk()?);
        columns.push(match usize::try_from(length) {
            Ok(length) => Some(number(length)?),
            Err(_null) => None,
        });
    }
    Some(columns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole_up_to(limit: usize) -> impl Fn(u8) -> Option<usize> + Copy {
        move |kind| kind.is_ascii_alphabetic().then_some(if kind == b'd' { 0 } else { limit })
    }

    /// All that a scanner says of bytes that come in pieces: kinds and sizes of messages.
    fn scan(pieces: &[Vec<u8>], limit: usize) -> Result<Vec<(u8, usize)>, Malformed> {
        let (mut scanner, mut buffer, mut seen) = (Scanner::default(), Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let step = scanner.step(&buffer, whole_up_to(limit))?;
                let size = step.size();
                match step {
                    Step::Whole { kind, .. } | Step::Begun { kind, .. } => seen.push((kind, size)),
                    Step::Rest(_) => seen.last_mut().unwrap().1 += size,
                    Step::More => break,
                }
                buffer.drain(..size);
            }
            assert!(buffer.len() <= limit.max(HEAD), "no more is kept than is waited for");
        }
        Ok(seen)
    }

    fn cut(bytes: &[u8], at: &[prop::sample::Index]) -> Vec<Vec<u8>> {
        let mut cuts: Vec<usize> = at.iter().map(|at| at.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
    }

    proptest! {
        #[test]
        fn messages_are_found_however_they_are_cut(
            bodies in prop::collection::vec(("[A-Za-z]", prop::collection::vec(any::<u8>(), 0..200)), 0..20),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            limit in 0_usize..100,
        ) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (kind, body) in &bodies {
                let kind = kind.as_bytes()[0];
                put(&mut bytes, kind, |out| out.extend(body));
                expected.push((kind, body.len() + HEAD));
            }
            prop_assert_eq!(scan(&cut(&bytes, &at), limit), Ok(expected));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let _ = scan(&cut(&bytes, &at), 100);
            let _ = Fault::read(&bytes).to_string();
            let _ = columns(&bytes);
            let _ = CancelKey::read(&bytes);
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for (bytes, expected) in [
            (&b"Q\0\0\0\x03"[..], "invalid message length"),
            (b"Q\xff\xff\xff\xff", "invalid message length"),
            (b"Q\x7f\xff\xff\xff", "invalid message length"),
            (b"\0\0\0\0\x08", "invalid message type"),
            (b"\x16", "invalid message type"),
        ] {
            assert_eq!(scan(&[bytes.to_vec()], 10), Err(Malformed(expected)), "{bytes:?}");
        }
    }

    #[test]
    fn errors_are_read_as_they_are_written() {
        let mut out = Vec::new();
        fatal(&mut out, code::SHUTDOWN, "gone");
        let fault = Fault::read(body(&out));
        assert_eq!(fault.to_string(), "gone (57P01)");
        assert!(fault.is_fatal() && fault.is_of_instance());
    }
}
