//! Databases: clients write numbered rows through the endpoint and note what was acknowledged, while
//! instances are replaced and lost. Every row that was acknowledged is there, once, in its order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::site::{Site, site_or_skip};

/// Clients that write at a time.
const CLIENTS: i32 = 4;
/// How long a client may be without an answer before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn stack(work_mem: u32, replicas: u32) -> String {
    format!(
        r#"
network "back" {{ cidr = "10.61.0.0/24" }}
secret "ledger" {{ value = "open sesame" }}
database "ledger" {{
  engine   = "postgres"
  version  = "15"
  network  = network.back
  password = secret.ledger
  settings = {{ work_mem = "{work_mem}MB" }}
  replicas = {replicas}
}}
endpoint "db" {{
  listen = "127.0.0.1:PORT"
  to     = database.ledger
}}
"#
    )
}

pub(crate) async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let parameters =
        format!("host=127.0.0.1 port={port} user=ledger dbname=ledger password='open sesame'");
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Clients that write until they are told to stop.
pub(crate) struct Ledger {
    runtime: tokio::runtime::Runtime,
    stop: Arc<AtomicBool>,
    errors: Arc<AtomicU64>,
    said: Arc<Mutex<Vec<String>>>,
    clients: Vec<tokio::task::JoinHandle<Book>>,
}

/// What one client noted.
pub(crate) struct Book {
    client: i32,
    acknowledged: Vec<i64>,
    /// From one acknowledgement to the next, in milliseconds.
    gaps: Vec<u64>,
}

impl Ledger {
    pub(crate) fn open(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let client = connect(port).await.unwrap();
            let table = "CREATE TABLE IF NOT EXISTS ledger (id bigserial, client int, n bigint, \
                         sum text, PRIMARY KEY (client, n))";
            client.batch_execute(table).await.unwrap();
        });
        let mut ledger = Self {
            runtime,
            stop: Arc::default(),
            errors: Arc::default(),
            said: Arc::default(),
            clients: Vec::new(),
        };
        for client in 0..CLIENTS {
            let (stop, errors, said) =
                (ledger.stop.clone(), ledger.errors.clone(), ledger.said.clone());
            let writes = write(port, client, stop, errors, said);
            ledger.clients.push(ledger.runtime.spawn(writes));
        }
        ledger
    }

    /// Stops all clients; what they noted, and how often one was told of an error.
    pub(crate) fn close(self, port: u16) -> (Vec<Book>, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let errors = self.errors.load(Ordering::SeqCst);
        let (runtime, clients) = (self.runtime, self.clients);
        let books = runtime.block_on(async move {
            let mut books = Vec::new();
            for client in clients {
                books.push(client.await.unwrap());
            }
            audit(&connect(port).await.unwrap(), &books).await;
            books
        });
        for said in self.said.lock().unwrap().iter() {
            println!("told: {said}");
        }
        (books, errors)
    }
}

