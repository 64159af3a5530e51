//! Packet filter rules, typed: what the kernel's `nf_tables` is told, and reads back.
//!
//! A [`Table`] is a value. [`encode`] turns tables and changes of their sets into one transaction,
//! which takes effect as a whole or not at all; [`list()`] reads tables back as the same values, so
//! that what is there can be compared with what ought to be. Only what Kiln's own rules need is
//! modelled; anything else reads back as [`Expression::Foreign`]. The layouts are those of
//! `linux/netfilter/nf_tables.h`.

mod decode;
mod encode;
pub(crate) mod list;
pub(crate) mod rule;
mod show;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

pub(crate) use encode::{Element, Transaction};
pub(crate) use list::list;
pub(crate) use rule::Rule;

/// The traffic that a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4 packets.
    Ip,
    /// Frames at the ports of a bridge.
    Bridge,
    /// Another family, by its number (`NFPROTO_*`).
    Other(u8),
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Ip => 2,
            Self::Bridge => 7,
            Self::Other(number) => number,
        }
    }

    pub(crate) fn from_number(number: u8) -> Self {
        [Self::Ip, Self::Bridge]
            .into_iter()
            .find(|family| family.number() == number)
            .unwrap_or(Self::Other(number))
    }
}

/// A table with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: String,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

/// Rules that packets pass in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    /// Where packets enter it; none for a chain that is only jumped to.
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// Where a chain hangs, and what becomes of packets that reach its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: String,
    pub(crate) point: Point,
    /// Lower ones see a packet earlier.
    pub(crate) priority: i32,
    pub(crate) policy: Verdict,
}

/// A point on a packet's way; the numbers are `NF_INET_*`, and `NF_BR_*` alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Prerouting,
    Input,
    Forward,
    Postrouting,
    Other(u32),
}

impl Point {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Postrouting => 4,
            Self::Other(number) => number,
        }
    }

    pub(crate) fn from_number(number: u32) -> Self {
        [Self::Prerouting, Self::Input, Self::Forward, Self::Postrouting]
            .into_iter()
            .find(|point| point.number() == number)
            .unwrap_or(Self::Other(number))
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
}

/// Where a set is: its table's family, its table and its own name.
pub(crate) type SetName<'a> = (Family, &'a str, &'a str);

/// Keys, or keys with a value each, that rules look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) key: Vec<Field>,
    /// What a key leads to; none for a plain set.
    pub(crate) value: Option<Field>,
    /// Each field of a key is padded to four bytes; a plain set's values are empty.
    pub(crate) elements: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a part of a key, or a value, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Ipv4,
    Mac,
    Port,
    Interface,
}

impl Field {
    /// The number by which `nft` knows the type, so that its listings read well.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Mac => 9,
            Self::Port => 13,
            Self::Interface => 41,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Ipv4, Self::Mac, Self::Port, Self::Interface]
            .into_iter()
            .find(|field| field.number() == number)
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Ipv4 => 4,
            Self::Mac => 6,
            Self::Port => 2,
            Self::Interface => 16,
        }
    }
}

/// Bytes that a key takes in registers.
pub(crate) fn key_bytes(key: &[Field]) -> usize {
    if let [field] = key {
        return field.bytes();
    }
    key.iter().map(|field| field.bytes().next_multiple_of(4)).sum()
}

/// One of the sixteen four-byte registers that a rule works with, by its index. Longer values
/// take as many as they need, from this one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) u32);

impl Register {
    /// `NFT_REG32_00`.
    const FIRST: u32 = 8;

    pub(crate) fn number(self) -> u32 {
        Self::FIRST + self.0
    }

    /// The kernel names registers at multiples of sixteen bytes by their older, wider names.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        match number {
            1..=4 => Some(Self((number - 1) * 4)),
            Self::FIRST..=23 => Some(Self(number - Self::FIRST)),
            _ => None,
        }
    }
}

/// A step of a rule. A rule ends at the first step that does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// Loads what the kernel knows of the packet.
    Meta { key: u32, to: Register },
    /// Loads from the packet, `offset` bytes into the header `base`.
    Payload { base: u32, offset: u32, length: u32, to: Register },
    /// Loads what the kernel knows of the packet's connection.
    Connection { key: u32, to: Register },
    /// Keeps the bits of `mask`.
    Mask { register: Register, mask: Vec<u8> },
    /// Matches where the register holds, or does not hold, `value`.
    Compare { register: Register, equal: bool, value: Vec<u8> },
    /// Loads a constant.
    Load { to: Register, value: Vec<u8> },
    /// Matches where the set has (or, with `inverted`, hasn't) the key; loads a map's value.
    Lookup { set: String, key: Register, to: Option<Register>, inverted: bool },
    /// Sends the connection to another address and port.
    DestinationNat { address: Register, port: Register },
    /// Gives the connection the address of the interface that it leaves by.
    Masquerade,
    /// Drops with an answer: a TCP reset, or ICMP `administratively prohibited`.
    Reject { reset: bool },
    /// Ends the rules.
    Verdict(Verdict),
    /// A step that Kiln never makes, by its type.
    Foreign(String),
}
