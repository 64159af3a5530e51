//! ASCII armour: binary packets as text (RFC 4880, section 6.2).

use std::borrow::Cow;

/// The packets of a file, which may be binary or one or several armoured blocks of a kind, such as
/// `PUBLIC KEY BLOCK`; what stands around the blocks is passed over. None if armour is damaged.
pub(super) fn unpack<'a>(file: &'a [u8], kind: &str) -> Option<Cow<'a, [u8]>> {
    // The first byte of a packet has its highest bit set, no letter of armour has.
    if file.first().is_some_and(|first| first & 0x80 != 0) {
        return Some(Cow::Borrowed(file));
    }
    let text = str::from_utf8(file).ok()?;
    let (begin, end) = (format!("-----BEGIN PGP {kind}-----"), format!("-----END PGP {kind}-----"));
    let mut lines = text.lines().map(str::trim);
    let mut bytes = Vec::new();
    let mut found = false;
    while lines.by_ref().any(|line| line == begin) {
        let mut body = String::new();
        let mut headers = true;
        loop {
            let line = lines.next()?;
            if line == end {
                break;
            }
            // Up to the first empty line stand headers such as `Version`; a line that begins with
            // `=` is a checksum against accidents.
            headers &= line.contains(": ");
            if !headers && !line.starts_with('=') {
                body.push_str(line);
            }
        }
        bytes.extend(decode_base64(&body)?);
        found = true;
    }
    found.then_some(Cow::Owned(bytes))
}

/// Decodes base64 with padding (RFC 4648, section 4).
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for c in digits.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_vectors() {
        // RFC 4648, section 10.
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(decode_base64(text).unwrap(), bytes.as_bytes());
        }
        assert!(decode_base64("Zg=").is_none() && decode_base64("Z!==").is_none());
    }

    #[test]
    fn blocks_are_joined_and_the_rest_is_passed_over() {
        let block = |body: &str| {
            format!(
                "-----BEGIN PGP SIGNATURE-----\nVersion: x\n\n{body}\n=abcd\n\
                 -----END PGP SIGNATURE-----\n"
            )
        };
        let text = format!("about it\n{}between\n{}", block("Zm9v"), block("YmFy"));
        assert_eq!(*unpack(text.as_bytes(), "SIGNATURE").unwrap(), *b"foobar");
        assert_eq!(*unpack(b"\x99abc", "SIGNATURE").unwrap(), *b"\x99abc");
        for damaged in [&text[..40], &text.replace("Zm9v", "Zm9"), "nothing", ""] {
            assert!(unpack(damaged.as_bytes(), "SIGNATURE").is_none(), "{damaged}");
        }
    }
}
