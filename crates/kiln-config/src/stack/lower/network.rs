//! `network` blocks.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kiln_model::spec::network::{Network, NetworkIdentity};

use super::Reader;
use crate::stack::decode::Field;
use crate::value::Data;

pub(super) fn network(reader: &Reader<'_>) -> Option<Network> {
    let cidr = reader.required("cidr", cidr);
    let egress = reader.read_or("egress", Vec::new(), egress);
    Some(Network { identity: NetworkIdentity { cidr: cidr?, egress: egress? } })
}

/// The range of a network: /16 to /28, the host part zero.
pub(in crate::stack) fn cidr(field: &Field<'_>) -> Option<Ipv4Net> {
    const EXPECTED: &str = "a range of IPv4 addresses, such as \"10.60.0.0/24\"";
    let text = field.string()?;
    let Ok(net) = text.parse::<Ipv4Net>() else { return field.refuse(EXPECTED) };
    if !(16..=28).contains(&net.prefix_len()) {
        return field.refuse("a range from /16 to /28");
    }
    if net.trunc() != net {
        let help = format!("did you mean {:?}?", net.trunc().to_string());
        field.report(field.refusal("the first address of its range").with_help(help));
        return None;
    }
    Some(net)
}

/// `true` for everywhere, or a list of ranges and addresses.
fn egress(field: &Field<'_>) -> Option<Vec<Ipv4Net>> {
    if let Data::Bool(anywhere) = field.value().data() {
        return Some(if *anywhere { vec![Ipv4Net::default()] } else { Vec::new() });
    }
    if field.value().as_elements().is_none() {
        return field
            .refuse("a list of ranges, such as [\"192.0.2.0/24\"], or true for everywhere");
    }
    let ranges: Vec<Option<Ipv4Net>> = field.elements()?.iter().map(destination).collect();
    let ranges: Option<BTreeSet<Ipv4Net>> = ranges.into_iter().collect();
    ranges.map(|ranges| ranges.into_iter().collect())
}

fn destination(field: &Field<'_>) -> Option<Ipv4Net> {
    let text = field.string()?;
    let single = text.parse::<Ipv4Addr>().map(Ipv4Net::from);
    match single.or_else(|_| text.parse::<Ipv4Net>()) {
        Ok(net) if net.trunc() == net => Some(net),
        Ok(net) => {
            let help = format!("did you mean {:?}?", net.trunc().to_string());
            field.report(field.refusal("the first address of its range").with_help(help));
            None
        }
        Err(_) => field.refuse("an IPv4 address or range, such as \"192.0.2.0/24\""),
    }
}
