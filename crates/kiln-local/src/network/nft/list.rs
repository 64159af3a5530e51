//! The tables that a namespace has, read back from the kernel.

use std::collections::BTreeMap;

use super::encode::header;
use super::{Chain, Family, Field, Rule, Set, SetName, Table, decode, wire};
use crate::network::netlink::{Refused, Socket, attributes, find, text, u32_be};

/// How often a set that is another each time is read.
const MOST_READS: u32 = 1000;
/// Bytes of `struct nfgenmsg`.
const HEADER_BYTES: usize = 4;
/// `NFPROTO_UNSPEC`: all families.
const ALL: Family = Family::Other(0);

/// All tables of the socket's namespace, with all that is in them.
pub(crate) fn list(socket: &mut Socket) -> Result<Vec<Table>, Refused> {
    let mut tables = names(socket)?
        .into_iter()
        .map(|(family, name)| Table { family, name, sets: Vec::new(), chains: Vec::new() })
        .collect::<Vec<_>>();
    for (owner, chain) in chains(socket)? {
        if let Some(table) = owner.of(&mut tables) {
            table.chains.push(chain);
        }
    }
    for (owner, name, rule) in rules(socket)? {
        let table = owner.of(&mut tables);
        let chain = table.and_then(|table| table.chains.iter_mut().find(|it| it.name == name));
        if let Some(chain) = chain {
            chain.rules.push(rule);
        }
    }
    for (owner, mut set) in sets(socket)? {
        set.elements = elements(socket, (owner.family, &owner.table, &set.name))?;
        if let Some(table) = owner.of(&mut tables) {
            table.sets.push(set);
        }
    }
    Ok(tables)
}

/// The tables' families and names.
pub(crate) fn names(socket: &mut Socket) -> Result<Vec<(Family, String)>, Refused> {
    dump(socket, "list the tables of rules", wire::GET_TABLE, |family, body| {
        Some((family, text(find(body, wire::TABLE_NAME)?)))
    })
}

/// The table that an object is in.
struct Owner {
    family: Family,
    table: String,
}

impl Owner {
    fn of<'a>(&self, tables: &'a mut [Table]) -> Option<&'a mut Table> {
        tables.iter_mut().find(|it| it.family == self.family && it.name == self.table)
    }
}

fn chains(socket: &mut Socket) -> Result<Vec<(Owner, Chain)>, Refused> {
    dump(socket, "list the chains of rules", wire::GET_CHAIN, |family, body| {
        let owner = Owner { family, table: text(find(body, wire::CHAIN_TABLE)?) };
        let name = text(find(body, wire::CHAIN_NAME)?);
        Some((owner, Chain { name, hook: decode::hook(body), rules: Vec::new() }))
    })
}

fn rules(socket: &mut Socket) -> Result<Vec<(Owner, String, Rule)>, Refused> {
    dump(socket, "list the rules", wire::GET_RULE, |family, body| {
        let owner = Owner { family, table: text(find(body, wire::RULE_TABLE)?) };
        let rule = decode::rule(find(body, wire::RULE_EXPRESSIONS).unwrap_or_default());
        Some((owner, text(find(body, wire::RULE_CHAIN)?), rule))
    })
}

fn sets(socket: &mut Socket) -> Result<Vec<(Owner, Set)>, Refused> {
    dump(socket, "list the sets", wire::GET_SET, |family, body| {
        let owner = Owner { family, table: text(find(body, wire::SET_TABLE)?) };
        let number = |kind| find(body, kind).and_then(u32_be);
        let set = Set {
            name: text(find(body, wire::SET_NAME)?),
            key: number(wire::SET_KEY_TYPE).map(decode::key).unwrap_or_default(),
            value: number(wire::SET_VALUE_TYPE).and_then(Field::from_number),
            elements: BTreeMap::new(),
        };
        Some((owner, set))
    })
}

/// The elements of a set. They are in a hash table that the kernel grows on the side; a list that is
/// read meanwhile lacks some and says nothing of it (`nft_rhash_walk`), so that only what was read
/// twice in a row is believed.
pub(crate) fn elements(
    socket: &mut Socket,
    name: SetName<'_>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Refused> {
    let mut before = elements_once(socket, name)?;
    for _ in 0..MOST_READS {
        let again = elements_once(socket, name)?;
        if again == before {
            return Ok(again);
        }
        before = again;
    }
    Err(Refused::new("list the elements of a set", rustix::io::Errno::AGAIN))
}

fn elements_once(
    socket: &mut Socket,
    (family, table, set): SetName<'_>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Refused> {
    let lists = socket.dump(
        "list the elements of a set",
        wire::GET_ELEMENT,
        &header(family),
        |request| {
            request.text(wire::ELEMENTS_TABLE, table).text(wire::ELEMENTS_SET, set);
        },
        |_, payload| {
            let list = find(payload.get(HEADER_BYTES..)?, wire::ELEMENTS_LIST)?;
            Some(attributes(list).filter_map(|(_, it)| element(it)).collect::<Vec<_>>())
        },
    )?;
    Ok(lists.into_iter().flatten().collect())
}

fn element(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let data = |kind| find(body, kind).and_then(|nested| find(nested, wire::DATA_VALUE));
    Some((
        data(wire::ELEMENT_KEY)?.to_vec(),
        data(wire::ELEMENT_VALUE).unwrap_or_default().to_vec(),
    ))
}

fn dump<T>(
    socket: &mut Socket,
    what: &'static str,
    kind: u16,
    parse: impl Fn(Family, &[u8]) -> Option<T>,
) -> Result<Vec<T>, Refused> {
    socket.dump(
        what,
        kind,
        &header(ALL),
        |_| (),
        |_, payload| parse(Family::from_number(*payload.first()?), payload.get(HEADER_BYTES..)?),
    )
}
