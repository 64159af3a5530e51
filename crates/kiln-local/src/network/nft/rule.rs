//! Rules, written down match by match.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Expression, Register, Verdict};

/// `NFT_META_*`.
pub(crate) const META_PROTOCOL: u32 = 1;
pub(crate) const META_IN: u32 = 6;
pub(crate) const META_OUT: u32 = 7;
pub(crate) const META_TRANSPORT: u32 = 16;
/// `NFT_CT_*`.
pub(crate) const CT_STATE: u32 = 0;
pub(crate) const CT_STATUS: u32 = 2;
/// `NFT_PAYLOAD_*_HEADER`.
pub(crate) const LINK_HEADER: u32 = 0;
pub(crate) const NETWORK_HEADER: u32 = 1;
pub(crate) const TRANSPORT_HEADER: u32 = 2;
/// Bits of a connection's state, as `nf_tables` has them.
const ESTABLISHED_OR_RELATED: u32 = 0x2 | 0x4;
/// `IPS_DST_NAT`.
const STATUS_REDIRECTED: u32 = 0x20;

/// Transport protocols.
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// What a frame carries.
pub(crate) const FRAME_IP: u16 = 0x0800;
pub(crate) const FRAME_ARP: u16 = 0x0806;
/// An ICMP message's type: echo request.
pub(crate) const ECHO_REQUEST: u8 = 8;

/// Where fields stand: header, offset and length.
pub(crate) type Place = (u32, u32, u32);
pub(crate) const FRAME_SOURCE: Place = (LINK_HEADER, 6, 6);
pub(crate) const ARP_SENDER_MAC: Place = (NETWORK_HEADER, 8, 6);
pub(crate) const ARP_SENDER: Place = (NETWORK_HEADER, 14, 4);
pub(crate) const IP_SOURCE: Place = (NETWORK_HEADER, 12, 4);
pub(crate) const IP_DESTINATION: Place = (NETWORK_HEADER, 16, 4);
const ICMP_KIND: Place = (TRANSPORT_HEADER, 0, 1);
const DESTINATION_PORT: Place = (TRANSPORT_HEADER, 2, 2);

/// Where single matches work.
const SCRATCH: Register = Register(0);

