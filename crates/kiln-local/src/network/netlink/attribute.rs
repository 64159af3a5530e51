//! Attributes: the typed, nested values of a netlink message.
//!
//! Each is a host-order `u16` length (header included), a `u16` type and the value, padded to
//! four bytes.

use std::ffi::CStr;

const HEADER_BYTES: usize = 4;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of the type that name it; the others are flags.
const TYPE_MASK: u16 = 0x3fff;

/// Appends attributes to a message.
pub(crate) struct Attributes<'a> {
    pub(super) bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(value);
        self.end(start)
    }

    /// A string with its terminator.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.end(start)
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// An integer in network order, as `nf_tables` wants all of them.
    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An attribute that holds what `fill` appends.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        let start = self.begin(kind | NESTED);
        fill(&mut Attributes { bytes: self.bytes });
        self.end(start)
    }

    /// Bytes that are no attribute: a header within a nested attribute.
    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) -> &mut Self {
        let length = u16::try_from(self.bytes.len() - start)
            .expect("attributes are bounded far below 64 KiB by their callers");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }
}

/// The attributes in `bytes`, as far as they are whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_host(bytes.get(..2)?)?);
        let kind = u16_host(bytes.get(2..HEADER_BYTES)?)? & TYPE_MASK;
        let value = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of that type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A string, up to its terminator.
pub(crate) fn text(value: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(value).map_or(value, CStr::to_bytes);
    String::from_utf8_lossy(text).into_owned()
}

pub(crate) fn u16_host(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_host(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

pub(crate) fn u32_be(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        Attributes { bytes: &mut bytes }.text(1, "kiln0").nest(2, |inner| {
            inner.u32_be(3, 7).bytes(4, &[1, 2, 3]);
        });
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(find(&bytes, 1).map(text).as_deref(), Some("kiln0"));
        let inner = find(&bytes, 2).unwrap();
        assert_eq!(find(inner, 3).and_then(u32_be), Some(7));
        assert_eq!(find(inner, 4), Some(&[1, 2, 3][..]));
        assert_eq!(find(inner, 5), None);
    }

    #[test]
    fn broken_attributes_end_the_list() {
        for broken in [&[][..], &[4], &[2, 0, 1, 0], &[0, 0, 0, 0], &[9, 0, 1, 0, 5]] {
            assert_eq!(attributes(broken).count(), 0, "{broken:?}");
        }
    }
}
