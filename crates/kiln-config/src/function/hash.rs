//! Digests, of text and of files, and ids made of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::{Args, Failure, Function, Param, Shape};
use crate::value::Value;

const STR: &[Param] = &[Param::new("str", Shape::String)];
const PATH: &[Param] = &[Param::new("path", Shape::String)];

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("base64sha256", STR, Shape::String, |args| text::<Sha256>(args, base64)),
    Function::new("base64sha512", STR, Shape::String, |args| text::<Sha512>(args, base64)),
    Function::new("md5", STR, Shape::String, |args| text::<Md5>(args, hex)),
    Function::new("sha1", STR, Shape::String, |args| text::<Sha1>(args, hex)),
    Function::new("sha256", STR, Shape::String, |args| text::<Sha256>(args, hex)),
    Function::new("sha512", STR, Shape::String, |args| text::<Sha512>(args, hex)),
    Function::new("filebase64sha256", PATH, Shape::String, |args| file::<Sha256>(args, base64)),
    Function::new("filebase64sha512", PATH, Shape::String, |args| file::<Sha512>(args, base64)),
    Function::new("filemd5", PATH, Shape::String, |args| file::<Md5>(args, hex)),
    Function::new("filesha1", PATH, Shape::String, |args| file::<Sha1>(args, hex)),
    Function::new("filesha256", PATH, Shape::String, |args| file::<Sha256>(args, hex)),
    Function::new("filesha512", PATH, Shape::String, |args| file::<Sha512>(args, hex)),
    Function::new(
        "uuidv5",
        &[Param::new("namespace", Shape::String), Param::new("name", Shape::String)],
        Shape::String,
        uuidv5,
    ),
];

type Encode = fn(&[u8]) -> String;

fn text<D: Digest>(args: &Args<'_>, encode: Encode) -> Result<Value, Failure> {
    Ok(encode(&D::digest(args.text(0)?)).into())
}

fn file<D: Digest>(args: &Args<'_>, encode: Encode) -> Result<Value, Failure> {
    let content = super::filesystem::read(args)?;
    Ok(encode(&D::digest(&content)).into())
}

fn base64(digest: &[u8]) -> String {
    STANDARD.encode(digest)
}

fn hex(digest: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
    digest.iter().flat_map(digits).map(char::from).collect()
}

/// A UUID of version 5 (RFC 9562, 5.5): the SHA-1 of a namespace and a name.
fn uuidv5(args: &Args<'_>) -> Result<Value, Failure> {
    /// The namespaces of RFC 9562, 6.6: they differ in one byte only.
    const WELL_KNOWN: u128 = 0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8;
    const STEP: u128 = 1 << 96;
    let namespace = match args.text(0)? {
        "dns" => WELL_KNOWN,
        "url" => WELL_KNOWN + STEP,
        "oid" => WELL_KNOWN + 2 * STEP,
        "x500" => WELL_KNOWN + 4 * STEP,
        other => parse_uuid(other).ok_or_else(|| {
            Failure::of(0, format!("\"{other}\" is neither dns, url, oid, x500 nor a UUID"))
        })?,
    };
    let digest =
        Sha1::new().chain_update(namespace.to_be_bytes()).chain_update(args.text(1)?).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(parts.join("-").into())
}

fn parse_uuid(text: &str) -> Option<u128> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let digits = text.replace('-', "");
    let well_formed =
        lengths == [8, 4, 4, 4, 12] && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if well_formed { u128::from_str_radix(&digits, 16).ok() } else { None }
}
