//! Base 64, URLs and text encodings.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder};

use super::{Args, Failure, Function, Param, Shape};
use crate::value::secret::Escape;
use crate::value::{Data, Value};

const STR: Param = Param::new("str", Shape::String);
const ENCODING: Param = Param::new("encoding", Shape::String);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("base64decode", &[STR], Shape::String, |args| {
        let text = String::from_utf8(decode(args.text(0)?)?);
        text.map(Value::from).map_err(|_| Failure::of(0, "what is encoded is not UTF-8 text"))
    }),
    Function::new("base64encode", &[STR], Shape::String, |args| {
        Ok(STANDARD.encode(args.text(0)?).into())
    }),
    Function::new("base64gzip", &[STR], Shape::String, base64gzip),
    Function::new("textdecodebase64", &[STR, ENCODING], Shape::String, |args| {
        text_decode(&decode(args.text(0)?)?, encoding(args.text(1)?)?)
    }),
    Function::new("textencodebase64", &[STR, ENCODING], Shape::String, |args| {
        let bytes = text_encode(args.text(0)?, encoding(args.text(1)?)?);
        Ok(STANDARD.encode(bytes).into())
    }),
    Function::new("urldecode", &[STR], Shape::String, |args| url_decode(args.text(0)?)),
    Function::new("urlencode", &[STR], Shape::String, |args| match args.value(0)?.data() {
        Data::Secret(text) => Ok(Value::secret(text.escaped(Escape::Url))),
        _ => Ok(Escape::Url.apply(args.text(0)?).into()),
    }),
];

fn decode(text: &str) -> Result<Vec<u8>, Failure> {
    STANDARD.decode(text).map_err(|error| {
        let reason = error.to_string().to_lowercase();
        Failure::of(0, format!("it is not base 64: {}", reason.trim_end_matches('.')))
    })
}

/// The same bytes each time: no name and no time in the header.
fn base64gzip(args: &Args<'_>) -> Result<Value, Failure> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::default());
    let compressed = encoder.write_all(args.text(0)?.as_bytes()).and_then(|()| encoder.finish());
    match compressed {
        Ok(bytes) => Ok(STANDARD.encode(bytes).into()),
        Err(error) => Err(Failure::new(format!("it cannot be compressed: {error}"))),
    }
}

fn url_decode(text: &str) -> Result<Value, Failure> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let byte = digit().and_then(|high| Some(high << 4 | digit()?));
                match byte.and_then(|byte| u8::try_from(byte).ok()) {
                    Some(byte) => byte,
                    None => {
                        return Err(Failure::of(0, "% is not followed by two hexadecimal digits"));
                    }
                }
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes);
    text.map(Value::from).map_err(|_| Failure::of(0, "what is encoded is not UTF-8 text"))
}

#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    Utf16 { big_endian: bool },
    Latin1,
    Ascii,
}

/// The encodings that stand in the IANA registry under these names.
fn encoding(name: &str) -> Result<Encoding, Failure> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "UTF-8" | "UTF8" => Encoding::Utf8,
        "UTF-16LE" => Encoding::Utf16 { big_endian: false },
        "UTF-16BE" => Encoding::Utf16 { big_endian: true },
        "ISO-8859-1" | "LATIN1" => Encoding::Latin1,
        "US-ASCII" | "ASCII" => Encoding::Ascii,
        _ => {
            let message = format!("the encoding \"{name}\" is not supported");
            return Err(Failure::of(1, message)
                .with_help("supported are UTF-8, UTF-16LE, UTF-16BE, ISO-8859-1 and US-ASCII"));
        }
    })
}

/// What an encoding lacks becomes its substitute character, 0x1A.
fn text_encode(text: &str, encoding: Encoding) -> Vec<u8> {
    const SUBSTITUTE: u8 = 0x1a;
    match encoding {
        Encoding::Utf8 => text.as_bytes().to_vec(),
        Encoding::Utf16 { big_endian } => text
            .encode_utf16()
            .flat_map(|unit| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect(),
        Encoding::Latin1 => {
            text.chars().map(|char| u8::try_from(char).unwrap_or(SUBSTITUTE)).collect()
        }
        Encoding::Ascii => text
            .chars()
            .map(|char| u8::try_from(char).ok().filter(u8::is_ascii).unwrap_or(SUBSTITUTE))
            .collect(),
    }
}

fn text_decode(bytes: &[u8], encoding: Encoding) -> Result<Value, Failure> {
    let text = match encoding {
        Encoding::Utf8 => String::from_utf8(bytes.to_vec()).ok(),
        Encoding::Utf16 { .. } if bytes.len() % 2 == 1 => None,
        Encoding::Utf16 { big_endian } => {
            let unit = |pair: &[u8]| {
                let pair = [pair[0], pair[1]];
                if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
            };
            let units: Vec<u16> = bytes.chunks_exact(2).map(unit).collect();
            String::from_utf16(&units).ok()
        }
        Encoding::Latin1 => Some(bytes.iter().copied().map(char::from).collect()),
        Encoding::Ascii => {
            bytes.is_ascii().then(|| bytes.iter().copied().map(char::from).collect())
        }
    };
    text.map(Value::from).ok_or_else(|| Failure::of(0, "the bytes are not text in that encoding"))
}
