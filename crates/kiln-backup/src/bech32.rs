//! Bech32 (BIP 173): the form in which age writes its keys.

const CHARACTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
/// Characters of the checksum.
const CHECKSUM: usize = 6;

/// The bytes of a text whose part before the last `1` is `prefix`, in whatever case. `None` where
/// it is no such text, or a character of it is wrong.
pub(crate) fn decode(text: &str, prefix: &str) -> Option<Vec<u8>> {
    let text = text.to_ascii_lowercase();
    let (found, data) = text.rsplit_once('1')?;
    if found != prefix || data.len() < CHECKSUM {
        return None;
    }
    let value = |byte: u8| CHARACTERS.iter().position(|known| *known == byte);
    let values: Option<Vec<u8>> =
        data.bytes().map(|byte| value(byte).and_then(|value| u8::try_from(value).ok())).collect();
    let values = values?;
    if checksum(prefix, &values) != 1 {
        return None;
    }
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for value in &values[..values.len() - CHECKSUM] {
        bits = (bits << 5 | u32::from(*value)) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    // What is left over is padding.
    (count < 5 && bits & ((1 << count) - 1) == 0).then_some(bytes)
}

fn checksum(prefix: &str, values: &[u8]) -> u32 {
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    let all = high.chain([0]).chain(low).chain(values.iter().copied());
    all.fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x1ff_ffff) << 5 ^ u32::from(value);
        let terms = GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1);
        terms.fold(sum, |sum, (_, term)| sum ^ term)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_texts_are_read() {
        // BIP 173, "Test vectors".
        assert_eq!(decode("A12UEL5L", "a"), Some(Vec::new()));
        let text = "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw";
        let bytes = [
            0x00, 0x44, 0x32, 0x14, 0xc7, 0x42, 0x54, 0xb6, 0x35, 0xcf, 0x84, 0x65, 0x3a, 0x56,
            0xd7, 0xc6, 0x75, 0xbe, 0x77, 0xdf,
        ];
        assert_eq!(decode(text, "abcdef"), Some(bytes.to_vec()));
        assert_eq!(decode(&text.replace('8', "9"), "abcdef"), None, "a wrong character");
        assert_eq!(decode(text, "abc"), None);
    }
}
