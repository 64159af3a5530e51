//! The numbers of `nf_tables`, from `linux/netfilter/nf_tables.h`, under their names there.

/// `NFNL_SUBSYS_NFTABLES`, the high byte of every message type.
pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const BATCH_BEGIN: u16 = 0x10;
pub(super) const BATCH_END: u16 = 0x11;

/// The type of a message, of `NFT_MSG_*`.
pub(super) const fn message(number: u16) -> u16 {
    SUBSYSTEM << 8 | number
}

pub(super) const NEW_TABLE: u16 = message(0);
pub(super) const GET_TABLE: u16 = message(1);
pub(super) const DELETE_TABLE: u16 = message(2);
pub(super) const NEW_CHAIN: u16 = message(3);
pub(super) const GET_CHAIN: u16 = message(4);
pub(super) const NEW_RULE: u16 = message(6);
pub(super) const GET_RULE: u16 = message(7);
pub(super) const NEW_SET: u16 = message(9);
pub(super) const GET_SET: u16 = message(10);
pub(super) const NEW_ELEMENT: u16 = message(12);
pub(super) const GET_ELEMENT: u16 = message(13);
pub(super) const DELETE_ELEMENT: u16 = message(14);

pub(super) const TABLE_NAME: u16 = 1;

pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;

pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const LIST_ELEMENT: u16 = 1;
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;

pub(super) const SET_TABLE: u16 = 1;
pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_FLAGS: u16 = 3;
pub(super) const SET_KEY_TYPE: u16 = 4;
pub(super) const SET_KEY_LENGTH: u16 = 5;
pub(super) const SET_VALUE_TYPE: u16 = 6;
pub(super) const SET_VALUE_LENGTH: u16 = 7;
pub(super) const SET_ID: u16 = 10;
/// `NFT_SET_MAP`.
pub(super) const SET_IS_MAP: u32 = 8;
/// How many bits a type takes in the type of a concatenated key.
pub(super) const TYPE_BITS: u32 = 6;

pub(super) const ELEMENTS_TABLE: u16 = 1;
pub(super) const ELEMENTS_SET: u16 = 2;
pub(super) const ELEMENTS_LIST: u16 = 3;
pub(super) const ELEMENT_KEY: u16 = 1;
pub(super) const ELEMENT_VALUE: u16 = 2;

pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_DROP: u32 = 0;
pub(super) const VERDICT_ACCEPT: u32 = 1;
/// `NFT_REG_VERDICT`.
pub(super) const REGISTER_VERDICT: u32 = 0;

pub(super) const META_TO: u16 = 1;
pub(super) const META_KEY: u16 = 2;
pub(super) const PAYLOAD_TO: u16 = 1;
pub(super) const PAYLOAD_BASE: u16 = 2;
pub(super) const PAYLOAD_OFFSET: u16 = 3;
pub(super) const PAYLOAD_LENGTH: u16 = 4;
pub(super) const CT_TO: u16 = 1;
pub(super) const CT_KEY: u16 = 2;
pub(super) const BITWISE_FROM: u16 = 1;
pub(super) const BITWISE_TO: u16 = 2;
pub(super) const BITWISE_LENGTH: u16 = 3;
pub(super) const BITWISE_MASK: u16 = 4;
pub(super) const BITWISE_XOR: u16 = 5;
pub(super) const COMPARE_REGISTER: u16 = 1;
pub(super) const COMPARE_OPERATOR: u16 = 2;
pub(super) const COMPARE_DATA: u16 = 3;
pub(super) const COMPARE_EQUAL: u32 = 0;
pub(super) const COMPARE_NOT_EQUAL: u32 = 1;
pub(super) const IMMEDIATE_TO: u16 = 1;
pub(super) const IMMEDIATE_DATA: u16 = 2;
pub(super) const LOOKUP_SET: u16 = 1;
pub(super) const LOOKUP_KEY: u16 = 2;
pub(super) const LOOKUP_TO: u16 = 3;
pub(super) const LOOKUP_FLAGS: u16 = 5;
/// `NFT_LOOKUP_F_INV`.
pub(super) const LOOKUP_INVERTED: u32 = 1;
pub(super) const NAT_KIND: u16 = 1;
pub(super) const NAT_FAMILY: u16 = 2;
pub(super) const NAT_ADDRESS: u16 = 3;
pub(super) const NAT_PORT: u16 = 5;
/// `NFT_NAT_DNAT`.
pub(super) const NAT_DESTINATION: u32 = 1;
pub(super) const REJECT_KIND: u16 = 1;
pub(super) const REJECT_CODE: u16 = 2;
/// `NFT_REJECT_ICMP_UNREACH` and `NFT_REJECT_TCP_RST`.
pub(super) const REJECT_ICMP: u32 = 0;
pub(super) const REJECT_RESET: u32 = 1;
/// `ICMP_PKT_FILTERED`: administratively prohibited.
pub(super) const ICMP_PROHIBITED: u8 = 13;
