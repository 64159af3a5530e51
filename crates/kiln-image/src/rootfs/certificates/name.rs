//! The subject of a certificate in the form that OpenSSL hashes (`X509_NAME_hash`): each string
//! as UTF-8 in lower case, without space around it and with single spaces inside.

/// The element at the start of some DER: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=127 => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const EXPLICIT_VERSION: u8 = 0xa0;
const UTF8: u8 = 12;

/// The subject of a certificate (RFC 5280, section 4.1), without the frame around its parts.
pub(super) fn canonical_subject(certificate: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    if let (EXPLICIT_VERSION, _, after) = element(rest)? {
        rest = after;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, mut parts, _) = element(rest)? else { return None };
    let mut subject = Vec::new();
    while !parts.is_empty() {
        let (SET, mut part, after) = element(parts)? else { return None };
        let mut values = Vec::new();
        while !part.is_empty() {
            let (SEQUENCE, pair, next) = element(part)? else { return None };
            values.push(canonical_pair(pair)?);
            part = next;
        }
        // The members of a set stand in the order of their encodings.
        values.sort();
        subject.extend(encoded(SET, &values.concat()));
        parts = after;
    }
    Some(subject)
}

/// What kind of name it is, and the name.
fn canonical_pair(pair: &[u8]) -> Option<Vec<u8>> {
    let (kind_tag, kind, value) = element(pair)?;
    let (tag, content, _) = element(value)?;
    let text = match tag {
        UTF8 => Some(String::from_utf8_lossy(content).into_owned()),
        // Printable, T61, IA5 and visible strings: each byte is a letter.
        19 | 20 | 22 | 26 => Some(content.iter().map(|byte| char::from(*byte)).collect()),
        // UTF-32 and UTF-16.
        28 => content.chunks(4).map(|c| char::from_u32(number(c))).collect(),
        30 => {
            let units: Vec<u16> =
                content.chunks(2).filter_map(|c| u16::try_from(number(c)).ok()).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    };
    let value = match text {
        Some(text) => {
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            encoded(UTF8, words.join(" ").to_ascii_lowercase().as_bytes())
        }
        None => encoded(tag, content),
    };
    Some(encoded(SEQUENCE, &[encoded(kind_tag, kind), value].concat()))
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|digit| **digit == 0).count()..];
    let mut bytes = vec![tag];
    match digits {
        [] => bytes.push(0),
        [one @ 0..=127] => bytes.push(*one),
        // A length has at most eight digits.
        digits => {
            bytes.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
            bytes.extend(digits);
        }
    }
    bytes.extend(content);
    bytes
}
