//! Extended attributes, right after their inode: a 12-byte header, then the entries.

use std::collections::BTreeMap;

const HEADER_LEN: usize = 12;
const ENTRY_LEN: usize = 4;

/// Prefixes that the format writes as a number, see `EROFS_XATTR_INDEX_*`.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// Bytes that the attributes take in the image; 0 for none.
pub(super) fn size(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> usize {
    if xattrs.is_empty() {
        return 0;
    }
    let entries = xattrs.iter().map(|(name, value)| {
        let (_, rest) = split(name);
        (ENTRY_LEN + rest.len() + value.len()).next_multiple_of(ENTRY_LEN)
    });
    HEADER_LEN + entries.sum::<usize>()
}

/// The length `size` as inodes state it: 0 for none, else 1 for the header and 1 for each 4 bytes
/// behind it. The tree's limits keep it in range.
pub(super) fn count(size: usize) -> u16 {
    let words = size.checked_sub(HEADER_LEN).map_or(0, |entries| 1 + entries / 4);
    u16::try_from(words).unwrap_or(u16::MAX)
}

/// Appends the attributes to `out`, as many bytes as [`size`] says.
pub(super) fn encode(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut Vec<u8>) {
    if xattrs.is_empty() {
        return;
    }
    out.extend([0; HEADER_LEN]);
    for (name, value) in xattrs {
        let start = out.len();
        let (index, rest) = split(name);
        out.push(u8::try_from(rest.len()).unwrap_or(u8::MAX));
        out.push(index);
        out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(rest);
        out.extend(value);
        out.resize(start + (out.len() - start).next_multiple_of(ENTRY_LEN), 0);
    }
}

/// How many bytes the attributes take that inodes state as `count`.
pub(super) fn length(count: u16) -> u64 {
    let words = u64::from(count);
    words.checked_sub(1).map_or(0, |entries| HEADER_LEN as u64 + entries * ENTRY_LEN as u64)
}

/// The attributes in the bytes that stand behind an inode. Nothing where they are not as
/// [`encode`] writes them.
pub(super) fn decode(bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    if bytes.is_empty() {
        return Some(xattrs);
    }
    let (header, mut rest) = bytes.split_at_checked(HEADER_LEN)?;
    if header.iter().any(|byte| *byte != 0) {
        return None;
    }
    while let Some((entry, behind)) = rest.split_at_checked(ENTRY_LEN) {
        let name_length = usize::from(entry[0]);
        let value_length = usize::from(u16::from_le_bytes([entry[2], entry[3]]));
        let index = entry[1];
        let prefix = PREFIXES.iter().find(|(_, known)| *known == index).map(|(prefix, _)| *prefix);
        let name = [prefix?, behind.get(..name_length)?].concat();
        let value = behind.get(name_length..name_length + value_length)?;
        xattrs.insert(name, value.to_vec());
        let whole = (name_length + value_length).next_multiple_of(ENTRY_LEN);
        rest = behind.get(whole..)?;
    }
    rest.is_empty().then_some(xattrs)
}

/// A name as prefix number and rest. The tree takes only names with one of the prefixes.
fn split(name: &[u8]) -> (u8, &[u8]) {
    let found = PREFIXES
        .iter()
        .find_map(|(prefix, index)| name.strip_prefix(*prefix).map(|rest| (*index, rest)));
    found.unwrap_or((0, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_counted_in_words() {
        let xattrs = BTreeMap::from([(b"user.ab".to_vec(), b"xyz".to_vec())]);
        let mut out = Vec::new();
        encode(&xattrs, &mut out);
        assert_eq!(&out[12..], b"\x02\x01\x03\x00abxyz\0\0\0");
        assert_eq!((size(&xattrs), count(24)), (24, 4));
        assert_eq!((size(&BTreeMap::new()), count(0)), (0, 0));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let xattrs = BTreeMap::from([
            (b"security.capability".to_vec(), vec![1; 20]),
            (b"system.posix_acl_access".to_vec(), vec![2; 7]),
            (b"user.a".to_vec(), Vec::new()),
        ]);
        let mut out = Vec::new();
        encode(&xattrs, &mut out);
        assert_eq!(length(count(out.len())), out.len() as u64);
        assert_eq!(decode(&out), Some(xattrs));
        assert_eq!(decode(&out[..out.len() - 4]), None);
        assert_eq!(decode(&[]), Some(BTreeMap::new()));
    }
}
