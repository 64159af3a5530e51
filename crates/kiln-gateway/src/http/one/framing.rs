//! Bodies of HTTP/1: where one ends, and what is in it (RFC 9112, sections 6 and 7).
//!
//! Chunks are taken only as the standard writes them: a bare line feed, a sign, a size of more
//! than 16 digits, or anything else than a line end after a chunk is malformed, since another
//! server could understand it differently.

use bytes::{Buf, Bytes, BytesMut};
use hyper::HeaderMap;
use memchr::memchr;

use super::head;
use crate::http::limits;

/// The longest line with the size of a chunk and its extensions.
const LONGEST_SIZE: usize = 4 * 1024;

/// A body that is being received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoder {
    /// Nothing comes any more.
    Done,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// All until the end of the connection.
    UntilEnd,
}

/// Where in a chunked body the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// The line with the size of a chunk.
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The line end after a chunk.
    End,
    /// The fields after the last chunk.
    Trailers,
}

/// What was found of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    /// The fields after the last chunk, which are its end; there may be none.
    Trailers(HeaderMap),
}

/// What is no body as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl Decoder {
    /// A body in chunks.
    pub(super) const fn chunked() -> Self {
        Decoder::Chunks(Chunks::Size)
    }

    /// A body of so many bytes.
    pub(super) const fn length(length: u64) -> Self {
        if length == 0 { Decoder::Done } else { Decoder::Length(length) }
    }

    pub(super) fn is_done(self) -> bool {
        self == Decoder::Done
    }

    /// Takes the next piece out of what was read; `None` when more has to be read for one, or
    /// when the body is done.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        loop {
            match self {
                Decoder::Done => return Ok(None),
                _ if input.is_empty() => return Ok(None),
                Decoder::UntilEnd => return Ok(Some(Piece::Data(input.split().freeze()))),
                Decoder::Length(left) => {
                    let data = split(input, left);
                    if *left == 0 {
                        *self = Decoder::Done;
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                Decoder::Chunks(Chunks::Data(left)) => {
                    let data = split(input, left);
                    if *left == 0 {
                        *self = Decoder::Chunks(Chunks::End);
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                Decoder::Chunks(Chunks::Trailers) => {
                    let Some(end) = end_of_trailers(input)? else { return Ok(None) };
                    let fields = head::trailers(input.split_to(end).freeze())?;
                    *self = Decoder::Done;
                    return Ok(Some(Piece::Trailers(fields)));
                }
                Decoder::Chunks(chunks) => {
                    let Some(length) = line(input, LONGEST_SIZE)? else { return Ok(None) };
                    let line = &input[..length - 2];
                    *chunks = match chunks {
                        Chunks::End if line.is_empty() => Chunks::Size,
                        Chunks::Size => match chunk_size(line)? {
                            0 => Chunks::Trailers,
                            size => Chunks::Data(size),
                        },
                        _ => return Err(Malformed),
                    };
                    input.advance(length);
                }
            }
        }
    }
}

fn split(input: &mut BytesMut, left: &mut u64) -> Bytes {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= here as u64;
    input.split_to(here).freeze()
}

/// The length of the line at the beginning, with its end; `None` when that has not come.
fn line(input: &[u8], longest: usize) -> Result<Option<usize>, Malformed> {
    let Some(end) = memchr(b'\n', input) else {
        return if input.len() > longest { Err(Malformed) } else { Ok(None) };
    };
    let text = input[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    if end > longest || memchr(b'\r', text).is_some() {
        return Err(Malformed);
    }
    Ok(Some(end + 1))
}

/// The length of the fields after the last chunk, with the empty line behind them.
fn end_of_trailers(input: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    while let Some(length) = line(&input[at..], limits::BUFFER)? {
        at += length;
        if length == 2 {
            return Ok(Some(at));
        }
        if at > limits::BUFFER {
            return Err(Malformed);
        }
    }
    Ok(None)
}

/// The size that a chunk's line begins with: hexadecimal digits, then at most blanks and
/// extensions.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 16 || !matches!(rest.first(), None | Some(b';')) {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| Malformed)?;
    u64::from_str_radix(text, 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body, the fields after it, and what is left behind it.
    type Decoded = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// The body that comes in pieces of this size, and what is left behind it.
    fn decoded(bytes: &[u8], piece: usize) -> Result<Decoded, Malformed> {
        let (mut decoder, mut input) = (Decoder::chunked(), BytesMut::new());
        let (mut body, mut fields) = (Vec::new(), None);
        for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(piece) = decoder.take(&mut input)? {
                match piece {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::Trailers(trailers) => fields = Some(trailers),
                }
            }
        }
        assert_eq!(fields.is_some(), decoder.is_done());
        Ok((body, fields, input.to_vec()))
    }

    #[test]
    fn chunks_are_put_together_however_they_are_cut() {
        let bytes = b"5;a=b\r\n\n\n\n\n\n\r\n0a \r\n0123456789\r\n0\r\nx: y\r\n\r\nnext";
        for piece in 1..bytes.len() {
            let (body, fields, rest) = decoded(bytes, piece).unwrap();
            assert_eq!(body, b"\n\n\n\n\n0123456789", "{piece}");
            assert_eq!(fields.unwrap()["x"], "y");
            assert_eq!(rest, b"next");
        }
        let (body, fields, rest) = decoded(b"0\r\n\r\n", 2).unwrap();
        assert_eq!((body.len(), fields, rest.len()), (0, Some(HeaderMap::new()), 0));
    }

    #[test]
    fn chunks_that_could_be_understood_twice_are_malformed() {
        for bad in [
            &b"0x3\r\nabc\r\n"[..],
            b"3\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc0\r\n",
            b"-1\r\nabc\r\n",
            b"+1\r\na\r\n",
            b" 1\r\na\r\n",
            b"\r\n\r\n",
            b"z\r\nabc\r\n",
            b"11111111111111111\r\n",
            b"3;x=\n\r\nabc\r\n",
            b"3\rabc\r\n0\r\n\r\n",
            b"0\r\nx: y\n\r\n",
            b"0\r\nx: y\r\n z\r\n\r\n",
            b"0\r\nx : y\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
        ] {
            for piece in 1..=bad.len() {
                let text = String::from_utf8_lossy(bad);
                assert_eq!(decoded(bad, piece).err(), Some(Malformed), "{text} in {piece}");
            }
        }
        assert_eq!(decoded(&[b'1'; LONGEST_SIZE + 2], 64).err(), Some(Malformed));
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let (mut decoder, mut input) = (Decoder::length(3), BytesMut::from(&b"abcde"[..]));
        assert_eq!(decoder.take(&mut input), Ok(Some(Piece::Data(Bytes::from_static(b"abc")))));
        assert_eq!((decoder.take(&mut input), decoder.is_done()), (Ok(None), true));
        assert_eq!(&input[..], b"de");
    }
}