/// A rule: its steps in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule(pub(crate) Vec<Expression>);

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Comes in by this interface.
    pub(crate) fn comes_in_by(self, interface: &str) -> Self {
        self.meta(META_IN).compare(true, name(interface))
    }

    /// Leaves by this interface.
    pub(crate) fn leaves_by(self, interface: &str) -> Self {
        self.meta(META_OUT).compare(true, name(interface))
    }

    /// Comes in by, or leaves by (`key`), an interface of the set.
    pub(crate) fn interface_in(self, key: u32, set: &str) -> Self {
        self.meta(key).lookup(set, None)
    }

    pub(crate) fn transport(self, protocol: u8) -> Self {
        self.meta(META_TRANSPORT).compare(true, vec![protocol])
    }

    pub(crate) fn frame(self, kind: u16) -> Self {
        self.meta(META_PROTOCOL).compare(true, kind.to_be_bytes().to_vec())
    }

    pub(crate) fn from(self, address: Ipv4Addr) -> Self {
        self.payload(IP_SOURCE, SCRATCH).compare(true, address.octets().to_vec())
    }

    pub(crate) fn to(self, address: Ipv4Addr) -> Self {
        self.payload(IP_DESTINATION, SCRATCH).compare(true, address.octets().to_vec())
    }

    /// To an address of the range; any address matches a range of length 0.
    pub(crate) fn towards(self, range: Ipv4Net) -> Self {
        if range.prefix_len() == 0 {
            return self;
        }
        self.payload(IP_DESTINATION, SCRATCH)
            .mask(range.netmask().octets().to_vec())
            .compare(true, range.network().octets().to_vec())
    }

    /// To this port, after the transport has been matched.
    pub(crate) fn port(self, port: u16) -> Self {
        self.payload(DESTINATION_PORT, SCRATCH).compare(true, port.to_be_bytes().to_vec())
    }

    /// An ICMP message of this type, after the transport has been matched.
    pub(crate) fn icmp(self, kind: u8) -> Self {
        self.payload(ICMP_KIND, SCRATCH).compare(true, vec![kind])
    }

    /// Belongs to a connection that was let through before, or reports on one.
    pub(crate) fn established_or_related(self) -> Self {
        self.connection(CT_STATE, ESTABLISHED_OR_RELATED, false)
    }

    /// Neither belongs to a connection that was let through before nor reports on one.
    pub(crate) fn unrelated(self) -> Self {
        self.connection(CT_STATE, ESTABLISHED_OR_RELATED, true)
    }

    /// Has been sent elsewhere by [`Self::redirect`].
    pub(crate) fn redirected(self) -> Self {
        self.connection(CT_STATUS, STATUS_REDIRECTED, false)
    }

    /// Sends the connection to `address`, at the port that the register holds.
    pub(crate) fn redirect(self, address: Ipv4Addr, port: Register) -> Self {
        self.then(Expression::Load { to: SCRATCH, value: address.octets().to_vec() })
            .then(Expression::DestinationNat { address: SCRATCH, port })
    }

    /// Has what the registers from 0 on hold as a key of `set`; a map's value goes to `to`.
    pub(crate) fn lookup(self, set: &str, to: Option<Register>) -> Self {
        self.then(Expression::Lookup { set: set.to_owned(), key: SCRATCH, to, inverted: false })
    }

    pub(crate) fn payload(self, (base, offset, length): Place, to: Register) -> Self {
        self.then(Expression::Payload { base, offset, length, to })
    }

    /// Loads one of `META_*` into the first registers.
    pub(crate) fn meta(self, key: u32) -> Self {
        self.then(Expression::Meta { key, to: SCRATCH })
    }

    pub(crate) fn masquerade(self) -> Self {
        self.then(Expression::Masquerade)
    }

    pub(crate) fn accept(self) -> Self {
        self.then(Expression::Verdict(Verdict::Accept))
    }

    pub(crate) fn drop(self) -> Self {
        self.then(Expression::Verdict(Verdict::Drop))
    }

    /// Refuses so that a TCP client knows at once.
    pub(crate) fn reset(self) -> Self {
        self.then(Expression::Reject { reset: true })
    }

    /// Refuses with an ICMP message.
    pub(crate) fn prohibit(self) -> Self {
        self.then(Expression::Reject { reset: false })
    }

    /// Matches where the bits of the connection's property are, or are not, among `bits`.
    fn connection(self, key: u32, bits: u32, none: bool) -> Self {
        self.then(Expression::Connection { key, to: SCRATCH })
            .mask(bits.to_ne_bytes().to_vec())
            .compare(none, vec![0; 4])
    }

    /// The range that [`Self::towards`] has put here.
    pub(crate) fn destination_range(&self) -> Option<Ipv4Net> {
        self.0.windows(2).find_map(|pair| {
            let [Expression::Mask { mask, .. }, Expression::Compare { value, .. }] = pair else {
                return None;
            };
            let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
            Ipv4Net::with_netmask(address(value)?, address(mask)?).ok()
        })
    }

    fn mask(self, mask: Vec<u8>) -> Self {
        self.then(Expression::Mask { register: SCRATCH, mask })
    }

    fn compare(self, equal: bool, value: Vec<u8>) -> Self {
        self.then(Expression::Compare { register: SCRATCH, equal, value })
    }

    fn then(mut self, expression: Expression) -> Self {
        self.0.push(expression);
        self
    }
}

/// An interface's name as the kernel compares it: padded with zeros.
pub(crate) fn name(interface: &str) -> Vec<u8> {
    let mut bytes = interface.as_bytes().to_vec();
    bytes.resize(super::Field::Interface.bytes(), 0);
    bytes
}
