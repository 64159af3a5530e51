//! The cleartext signature framework: a readable text with its signatures below
//! (RFC 4880, section 7).

use std::borrow::Cow;

use super::armour::decode_base64;
use super::packet::{Signature, packets};

const BEGIN_MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";

/// A document that is not cleartext-signed.
#[derive(Debug, thiserror::Error)]
pub enum CleartextError {
    /// It is not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// A mark is missing, or stands elsewhere than it must.
    #[error("the line `{0}` is missing or misplaced")]
    Missing(&'static str),
    /// The signature's armour is damaged.
    #[error("its signature is not valid base64")]
    Armour,
}

/// A text and the signatures that came with it. Nothing outside the signed part is kept.
#[derive(Debug)]
pub struct SignedText<'a> {
    lines: Vec<&'a str>,
    signatures: Vec<u8>,
}

impl<'a> SignedText<'a> {
    /// Takes a document apart. It has to begin with the message and end with the signature, so
    /// that nothing unsigned can stand beside.
    pub(super) fn parse(document: &'a [u8]) -> Result<Self, CleartextError> {
        let text = str::from_utf8(document).map_err(|_| CleartextError::NotText)?;
        let mut lines = text.split('\n').map(|line| line.trim_end_matches(['\r', ' ', '\t']));
        if lines.next() != Some(BEGIN_MESSAGE) {
            return Err(CleartextError::Missing(BEGIN_MESSAGE));
        }
        // Headers such as `Hash: SHA256`; the signature itself says the same.
        for header in lines.by_ref().take_while(|line| !line.is_empty()) {
            if !header.starts_with("Hash: ") {
                return Err(CleartextError::Missing(""));
            }
        }
        let mut body = Vec::new();
        loop {
            match lines.next() {
                None => return Err(CleartextError::Missing(BEGIN_SIGNATURE)),
                Some(BEGIN_SIGNATURE) => break,
                Some(line) => match line.strip_prefix("- ") {
                    Some(escaped) => body.push(escaped),
                    None if line.starts_with('-') => {
                        return Err(CleartextError::Missing(BEGIN_SIGNATURE));
                    }
                    None => body.push(line),
                },
            }
        }
        let mut armour = String::new();
        let mut ended = false;
        // Up to the first empty line stand headers such as `Version`.
        let after_headers = lines.by_ref().skip_while(|line| line.contains(": "));
        for line in after_headers {
            match line {
                END_SIGNATURE => ended = true,
                _ if ended && !line.is_empty() => {
                    return Err(CleartextError::Missing(END_SIGNATURE));
                }
                // The checksum of the armour guards against accidents only.
                _ if line.starts_with('=') => {}
                _ => armour.push_str(line),
            }
        }
        if !ended {
            return Err(CleartextError::Missing(END_SIGNATURE));
        }
        let signatures = decode_base64(&armour).ok_or(CleartextError::Armour)?;
        Ok(Self { lines: body, signatures })
    }

    /// The text without escapes, as it is to be read.
    pub fn text(&self) -> Cow<'a, str> {
        Cow::Owned(self.lines.iter().fold(String::new(), |text, line| text + line + "\n"))
    }

    /// The text as it is hashed: without space at the end of lines, which are set apart by CR LF.
    pub(super) fn canonical(&self) -> Vec<u8> {
        self.lines.join("\r\n").into_bytes()
    }

    /// All signatures of supported kinds over a text.
    pub(super) fn signatures(&self) -> Vec<Signature> {
        signatures_in(&self.signatures)
            .filter(|signature| matches!(signature.kind, 0x00 | 0x01))
            .collect()
    }
}

/// All signatures of supported kinds among some packets.
pub(super) fn signatures_in(packed: &[u8]) -> impl Iterator<Item = Signature> {
    let found = packets(packed).filter(|packet| packet.tag == 2);
    found.filter_map(|packet| Signature::parse(packet.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_may_stand_around_the_message() {
        let good = format!(
            "{BEGIN_MESSAGE}\nHash: SHA256\n\na\n- -b\n{BEGIN_SIGNATURE}\n\nZg==\n{END_SIGNATURE}\n"
        );
        let signed = SignedText::parse(good.as_bytes()).unwrap();
        assert_eq!(signed.text(), "a\n-b\n");
        assert_eq!(signed.canonical(), b"a\r\n-b");
        for bad in [
            format!("Origin: evil\n{good}"),
            format!("{good}Origin: evil\n"),
            good.replace("Hash: SHA256", "Origin: evil"),
            good.replace("- -b", "-b"),
            good.replace(END_SIGNATURE, ""),
            good.replace("Zg==", "Zg!="),
        ] {
            assert!(SignedText::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
