//! Transactions: tables and elements on their way to the kernel.

use super::{
    Chain, Expression, Family, Field, Rule, Set, SetName, Table, Verdict, key_bytes, wire,
};
use crate::network::netlink::{APPEND, Attributes, Batch, CREATE, NEW, Refused, Socket};

/// Elements that go into one message; it must stay below 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// A key and its value; the value of a plain set's element is empty.
pub(crate) type Element<'a> = (&'a [u8], &'a [u8]);

/// Changes that take effect together or not at all.
#[derive(Debug)]
pub(crate) struct Transaction {
    batch: Batch,
    next_set_id: u32,
}

impl Transaction {
    pub(crate) fn new() -> Self {
        let mut batch = Batch::default();
        batch.push("begin a transaction", wire::BATCH_BEGIN, 0, &frame(), |_| ());
        Self { batch, next_set_id: 0 }
    }

    /// Adds a table that does not exist yet, with all that is in it.
    pub(crate) fn add_table(mut self, table: &Table) -> Self {
        let header = header(table.family);
        self.batch.push("add a table of rules", wire::NEW_TABLE, NEW, &header, |attributes| {
            attributes.text(wire::TABLE_NAME, &table.name);
        });
        for set in &table.sets {
            self.add_set(table, set);
            let elements: Vec<Element<'_>> =
                set.elements.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            self = self.add_elements((table.family, &table.name, &set.name), &elements);
        }
        for chain in &table.chains {
            add_chain(&mut self.batch, table, chain);
        }
        self
    }

    /// Deletes a table with all that is in it.
    pub(crate) fn delete_table(mut self, family: Family, name: &str) -> Self {
        let header = header(family);
        self.batch.push("delete a table of rules", wire::DELETE_TABLE, 0, &header, |attributes| {
            attributes.text(wire::TABLE_NAME, name);
        });
        self
    }

    /// Adds elements; those that are there already stay.
    pub(crate) fn add_elements(self, set: SetName<'_>, elements: &[Element<'_>]) -> Self {
        self.change_elements("add elements to a set", (wire::NEW_ELEMENT, CREATE), set, elements)
    }

    /// Deletes elements, which must be there.
    pub(crate) fn delete_elements(self, set: SetName<'_>, elements: &[Element<'_>]) -> Self {
        self.change_elements("delete elements of a set", (wire::DELETE_ELEMENT, 0), set, elements)
    }

    fn change_elements(
        mut self,
        what: &'static str,
        (kind, flags): (u16, u16),
        (family, table, set): SetName<'_>,
        elements: &[Element<'_>],
    ) -> Self {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.batch.push(what, kind, flags, &header(family), |attributes| {
                encode_elements(attributes, table, set, some);
            });
        }
        self
    }

    /// Carries the changes out.
    pub(crate) fn commit(mut self, socket: &mut Socket) -> Result<(), Refused> {
        // Kernels before Linux 6.10 acknowledge no end of a transaction; of its last change all
        // do, when the whole has taken effect.
        self.batch.acknowledge_last();
        self.batch.push("commit a transaction", wire::BATCH_END, 0, &frame(), |_| ());
        socket.execute(&self.batch)
    }

    fn add_set(&mut self, table: &Table, set: &Set) {
        let id = self.next_set_id;
        self.next_set_id += 1;
        self.batch.push("add a set", wire::NEW_SET, NEW, &header(table.family), |attributes| {
            attributes
                .text(wire::SET_TABLE, &table.name)
                .text(wire::SET_NAME, &set.name)
                .u32_be(wire::SET_ID, id)
                .u32_be(wire::SET_KEY_TYPE, key_type(&set.key))
                .u32_be(wire::SET_KEY_LENGTH, length(key_bytes(&set.key)));
            if let Some(value) = set.value {
                attributes
                    .u32_be(wire::SET_FLAGS, wire::SET_IS_MAP)
                    .u32_be(wire::SET_VALUE_TYPE, value.number())
                    .u32_be(wire::SET_VALUE_LENGTH, length(value.bytes()));
            }
        });
    }
}

/// `struct nfgenmsg` for an object of `family`.
pub(super) fn header(family: Family) -> [u8; 4] {
    [family.number(), 0, 0, 0]
}

/// `struct nfgenmsg` for the ends of a transaction.
fn frame() -> [u8; 4] {
    let [high, low] = wire::SUBSYSTEM.to_be_bytes();
    [0, 0, high, low]
}

fn key_type(key: &[Field]) -> u32 {
    key.iter().fold(0, |number, field| number << wire::TYPE_BITS | field.number())
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("keys and values have at most 64 bytes")
}