async fn write(
    port: u16,
    client: i32,
    stop: Arc<AtomicBool>,
    errors: Arc<AtomicU64>,
    said: Arc<Mutex<Vec<String>>>,
) -> Book {
    let mut book = Book { client, acknowledged: Vec::new(), gaps: Vec::new() };
    let mut n = 0_i64;
    let mut session: Option<(Client, tokio_postgres::Statement)> = None;
    let mut last = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        assert!(last.elapsed() < PATIENCE, "client {client} is told nothing for {PATIENCE:?}");
        let result = match &session {
            Some((connection, statement)) => {
                n += 1;
                let sum = format!("{:x}", n.wrapping_mul(0x9E37_79B9));
                connection.execute(statement, &[&client, &n, &sum]).await.map(|_| true)
            }
            None => match connect(port).await {
                Ok(connection) => {
                    let text = "INSERT INTO ledger (client, n, sum) VALUES ($1, $2, $3)";
                    match connection.prepare(text).await {
                        Ok(statement) => {
                            session = Some((connection, statement));
                            Ok(false)
                        }
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(false) => {}
            Ok(true) => {
                book.acknowledged.push(n);
                book.gaps.push(u64::try_from(last.elapsed().as_millis()).unwrap());
                last = Instant::now();
            }
            Err(error) => {
                // Whether it was written is not known: it is not written again.
                errors.fetch_add(1, Ordering::SeqCst);
                said.lock().unwrap().push(format!("client {client}, {n}: {error:?}"));
                session = None;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    book
}

/// Every acknowledged row is there, once (it is the key), whole, and in order.
async fn audit(client: &Client, books: &[Book]) {
    let rows = client.query("SELECT client, n, sum FROM ledger ORDER BY id", &[]).await.unwrap();
    let mut found: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for row in &rows {
        let (client, n, sum): (i32, i64, String) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(sum, format!("{:x}", n.wrapping_mul(0x9E37_79B9)));
        found.entry(client).or_default().push(n);
    }
    for book in books {
        let there = found.remove(&book.client).unwrap_or_default();
        assert!(there.is_sorted(), "client {} finds its rows out of order", book.client);
        let lost: Vec<i64> =
            book.acknowledged.iter().filter(|n| there.binary_search(n).is_err()).copied().collect();
        assert_eq!(lost, Vec::<i64>::new(), "client {} lost what was acknowledged", book.client);
        assert!(!book.acknowledged.is_empty(), "client {} wrote nothing", book.client);
    }
}

/// Prints how long clients waited.
pub(crate) fn histogram(what: &str, books: &[Book]) -> u64 {
    let mut gaps: Vec<u64> = books.iter().flat_map(|book| book.gaps.clone()).collect();
    gaps.sort_unstable();
    let written = gaps.len();
    let longest: Vec<u64> = gaps.iter().rev().take(12).copied().collect();
    println!("{what}: {written} rows acknowledged, the longest waits {longest:?} ms");
    gaps.last().copied().unwrap_or_default()
}

pub(crate) fn primary(site: &Site) -> (String, i32) {
    let component = site.component("database", "ledger");
    let first = &component["instances"][0];
    assert_eq!(first["role"], "primary", "{component}");
    let pid = i32::try_from(first["pid"].as_i64().unwrap()).unwrap();
    (first["id"].as_str().unwrap().to_owned(), pid)
}

/// Waits until the database has all its instances and another primary than `before`.
pub(crate) fn recovered(site: &Site, before: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let component = site.component("database", "ledger");
        let first = &component["instances"][0];
        let whole = component["replicas"]["ready"] == component["replicas"]["wanted"];
        if whole && first["role"] == "primary" && first["id"] != before && first["state"] == "ready"
        {
            return;
        }
        assert!(Instant::now() < deadline, "{}\n{component:#}", site.must(&["status"]));
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

pub(crate) fn rounds(usual: u32, full: u32) -> u32 {
    if std::env::var_os("KILN_FULL").is_some_and(|full| !full.is_empty()) { full } else { usual }
}

#[test]
fn changes_and_rollbacks_are_a_pause_and_no_error() {
    let site = site_or_skip!("changes_and_rollbacks_are_a_pause_and_no_error");
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    let ledger = Ledger::open(site.port);
    for round in 0..rounds(3, 100) {
        let (before, _) = primary(&site);
        if round % 3 == 2 {
            site.must(&["rollback", "--yes"]);
        } else {
            site.write(&stack(5 + round, 0));
            site.must(&["apply", "--yes"]);
        }
        assert_ne!(primary(&site).0, before, "another instance takes the writes");
    }
    let (books, errors) = ledger.close(site.port);
    histogram("changes and rollbacks", &books);
    assert_eq!(errors, 0);
    site.must(&["destroy", "--yes"]);
}

/// What stands in the book of one who writes nothing meanwhile.
fn texts(site: &Site, runtime: &tokio::runtime::Runtime) -> Vec<String> {
    runtime.block_on(within(async {
        let client = connect(site.port).await.unwrap();
        let rows = client.query("SELECT said FROM notes ORDER BY said", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }))
}

/// What comes of it, unless it takes too long.
async fn within<T>(it: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, it).await.expect("an answer in time")
}

#[test]
fn data_goes_back_with_a_generation_and_forward_again_and_nothing_is_lost() {
    let site = site_or_skip!("data_goes_back_with_a_generation_and_forward_again");
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let note = |said: &str| {
        runtime.block_on(within(async {
            let client = connect(site.port).await.unwrap();
            client.execute("INSERT INTO notes VALUES ($1)", &[&said]).await.unwrap();
        }));
    };
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    // It is there all the time, and is told of no error.
    let asks = runtime.block_on(within(async {
        let client = connect(site.port).await.unwrap();
        client.batch_execute("CREATE TABLE notes (said text)").await.unwrap();
        client
    }));
    let over = Arc::new(AtomicBool::new(false));
    let asking = runtime.spawn({
        let over = over.clone();
        async move {
            let mut answers = 0_u32;
            while !over.load(Ordering::SeqCst) {
                within(asks.query("SELECT count(*) FROM notes", &[])).await.unwrap();
                answers += 1;
            }
            answers
        }
    });
    note("in the first");
    site.write(&stack(5, 1));
    site.must(&["apply", "--yes"]);
    note("in the second");
    let all = ["in the first", "in the second"];
    assert_eq!(texts(&site, &runtime), all);

    site.must(&["rollback", "1", "--with-data", "--yes"]);
    assert_eq!(texts(&site, &runtime), all[..1]);
    note("in the third");
    site.must(&["rollback", "2", "--with-data", "--yes"]);
    assert_eq!(texts(&site, &runtime), all);
    assert_eq!(site.component("database", "ledger")["replicas"]["ready"], 2);
    site.must(&["rollback", "3", "--with-data", "--yes"]);
    assert_eq!(texts(&site, &runtime), ["in the first", "in the third"]);
    // Without it the data stays, and what is not kept is named.
    site.must(&["rollback", "2", "--yes"]);
    assert_eq!(texts(&site, &runtime), ["in the first", "in the third"]);
    let refused = site.run(&["rollback", "4", "--with-data", "--yes"]);
    assert_eq!(refused.status.code(), Some(0), "the end of the first branch is kept");
    assert_eq!(texts(&site, &runtime), all);
    let refused = site.run(&["rollback", "1", "--with-data", "--yes"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("at the end of generation 1 is not kept"), "{told}");

    // The data outlives the stack, and goes only where that is said.
    over.store(true, Ordering::SeqCst);
    println!("{} questions answered", runtime.block_on(asking).unwrap());
    site.must(&["destroy", "--yes"]);
    site.must(&["apply", "--yes"]);
    assert_eq!(texts(&site, &runtime), all);
    site.must(&["destroy", "--with-data", "--yes"]);
    let volumes = site.root().join("volumes");
    let left = std::fs::read_dir(volumes).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 0, "no data is left");
    site.must(&["apply", "--yes"]);
    let gone = runtime.block_on(within(async {
        connect(site.port).await.unwrap().query("SELECT * FROM notes", &[]).await.is_err()
    }));
    assert!(gone, "it begins anew");
    site.must(&["destroy", "--yes"]);
}

#[test]
fn a_lost_primary_is_recovered_from_its_volume() {
    let site = site_or_skip!("a_lost_primary_is_recovered_from_its_volume");
    lose(&site, 0, rounds(2, 25));
}

#[test]
fn a_standby_takes_over_from_a_lost_primary() {
    let site = site_or_skip!("a_standby_takes_over_from_a_lost_primary");
    lose(&site, 1, rounds(2, 25));
}

/// Kills the primary again and again under writes.
fn lose(site: &Site, replicas: u32, times: u32) {
    site.write(&stack(4, replicas));
    site.must(&["apply", "--yes"]);
    let ledger = Ledger::open(site.port);
    for _ in 0..times {
        let (before, pid) = primary(site);
        kill(pid);
        recovered(site, &before);
        std::thread::sleep(Duration::from_millis(300));
    }
    let (books, errors) = ledger.close(site.port);
    histogram(&format!("primaries lost, {replicas} standbys"), &books);
    // What was under way on it, once for each client, is told to have an unknown end.
    let most = u64::from(times) * u64::try_from(CLIENTS).unwrap();
    assert!(errors <= most, "{errors} errors for {times} primaries lost");
    site.must(&["destroy", "--yes"]);
}
