//! Functions on address ranges, of IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive};

use super::{Args, Failure, Function, Param, Shape};
use crate::value::{Type, Value};

const PREFIX: Param = Param::new("prefix", Shape::String);
const NEWBITS: Param = Param::new("newbits", Shape::Number);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new(
        "cidrhost",
        &[PREFIX, Param::new("hostnum", Shape::Number)],
        Shape::String,
        cidrhost,
    ),
    Function::new("cidrnetmask", &[PREFIX], Shape::String, |args| {
        let range = Range::parse(args.text(0)?)?;
        if range.width != 32 {
            return Err(Failure::of(0, "an IPv6 range has no netmask"));
        }
        Ok(range.with_base(range.network_mask()).address().to_string().into())
    }),
    Function::new(
        "cidrsubnet",
        &[PREFIX, NEWBITS, Param::new("netnum", Shape::Number)],
        Shape::String,
        cidrsubnet,
    ),
    Function::new("cidrsubnets", &[PREFIX], Shape::Strings, cidrsubnets).variadic(NEWBITS),
];

/// `base/length` of addresses that are `width` bits wide; `base` has no host bits.
#[derive(Clone, Copy)]
struct Range {
    base: u128,
    length: u32,
    width: u32,
}

impl Range {
    fn parse(text: &str) -> Result<Self, Failure> {
        let malformed = || {
            Failure::of(0, format!("\"{text}\" is not an address range"))
                .with_help("write an address and a prefix length, such as 10.0.0.0/24")
        };
        let (address, length) = text.split_once('/').ok_or_else(malformed)?;
        let (base, width) = match address.parse().map_err(|_| malformed())? {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let digits = length.len() <= 3 && length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|length| digits && *length <= width);
        let range = Self { base, length: length.ok_or_else(malformed)?, width };
        Ok(range.with_base(base & range.network_mask()))
    }

    fn with_base(self, base: u128) -> Self {
        Self { base, ..self }
    }

    /// Bits that are not part of the prefix.
    fn host_bits(self) -> u32 {
        self.width - self.length
    }

    fn host_mask(self) -> u128 {
        u128::MAX.checked_shr(128 - self.host_bits()).unwrap_or(0)
    }

    fn network_mask(self) -> u128 {
        u128::MAX.checked_shr(128 - self.width).unwrap_or(0) & !self.host_mask()
    }

    fn address(self) -> IpAddr {
        match u32::try_from(self.base) {
            Ok(bits) if self.width == 32 => Ipv4Addr::from_bits(bits).into(),
            _ => Ipv6Addr::from_bits(self.base).into(),
        }
    }

    fn text(self) -> String {
        format!("{}/{}", self.address(), self.length)
    }

    /// The range whose prefix is longer by `bits`, and whose further bits are all zero.
    fn extended(self, bits: i64, index: usize) -> Result<Self, Failure> {
        let longer = u32::try_from(bits)
            .ok()
            .and_then(|bits| self.length.checked_add(bits))
            .filter(|length| *length <= self.width);
        let length = longer.ok_or_else(|| {
            let room = self.host_bits();
            let message = format!("a prefix of {} has room for {room} more bits", self.length);
            Failure::of(index, format!("{message}, not {bits}"))
        })?;
        Ok(Self { length, ..self })
    }
}

/// The whole number of an argument that fits `bits` bits, as an offset; negative ones count from
/// the end.
fn offset(args: &Args<'_>, index: usize, bits: u32) -> Result<u128, Failure> {
    let number = args.number(index)?;
    let whole = number
        .to_integer()
        .ok_or_else(|| Failure::of(index, format!("a whole number is required, not {number}")))?;
    let size = BigInt::from(1) << bits;
    let fits = if whole.is_negative() { -&whole <= size } else { whole < size };
    let from_start = if whole.is_negative() { size + whole } else { whole };
    let offset = from_start.to_u128().filter(|_| fits);
    offset.ok_or_else(|| Failure::of(index, format!("{bits} bits have no room for {number}")))
}

fn cidrhost(args: &Args<'_>) -> Result<Value, Failure> {
    let range = Range::parse(args.text(0)?)?;
    let host = offset(args, 1, range.host_bits())?;
    Ok(range.with_base(range.base | host).address().to_string().into())
}

fn cidrsubnet(args: &Args<'_>) -> Result<Value, Failure> {
    let range = Range::parse(args.text(0)?)?;
    let subnet = range.extended(args.whole(1)?, 1)?;
    let number = offset(args, 2, subnet.length - range.length)?;
    let base = range.base | number.checked_shl(subnet.host_bits()).unwrap_or(0);
    Ok(subnet.with_base(base).text().into())
}

/// Ranges one behind the other, each at the next boundary of its size.
fn cidrsubnets(args: &Args<'_>) -> Result<Value, Failure> {
    let range = Range::parse(args.text(0)?)?;
    let end = range.base | range.host_mask();
    let mut next = Some(range.base);
    let mut subnets = Vec::new();
    for index in 1..args.len() {
        let subnet = range.extended(args.whole(index)?, index)?;
        let mask = subnet.host_mask();
        let base = next
            .and_then(|next| Some(next.checked_add(mask)? & !mask))
            .filter(|base| *base <= end && base | mask <= end)
            .ok_or_else(|| {
                let length = subnet.length;
                Failure::of(index, format!("there is no room left for a prefix of {length}"))
            })?;
        subnets.push(Value::from(subnet.with_base(base).text()));
        next = (base | mask).checked_add(1);
    }
    Ok(Value::list(Type::String, subnets))
}
