//! What certificates say of themselves, as far as it is needed and not told by rustls: from when
//! to when they are valid (RFC 5280, section 4.1).

use kiln_model::calendar::days_from_civil;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// From when to when a certificate is valid, in seconds since 1970-01-01 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub not_before: i64,
    /// Its last second.
    pub not_after: i64,
}

/// The validity of the first certificate in a text in PEM; `None` where there is none.
pub fn validity_of_pem(text: &str) -> Option<Validity> {
    let first = CertificateDer::pem_slice_iter(text.as_bytes()).next()?.ok()?;
    validity(&first)
}

/// Tags of DER (X.690).
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The validity of a certificate in DER.
pub(crate) fn validity(certificate: &[u8]) -> Option<Validity> {
    let (certificate, _) = take(certificate, SEQUENCE)?;
    let (mut fields, _) = take(certificate, SEQUENCE)?;
    if let Some((_, rest)) = take(fields, VERSION) {
        fields = rest;
    }
    // The serial number, the algorithm, the issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = take(fields, tag)?.1;
    }
    let (dates, _) = take(fields, SEQUENCE)?;
    let (not_before, dates) = time(dates)?;
    let (not_after, _) = time(dates)?;
    Some(Validity { not_before, not_after })
}

/// The content of the element at the beginning, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, century) = match take(bytes, UTC_TIME) {
        Some((text, rest)) => (text, rest, true),
        None => take(bytes, GENERALIZED_TIME).map(|(text, rest)| (text, rest, false))?,
    };
    let digits = text.strip_suffix(b"Z").filter(|d| d.iter().all(u8::is_ascii_digit))?;
    let (year, digits) = digits.split_at_checked(if century { 2 } else { 4 })?;
    let number = |digits: &[u8]| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0'));
    let year = match number(year) {
        short @ 0..50 if century => 2000 + short,
        short if century => 1900 + short,
        year => year,
    };
    let pairs: Vec<i64> = digits.chunks(2).map(number).collect();
    let [month @ 1..=12, day @ 1..=31, hour @ 0..24, minute @ 0..60, second @ 0..=60] = pairs[..]
    else {
        return None;
    };
    let days = days_from_civil(year, month, day);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match u8::try_from(content.len()) {
            Ok(length @ 0..=0x7f) => bytes.push(length),
            Ok(length) => bytes.extend([0x81, length]),
            Err(_) => {
                bytes.push(0x82);
                bytes.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend(content);
        bytes
    }

    fn certificate(version: bool, issuer: usize, from: (u8, &str), to: (u8, &str)) -> Vec<u8> {
        let mut fields = Vec::new();
        if version {
            fields.extend(element(VERSION, &element(INTEGER, &[2])));
        }
        fields.extend(element(INTEGER, &[1, 2, 3]));
        fields.extend(element(SEQUENCE, &[]));
        fields.extend(element(SEQUENCE, &vec![0; issuer]));
        let dates = [from, to].map(|(tag, text)| element(tag, text.as_bytes())).concat();
        fields.extend(element(SEQUENCE, &dates));
        element(SEQUENCE, &element(SEQUENCE, &fields))
    }

    #[test]
    fn dates_are_read_in_both_forms() {
        let utc = (UTC_TIME, "700101000000Z");
        let late = (GENERALIZED_TIME, "20500102030405Z");
        for issuer in [0, 100, 200, 5000] {
            let read = validity(&certificate(issuer != 0, issuer, utc, late)).unwrap();
            assert_eq!(read, Validity { not_before: 0, not_after: 2_524_705_445 });
        }
        let read = validity(&certificate(true, 9, (UTC_TIME, "491231235959Z"), late)).unwrap();
        assert_eq!(read.not_before, 2_524_607_999);
    }

    #[test]
    fn what_is_cut_or_no_date_is_not_read() {
        let whole =
            certificate(true, 200, (UTC_TIME, "700101000000Z"), (UTC_TIME, "800101000000Z"));
        for length in 0..whole.len() {
            assert_eq!(validity(&whole[..length]), None, "{length} bytes of it");
        }
        for text in ["701301000000Z", "7001010000Z", "700101000000", "70010100000xZ"] {
            let broken = certificate(true, 9, (UTC_TIME, text), (UTC_TIME, "800101000000Z"));
            assert_eq!(validity(&broken), None, "{text}");
        }
    }
}