fn encode_elements(
    attributes: &mut Attributes<'_>,
    table: &str,
    set: &str,
    elements: &[Element<'_>],
) {
    attributes.text(wire::ELEMENTS_TABLE, table).text(wire::ELEMENTS_SET, set).nest(
        wire::ELEMENTS_LIST,
        |list| {
            for (key, value) in elements {
                list.nest(wire::LIST_ELEMENT, |element| {
                    element.nest(wire::ELEMENT_KEY, |data| encode_value(data, key));
                    if !value.is_empty() {
                        element.nest(wire::ELEMENT_VALUE, |data| encode_value(data, value));
                    }
                });
            }
        },
    );
}

/// A constant.
fn encode_value(data: &mut Attributes<'_>, value: &[u8]) {
    data.bytes(wire::DATA_VALUE, value);
}

fn add_chain(batch: &mut Batch, table: &Table, chain: &Chain) {
    let header = header(table.family);
    batch.push("add a chain of rules", wire::NEW_CHAIN, NEW, &header, |attributes| {
        attributes.text(wire::CHAIN_TABLE, &table.name).text(wire::CHAIN_NAME, &chain.name);
        if let Some(hook) = &chain.hook {
            let policy = verdict_code(hook.policy);
            attributes.text(wire::CHAIN_TYPE, &hook.kind).u32_be(wire::CHAIN_POLICY, policy).nest(
                wire::CHAIN_HOOK,
                |inner| {
                    inner
                        .u32_be(wire::HOOK_NUMBER, hook.point.number())
                        .u32_be(wire::HOOK_PRIORITY, hook.priority.cast_unsigned());
                },
            );
        }
    });
    for rule in &chain.rules {
        batch.push("add a rule", wire::NEW_RULE, CREATE | APPEND, &header, |attributes| {
            attributes
                .text(wire::RULE_TABLE, &table.name)
                .text(wire::RULE_CHAIN, &chain.name)
                .nest(wire::RULE_EXPRESSIONS, |list| encode_rule(list, rule));
        });
    }
}

fn encode_rule(list: &mut Attributes<'_>, rule: &Rule) {
    for expression in &rule.0 {
        list.nest(wire::LIST_ELEMENT, |element| {
            element
                .text(wire::EXPRESSION_NAME, expression.kind())
                .nest(wire::EXPRESSION_DATA, |data| encode_expression(data, expression));
        });
    }
}

fn encode_expression(data: &mut Attributes<'_>, expression: &Expression) {
    match expression {
        Expression::Meta { key, to } => {
            data.u32_be(wire::META_KEY, *key).u32_be(wire::META_TO, to.number());
        }
        Expression::Payload { base, offset, length, to } => {
            data.u32_be(wire::PAYLOAD_TO, to.number())
                .u32_be(wire::PAYLOAD_BASE, *base)
                .u32_be(wire::PAYLOAD_OFFSET, *offset)
                .u32_be(wire::PAYLOAD_LENGTH, *length);
        }
        Expression::Connection { key, to } => {
            data.u32_be(wire::CT_KEY, *key).u32_be(wire::CT_TO, to.number());
        }
        Expression::Mask { register, mask } => {
            data.u32_be(wire::BITWISE_FROM, register.number())
                .u32_be(wire::BITWISE_TO, register.number())
                .u32_be(wire::BITWISE_LENGTH, length(mask.len()))
                .nest(wire::BITWISE_MASK, |data| encode_value(data, mask))
                .nest(wire::BITWISE_XOR, |data| encode_value(data, &vec![0; mask.len()]));
        }
        Expression::Compare { register, equal, value } => {
            data.u32_be(wire::COMPARE_REGISTER, register.number())
                .u32_be(
                    wire::COMPARE_OPERATOR,
                    if *equal { wire::COMPARE_EQUAL } else { wire::COMPARE_NOT_EQUAL },
                )
                .nest(wire::COMPARE_DATA, |data| encode_value(data, value));
        }
        Expression::Load { to, value } => {
            data.u32_be(wire::IMMEDIATE_TO, to.number())
                .nest(wire::IMMEDIATE_DATA, |data| encode_value(data, value));
        }
        Expression::Lookup { set, key, to, inverted } => {
            data.text(wire::LOOKUP_SET, set).u32_be(wire::LOOKUP_KEY, key.number());
            if let Some(to) = to {
                data.u32_be(wire::LOOKUP_TO, to.number());
            }
            if *inverted {
                data.u32_be(wire::LOOKUP_FLAGS, wire::LOOKUP_INVERTED);
            }
        }
        Expression::DestinationNat { address, port } => {
            data.u32_be(wire::NAT_KIND, wire::NAT_DESTINATION)
                .u32_be(wire::NAT_FAMILY, Family::Ip.number().into())
                .u32_be(wire::NAT_ADDRESS, address.number())
                .u32_be(wire::NAT_PORT, port.number());
        }
        Expression::Reject { reset: true } => {
            data.u32_be(wire::REJECT_KIND, wire::REJECT_RESET);
        }
        Expression::Reject { reset: false } => {
            data.u32_be(wire::REJECT_KIND, wire::REJECT_ICMP)
                .u8(wire::REJECT_CODE, wire::ICMP_PROHIBITED);
        }
        Expression::Verdict(verdict) => {
            data.u32_be(wire::IMMEDIATE_TO, wire::REGISTER_VERDICT).nest(
                wire::IMMEDIATE_DATA,
                |inner| {
                    inner.nest(wire::DATA_VERDICT, |code| {
                        code.u32_be(wire::VERDICT_CODE, verdict_code(*verdict));
                    });
                },
            );
        }
        Expression::Masquerade | Expression::Foreign(_) => {}
    }
}

fn verdict_code(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop => wire::VERDICT_DROP,
        Verdict::Accept => wire::VERDICT_ACCEPT,
    }
}

impl Expression {
    /// The kernel's name of the step's type.
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Connection { .. } => "ct",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Load { .. } | Self::Verdict(_) => "immediate",
            Self::Lookup { .. } => "lookup",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject { .. } => "reject",
            Self::Foreign(kind) => kind,
        }
    }
}
