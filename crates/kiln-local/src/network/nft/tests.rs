//! Tables on the running kernel, each test in a namespace of its own.

use std::collections::BTreeMap;

use kiln_netns::Namespace;

use super::{Expression, Family, Rule, Table, Transaction, list};
use crate::network::netlink::{Protocol, Socket};
use crate::network::rules;

/// A socket in a fresh namespace, or `None` (and a line) where that is not permitted.
fn fresh(test: &str) -> Option<Socket> {
    match Namespace::create() {
        Ok(namespace) => Some(Socket::open_in(&namespace, Protocol::Netfilter).unwrap()),
        Err(error) => {
            println!("skipped: {test}: {error}");
            None
        }
    }
}

/// Every table that Kiln makes, with something in each set.
fn all_tables() -> Vec<Table> {
    let egress = ["0.0.0.0/0", "169.254.169.254/32", "203.0.113.0/24"];
    let egress = egress.map(|range| range.parse().unwrap());
    let mut tables = rules::network_tables("10.60.0.0/24".parse().unwrap(), &egress);
    let (client, service) = ("10.60.0.200".parse().unwrap(), "10.60.0.10".parse().unwrap());
    tables[0].sets[0].elements =
        BTreeMap::from([(rules::service_key(client, service), 4000_u16.to_be_bytes().to_vec())]);
    let source = rules::source_key([2, 0x6b, 10, 60, 0, 200], client);
    tables[1].sets[0].elements = BTreeMap::from([(source, Vec::new())]);
    tables.push(rules::host_table("kiln-root-front-1", "kilnlink", client));
    tables.push(rules::forwarding_table(["lo", "eth0"].into_iter()));
    tables
}

fn install(socket: &mut Socket, tables: &[Table]) {
    let transaction = tables.iter().fold(Transaction::new(), Transaction::add_table);
    transaction.commit(socket).unwrap();
}

fn sorted(mut tables: Vec<Table>) -> Vec<Table> {
    tables.sort_by(|one, other| (one.family, &one.name).cmp(&(other.family, &other.name)));
    tables
}

#[test]
fn what_is_installed_is_read_back() {
    let Some(mut socket) = fresh("what_is_installed_is_read_back") else { return };
    install(&mut socket, &all_tables());
    assert_eq!(sorted(list(&mut socket).unwrap()), sorted(all_tables()));
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let Some(mut socket) = fresh("a_refused_transaction_changes_nothing") else { return };
    install(&mut socket, &all_tables());
    let set = (Family::Ip, "kiln", rules::SERVICES);
    let refused = Transaction::new()
        .delete_table(Family::Bridge, "kiln")
        .delete_elements(set, &[(&[0; 8], &[])])
        .commit(&mut socket)
        .unwrap_err();
    assert!(refused.is_absent(), "{refused:?}");
    assert_eq!(refused.what, "delete elements of a set");
    assert_eq!(sorted(list(&mut socket).unwrap()), sorted(all_tables()));
}

#[test]
fn what_kiln_never_writes_is_foreign() {
    let Some(mut socket) = fresh("what_kiln_never_writes_is_foreign") else { return };
    let mut tables = all_tables();
    let counter = Rule(vec![Expression::Foreign("counter".to_owned())]);
    tables[0].chains[1].rules.insert(3, counter.clone());
    install(&mut socket, &tables);
    let read = list(&mut socket).unwrap();
    let table = read.iter().find(|table| table.name == "kiln" && table.family == Family::Ip);
    assert_eq!(table.unwrap().chains[1].rules[3], counter);
    assert_eq!(sorted(read), sorted(tables));
}
