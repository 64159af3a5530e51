//! Backups of a database that clients write to all the time: what is restored is what was acknowledged at
//! the moment, to the row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::site::{Site, site_or_skip};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Clients that write at a time.
const CLIENTS: i32 = 4;

fn stack(more: &str) -> String {
    format!(
        r#"
network "back" {{ cidr = "10.62.0.0/24" }}
secret "ledger" {{ value = "open sesame" }}
database "ledger" {{
  engine   = "postgres"
  version  = "15"
  network  = network.back
  password = secret.ledger
  {more}
}}
endpoint "db" {{
  listen = "127.0.0.1:PORT"
  to     = database.ledger
}}
"#
    )
}

async fn connect(port: u16) -> Client {
    let parameters =
        format!("host=127.0.0.1 port={port} user=ledger dbname=ledger password='open sesame'");
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// A row that was acknowledged: its number, when it was sent, and when it was acknowledged.
type Entry = (i64, SystemTime, SystemTime);

/// What one client noted.
struct Book {
    client: i32,
    entries: Vec<Entry>,
}

/// Clients that write without a pause, and are never told of an error.
struct Writers {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Book>>,
}

impl Writers {
    fn begin(port: u16) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop: Arc<AtomicBool> = Arc::default();
        runtime.block_on(async {
            let table = "CREATE TABLE ledger (client int, n bigint, PRIMARY KEY (client, n))";
            connect(port).await.batch_execute(table).await.unwrap();
        });
        let clients = (0..CLIENTS).map(|client| runtime.spawn(write(port, client, stop.clone())));
        let clients = clients.collect();
        Self { runtime, stop, clients }
    }

    fn end(self) -> Vec<Book> {
        self.stop.store(true, Ordering::SeqCst);
        let clients = self.clients.into_iter();
        clients.map(|client| self.runtime.block_on(client).unwrap()).collect()
    }
}

async fn write(port: u16, client: i32, stop: Arc<AtomicBool>) -> Book {
    let connection = connect(port).await;
    let mut book = Book { client, entries: Vec::new() };
    let mut n = 0_i64;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let sent = SystemTime::now();
        let text = "INSERT INTO ledger VALUES ($1, $2)";
        let row: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&client, &n];
        let written = connection.execute(text, &row);
        tokio::time::timeout(PATIENCE, written).await.expect("an answer in time").unwrap();
        book.entries.push((n, sent, SystemTime::now()));
    }
    book
}

fn backups(site: &Site) -> Value {
    let text = site.must(&["database", "backups", "ledger", "--json"]);
    serde_json::from_str(&text).unwrap()
}

/// Waits until the newest backup is proved.
fn proved(site: &Site) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let backups = backups(site);
        if backups["backups"].as_array().unwrap().last().is_some_and(|it| it["state"] == "proved") {
            return backups;
        }
        assert!(Instant::now() < deadline, "{backups:#}");
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn instant(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    kiln_model::quantity::Timestamp(u64::try_from(since.as_millis()).unwrap()).to_string()
}

/// The rows of each client.
fn rows(port: u16) -> BTreeMap<i32, Vec<i64>> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut found: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    runtime.block_on(async {
        let client = connect(port).await;
        let query = "SELECT client, n FROM ledger ORDER BY client, n";
        for row in client.query(query, &[]).await.unwrap() {
            found.entry(row.get(0)).or_default().push(row.get(1));
        }
    });
    found
}

/// All that was acknowledged before the instant is there, and nothing that was sent after it.
fn check(found: &BTreeMap<i32, Vec<i64>>, books: &[Book], at: SystemTime) {
    for book in books {
        let there = found.get(&book.client).cloned().unwrap_or_default();
        for (n, sent, acknowledged) in &book.entries {
            let is = there.binary_search(n).is_ok();
            if *acknowledged < at {
                assert!(is, "client {} lost {n}, acknowledged before", book.client);
            }
            if *sent > at + Duration::from_millis(1) {
                assert!(!is, "client {} has {n}, sent after", book.client);
            }
        }
    }
}

#[test]
fn a_moment_is_restored_under_writes_and_what_was_there_is_gone_back_to() {
    let name = "a_moment_is_restored_under_writes_and_what_was_there_is_gone_back_to";
    let site = site_or_skip!(name);
    site.write(&stack(""));
    site.must(&["apply", "--yes"]);
    let refused = site.run(&["database", "backups", "ledger"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it is not backed up"));
    // Backing up is a change as any other: nobody loses a write by it.
    let writers = Writers::begin(site.port);
    site.write(&stack(r#"backup = { every = "1h", keep = "1d" }"#));
    site.must(&["apply", "--yes"]);
    proved(&site);
    std::thread::sleep(Duration::from_millis(500));
    let at = SystemTime::now();
    std::thread::sleep(Duration::from_millis(500));
    let books = writers.end();
    let all = rows(site.port);
    let early = site.run(&["database", "restore", "ledger", "--at", "soon", "--yes"]);
    assert!(!early.status.success());
    site.must(&["database", "restore", "ledger", "--at", &instant(at), "--yes"]);
    let found = rows(site.port);
    check(&found, &books, at);
    assert_ne!(found, all);
    let count = |rows: &BTreeMap<i32, Vec<i64>>| rows.values().map(Vec::len).sum::<usize>();
    println!("restored {} of {} rows", count(&found), count(&all));
    // The branch is backed up as well, and what was there before is kept.
    let line =
        |backups: &Value| backups["backups"].as_array().unwrap().last().unwrap()["line"].clone();
    let before = line(&backups(&site));
    let deadline = Instant::now() + PATIENCE;
    while line(&backups(&site)) == before || line(&proved(&site)) == before {
        assert!(Instant::now() < deadline, "{:#}", backups(&site));
        std::thread::sleep(Duration::from_millis(250));
    }
    site.must(&["rollback", "--with-data", "--yes"]);
    assert_eq!(rows(site.port), all);
    let told = site.must(&["database", "verify", "ledger"]);
    assert!(told.contains("Nothing is damaged"), "{told}");
    site.must(&["destroy", "--yes"]);
}
