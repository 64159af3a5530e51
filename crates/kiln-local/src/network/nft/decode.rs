//! Objects of `nf_tables` as the kernel lists them, back into values.
//!
//! Whatever Kiln would not write itself decodes as foreign, never as something near it: a rule
//! with an unknown flag must not pass for one without.

use super::{Expression, Field, Hook, Point, Register, Rule, Verdict, wire};
use crate::network::netlink::{attributes, find, text, u32_be};

/// A rule from its list of steps.
pub(super) fn rule(list: &[u8]) -> Rule {
    Rule(
        attributes(list)
            .map(|(_, element)| {
                let kind = find(element, wire::EXPRESSION_NAME).map(text).unwrap_or_default();
                let data = Data(find(element, wire::EXPRESSION_DATA).unwrap_or_default());
                expression(&kind, data).unwrap_or(Expression::Foreign(kind))
            })
            .collect(),
    )
}

/// The attributes of one step.
#[derive(Clone, Copy)]
struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    fn number(self, kind: u16) -> Option<u32> {
        find(self.0, kind).and_then(u32_be)
    }

    fn register(self, kind: u16) -> Option<Register> {
        self.number(kind).and_then(Register::from_number)
    }

    fn value(self, kind: u16) -> Option<&'a [u8]> {
        find(self.0, kind).and_then(|nested| find(nested, wire::DATA_VALUE))
    }

    /// Whether there is nothing besides `known`.
    fn only(self, known: &[u16]) -> Option<()> {
        attributes(self.0).all(|(kind, _)| known.contains(&kind)).then_some(())
    }
}

fn expression(kind: &str, data: Data<'_>) -> Option<Expression> {
    match kind {
        "meta" => {
            data.only(&[wire::META_KEY, wire::META_TO])?;
            Some(Expression::Meta {
                key: data.number(wire::META_KEY)?,
                to: data.register(wire::META_TO)?,
            })
        }
        "payload" => {
            data.only(&[
                wire::PAYLOAD_TO,
                wire::PAYLOAD_BASE,
                wire::PAYLOAD_OFFSET,
                wire::PAYLOAD_LENGTH,
            ])?;
            Some(Expression::Payload {
                base: data.number(wire::PAYLOAD_BASE)?,
                offset: data.number(wire::PAYLOAD_OFFSET)?,
                length: data.number(wire::PAYLOAD_LENGTH)?,
                to: data.register(wire::PAYLOAD_TO)?,
            })
        }
        "ct" => {
            data.only(&[wire::CT_KEY, wire::CT_TO])?;
            Some(Expression::Connection {
                key: data.number(wire::CT_KEY)?,
                to: data.register(wire::CT_TO)?,
            })
        }
        "bitwise" => mask(data),
        "cmp" => compare(data),
        "immediate" => immediate(data),
        "lookup" => lookup(data),
        "nat" => nat(data),
        "masq" => data.only(&[]).map(|()| Expression::Masquerade),
        "reject" => reject(data),
        _ => None,
    }
}

fn mask(data: Data<'_>) -> Option<Expression> {
    const OPERATION: u16 = 6;
    const MASK_AND_XOR: u32 = 0;
    let register = data.register(wire::BITWISE_FROM)?;
    let plain = data.register(wire::BITWISE_TO)? == register
        && data.number(OPERATION).is_none_or(|operation| operation == MASK_AND_XOR)
        && data.value(wire::BITWISE_XOR)?.iter().all(|byte| *byte == 0);
    plain.then_some(Expression::Mask { register, mask: data.value(wire::BITWISE_MASK)?.to_vec() })
}

fn compare(data: Data<'_>) -> Option<Expression> {
    let equal = match data.number(wire::COMPARE_OPERATOR)? {
        wire::COMPARE_EQUAL => true,
        wire::COMPARE_NOT_EQUAL => false,
        _ => return None,
    };
    let register = data.register(wire::COMPARE_REGISTER)?;
    Some(Expression::Compare { register, equal, value: data.value(wire::COMPARE_DATA)?.to_vec() })
}

