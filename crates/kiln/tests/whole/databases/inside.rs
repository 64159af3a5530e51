//! A client inside the network: a server that connects to the database by its stable address.

use std::collections::BTreeSet;

use super::{primary, rounds, sql, stack};
use crate::site::{Site, eventually, site_or_skip};

/// psql is given numbered rows one by one and prints each that was acknowledged. Were its session to
/// end, so would it, and the server with it.
const CLIENT: &str = r#"
image "client" {
  base       = debian("bookworm")
  packages   = ["dash", "coreutils", "postgresql-client-15"]
  entrypoint = ["/bin/sh", "-c", <<-SH
    n=0
    while n=$((n + 1)); do
      echo "INSERT INTO inside (n) VALUES ($n) RETURNING 'row ' || n;"
      sleep 0.02
    done | exec /usr/lib/postgresql/15/bin/psql --no-psqlrc --quiet --tuples-only --no-align \
      --set ON_ERROR_STOP=1 "$URL"
    SH
  ]
}

server "client" {
  image    = image.client
  network  = network.back
  memory   = "32MiB"
  env      = { URL = database.ledger.url }
  connects = [database.ledger]
}
"#;

#[test]
fn a_client_inside_the_network_sees_a_pause() {
    let site = site_or_skip!("a_client_inside_the_network_sees_a_pause");
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    sql(&site, "CREATE TABLE inside (id bigserial, n bigint PRIMARY KEY)");
    let whole = |work_mem| format!("{}{CLIENT}", stack(work_mem, 0));
    site.write(&whole(4));
    site.must(&["apply", "--yes"]);
    let before = site.instances("client", "id");
    eventually("rows from inside", || acknowledged(&site).len() > 20);
    for round in 0..rounds(2, 20) {
        let (old, _) = primary(&site);
        site.write(&whole(5 + round));
        site.must(&["apply", "--yes"]);
        assert_ne!(primary(&site).0, old);
        let then = acknowledged(&site).len();
        eventually("more rows from inside", || acknowledged(&site).len() > then + 20);
    }
    let told = acknowledged(&site);
    assert_eq!(site.instances("client", "id"), before, "it never had to begin again");
    let there: BTreeSet<String> = sql(&site, "SELECT n FROM inside").into_iter().collect();
    let lost: Vec<_> = told.iter().filter(|n| !there.contains(*n)).collect();
    assert!(lost.is_empty(), "acknowledged inside and lost: {lost:?}");
    println!("inside the network: {} rows acknowledged, none lost, no error", told.len());
    site.must(&["destroy", "--yes"]);
}

/// The rows that the client was acknowledged.
fn acknowledged(site: &Site) -> Vec<String> {
    let said = site.must(&["logs", "client", "--tail", "100000"]);
    let rows = said.lines().filter_map(|line| line.rsplit_once("row "));
    rows.map(|(_, n)| n.trim().to_owned()).collect()
}
