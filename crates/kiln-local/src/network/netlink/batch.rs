//! Requests that go to the kernel in one system call.

use super::{ACK, Attributes};

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER_BYTES: usize = 16;
/// Marks a request.
const REQUEST: u16 = 0x1;

/// A run of requests.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// What each request asks for. Its index is the request's sequence number.
    pub(super) whats: Vec<&'static str>,
}

impl Batch {
    /// Appends a request: `header` is the protocol's own header, `fill` appends the attributes,
    /// `what` is said when it fails: a verb with its object.
    pub(crate) fn push(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Attributes),
    ) -> &mut Self {
        let start = self.bytes.len();
        let sequence = u32::try_from(self.whats.len()).expect("a batch has few requests");
        self.whats.push(what);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        fill(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).expect("a request is small");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Asks for an answer to the last request, if there is one.
    pub(crate) fn acknowledge_last(&mut self) {
        let mut start = 0;
        let mut last = None;
        while let Some(length) = self.bytes.get(start..start + 4).and_then(super::u32_host) {
            last = Some(start);
            start += usize::try_from(length).expect("a request is small").next_multiple_of(4);
        }
        if let Some(flags) = last.and_then(|start| self.bytes.get_mut(start + 6..start + 8)) {
            let asked = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
            flags.copy_from_slice(&asked.to_ne_bytes());
        }
    }

    /// How many answers are due.
    pub(super) fn acknowledgements(&self) -> usize {
        messages(&self.bytes).filter(|message| message.flags & ACK != 0).count()
    }
}

/// One message as it was received.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages in `bytes`, as far as they are whole.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let field = |range: std::ops::Range<usize>| bytes.get(range);
        let length = usize::try_from(super::u32_host(field(0..4)?)?).ok()?;
        let message = Message {
            kind: super::u16_host(field(4..6)?)?,
            flags: super::u16_host(field(6..8)?)?,
            sequence: super::u32_host(field(8..12)?)?,
            payload: field(HEADER_BYTES..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}