fn immediate(data: Data<'_>) -> Option<Expression> {
    if let Some(value) = data.value(wire::IMMEDIATE_DATA) {
        return Some(Expression::Load {
            to: data.register(wire::IMMEDIATE_TO)?,
            value: value.to_vec(),
        });
    }
    let nested = find(find(data.0, wire::IMMEDIATE_DATA)?, wire::DATA_VERDICT)?;
    verdict(find(nested, wire::VERDICT_CODE).and_then(u32_be)?).map(Expression::Verdict)
}

fn lookup(data: Data<'_>) -> Option<Expression> {
    let flags = data.number(wire::LOOKUP_FLAGS).unwrap_or_default();
    let to = match find(data.0, wire::LOOKUP_TO) {
        Some(_) => Some(data.register(wire::LOOKUP_TO)?),
        None => None,
    };
    (flags & !wire::LOOKUP_INVERTED == 0).then_some(Expression::Lookup {
        set: text(find(data.0, wire::LOOKUP_SET)?),
        key: data.register(wire::LOOKUP_KEY)?,
        to,
        inverted: flags & wire::LOOKUP_INVERTED != 0,
    })
}

fn nat(data: Data<'_>) -> Option<Expression> {
    const ADDRESS_END: u16 = 4;
    const PORT_END: u16 = 6;
    const FLAGS: u16 = 7;
    /// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`, which go without saying.
    const IMPLIED_FLAGS: u32 = 1 | 2;
    let (address, port) = (data.register(wire::NAT_ADDRESS)?, data.register(wire::NAT_PORT)?);
    let same = |kind, first| find(data.0, kind).is_none() || data.register(kind) == Some(first);
    let plain = data.number(wire::NAT_KIND)? == wire::NAT_DESTINATION
        && same(ADDRESS_END, address)
        && same(PORT_END, port)
        && data.number(FLAGS).unwrap_or_default() & !IMPLIED_FLAGS == 0;
    plain.then_some(Expression::DestinationNat { address, port })
}

fn reject(data: Data<'_>) -> Option<Expression> {
    match data.number(wire::REJECT_KIND)? {
        wire::REJECT_RESET => Some(Expression::Reject { reset: true }),
        wire::REJECT_ICMP => (find(data.0, wire::REJECT_CODE)? == [wire::ICMP_PROHIBITED])
            .then_some(Expression::Reject { reset: false }),
        _ => None,
    }
}

fn verdict(code: u32) -> Option<Verdict> {
    match code {
        wire::VERDICT_DROP => Some(Verdict::Drop),
        wire::VERDICT_ACCEPT => Some(Verdict::Accept),
        _ => None,
    }
}

/// Where a chain hangs, from the chain's attributes; none for one that is only jumped to.
pub(super) fn hook(chain: &[u8]) -> Option<Hook> {
    let hook = find(chain, wire::CHAIN_HOOK)?;
    Some(Hook {
        kind: find(chain, wire::CHAIN_TYPE).map(text).unwrap_or_default(),
        point: Point::from_number(find(hook, wire::HOOK_NUMBER).and_then(u32_be)?),
        priority: find(hook, wire::HOOK_PRIORITY).and_then(u32_be)?.cast_signed(),
        policy: find(chain, wire::CHAIN_POLICY).and_then(u32_be).and_then(verdict)?,
    })
}

/// The fields of a key, from its type; empty where one is unknown.
pub(super) fn key(mut number: u32) -> Vec<Field> {
    let mut fields = Vec::new();
    while number != 0 {
        match Field::from_number(number & ((1 << wire::TYPE_BITS) - 1)) {
            Some(field) => fields.insert(0, field),
            None => return Vec::new(),
        }
        number >>= wire::TYPE_BITS;
    }
    fields
}
