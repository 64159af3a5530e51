//! The few parts of DNS messages that are needed (RFC 1035, section 4).

/// The types and class that are answered (RFC 1035, section 3.2; RFC 3596).
pub(crate) const TYPE_A: u16 = 1;
pub(crate) const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;

const HEADER: usize = 12;
const NAME_LIMIT: usize = 255;
const LABEL_LIMIT: usize = 63;

/// What a reply says about itself (RFC 1035, section 4.1.1, RCODE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NameError = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    header: &'a [u8],
    /// The question as it was asked, to be repeated in the reply.
    question: &'a [u8],
    /// In lower case, labels separated by dots, none at the end. Bytes that are no ASCII stand
    /// as they are in Latin-1, so no two different names become one.
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

/// What a packet is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    Query(Query<'a>),
    /// A query that is not understood; this is what its sender is told.
    Bad(Vec<u8>),
    /// No query, so not to be answered.
    Nothing,
}

/// Reads a packet: a standard query with exactly one question. What follows the question
/// (such as EDNS options) is left out of account.
pub(crate) fn parse(packet: &[u8]) -> Parsed<'_> {
    let Some(header) = packet.get(..HEADER) else { return Parsed::Nothing };
    let is_response = header[2] & 0x80 != 0;
    if is_response {
        return Parsed::Nothing;
    }
    let opcode = header[2] >> 3 & 0x0f;
    if opcode != 0 {
        return Parsed::Bad(encode(header, &[], Code::NotImplemented, None));
    }
    let questions = u16::from_be_bytes([header[4], header[5]]);
    let parsed = if questions == 1 { parse_question(packet) } else { None };
    match parsed {
        Some(query) => Parsed::Query(query),
        None => Parsed::Bad(encode(header, &[], Code::FormatError, None)),
    }
}

fn parse_question(packet: &[u8]) -> Option<Query<'_>> {
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // A question is the first name of its packet, so there is nothing to point back to.
        if length > LABEL_LIMIT || at + length - HEADER > NAME_LIMIT {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        let label = packet.get(at..at + length)?;
        name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        at += length;
    }
    let rest = packet.get(at..at + 4)?;
    Some(Query {
        header: &packet[..HEADER],
        question: &packet[HEADER..at + 4],
        name,
        kind: u16::from_be_bytes([rest[0], rest[1]]),
        class: u16::from_be_bytes([rest[2], rest[3]]),
    })
}

/// An address record and for how long it may be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) address: std::net::Ipv4Addr,
    pub(crate) ttl_s: u32,
}

impl Query<'_> {
    /// Whether the class is the Internet's.
    pub(crate) fn is_internet(&self) -> bool {
        self.class == CLASS_IN || self.class == CLASS_ANY
    }

    /// The reply with at most one address.
    pub(crate) fn reply(&self, code: Code, record: Option<Record>) -> Vec<u8> {
        encode(self.header, self.question, code, record)
    }
}

fn encode(header: &[u8], question: &[u8], code: Code, record: Option<Record>) -> Vec<u8> {
    let mut reply = Vec::with_capacity(HEADER + question.len() + 16);
    reply.extend_from_slice(&header[..2]);
    let recursion_desired = header[2] & 0x01;
    let opcode = header[2] & 0x78;
    // A response; authoritative, since nobody else knows these names.
    reply.push(0x84 | opcode | recursion_desired);
    // Recursion is available: clients that insist on it would not ask again otherwise.
    reply.push(0x80 | code as u8);
    reply.extend_from_slice(&[0, u8::from(!question.is_empty())]);
    reply.extend_from_slice(&[0, u8::from(record.is_some()), 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if let Some(record) = record {
        // A pointer to the question's name, which is the first thing after the header.
        reply.extend_from_slice(&[0xc0, 12]);
        reply.extend_from_slice(&TYPE_A.to_be_bytes());
        reply.extend_from_slice(&CLASS_IN.to_be_bytes());
        reply.extend_from_slice(&record.ttl_s.to_be_bytes());
        reply.extend_from_slice(&4u16.to_be_bytes());
        reply.extend_from_slice(&record.address.octets());
    }
    reply
}

/// Whether `reply` answers `query`: the same number and the same question.
pub(crate) fn answers(reply: &[u8], query: &[u8]) -> bool {
    let Parsed::Query(asked) = parse(query) else { return false };
    let is_response = reply.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let question = reply.get(HEADER..HEADER + asked.question.len());
    is_response
        && reply.get(..2) == query.get(..2)
        && question.is_some_and(|repeated| repeated.eq_ignore_ascii_case(asked.question))
}
