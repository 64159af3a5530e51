//! Extended headers of tar archives (pax, POSIX.1-2001): `LENGTH KEY=VALUE\n`, over and over.

use std::collections::BTreeMap;
use std::io;

/// The prefix of keys that hold extended attributes.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of a header, the last of each key.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads the records of an extended header.
pub(super) fn parse(mut text: &[u8]) -> io::Result<Records> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "an extended header is damaged");
    let mut records = Records::new();
    while !text.is_empty() {
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length = decimal(&text[..space]).ok_or_else(broken)?;
        let length = usize::try_from(length).map_err(|_| broken())?;
        if length <= space + 1 || length > text.len() || text[length - 1] != b'\n' {
            return Err(broken());
        }
        let record = &text[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        text = &text[length..];
    }
    Ok(records)
}

/// A number without a sign.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// The whole seconds of a time, rounded down: `-1.5` is -2.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let below = whole.starts_with('-') && part.bytes().any(|byte| byte != b'0');
    seconds.checked_sub(i64::from(below))
}

/// Adds one record to a header. The length at its front counts its own digits.
pub(super) fn push(header: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    header.extend(length.to_string().bytes());
    header.push(b' ');
    header.extend(key);
    header.push(b'=');
    header.extend(value);
    header.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back() {
        for length in [0, 1, 85, 86, 87, 90, 91, 92, 93, 985, 990, 9990] {
            let value = vec![b'\n'; length];
            let mut header = Vec::new();
            push(&mut header, b"path", &value);
            push(&mut header, b"SCHILY.xattr.user.a", b"\0=\0");
            let records = parse(&header).unwrap();
            assert_eq!(records[&b"path"[..]], value, "{length}");
            assert_eq!(records[&b"SCHILY.xattr.user.a"[..]], b"\0=\0");
            assert!(parse(&header[..header.len() - 1]).is_err());
        }
        assert!(parse(b"99999999999999999999 a=b\n").is_err() && parse(b"3 a\n").is_err());
    }

    #[test]
    fn times_are_rounded_down() {
        for (text, time) in [("12", 12), ("12.9", 12), ("-3", -3), ("-1.5", -2), ("-1.0", -1)] {
            assert_eq!(seconds(text.as_bytes()), Some(time));
        }
        assert_eq!(seconds(b"-0.5"), Some(-1));
        assert!(seconds(b"1e9").is_none() && seconds(b"").is_none());
    }
}
