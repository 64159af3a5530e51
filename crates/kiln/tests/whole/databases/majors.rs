//! Databases that go over to a newer major version of their engine while clients write: they are told
//! of no error, and every acknowledged row is there, once, in its order.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use super::{close, kill, open, parameters, primary, recovered};
use crate::site::{Site, site_or_skip, told};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(240);

fn stack(version: u32, replicas: u32) -> String {
    format!(
        r#"
network "back" {{ cidr = "10.61.0.0/24" }}
secret "ledger" {{ value = "opensesame" }}
database "ledger" {{
  engine   = "postgres"
  version  = "{version}"
  network  = network.back
  password = secret.ledger
  replicas = {replicas}
  rollout  = {{ deadline = "4m" }}
}}
endpoint "db" {{
  listen = "127.0.0.1:PORT"
  to     = database.ledger
}}
"#
    )
}

/// A client that keeps its session.
struct Teller {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Teller {
    fn new(site: &Site) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&parameters(site), NoTls).await.unwrap();
            tokio::spawn(async move { drop(connection.await) });
            client
        });
        Self { runtime, client }
    }

    fn run(&self, statements: &str) {
        self.runtime.block_on(self.client.batch_execute(statements)).unwrap();
    }

    /// The first column of the first row, as text.
    fn ask(&self, question: &str) -> String {
        let answer = self.runtime.block_on(self.client.simple_query(question)).unwrap();
        let row = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        row.unwrap_or_default().to_owned()
    }
}

/// Runs statements as the superuser at the instance that takes writes, in its user's database.
fn at_the_primary(site: &Site, question: &str) -> Vec<String> {
    let (id, _) = primary(site);
    let databases = std::fs::read_dir(site.root().join("run/databases")).unwrap();
    let place = databases.flatten().next().unwrap().path();
    let socket = place.join(id).join(".s.PGSQL.5432");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let mut config = tokio_postgres::Config::new();
        config.user("kiln").dbname("ledger");
        let (client, connection) = config.connect_raw(stream, NoTls).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let answer = client.simple_query(question).await.unwrap();
        let rows = answer.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        rows.collect()
    })
}

fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What an upgrade makes at the old one, if anything.
const TRACES: &str = "SELECT slot_name::text FROM pg_replication_slots
    UNION ALL SELECT pubname::text FROM pg_publication
    UNION ALL SELECT relname::text FROM pg_class WHERE relreplident = 'f'";

/// What is no row of the ledger, and what has to come along.
const BESIDES: &str = "
    CREATE TYPE colour AS ENUM ('red', 'green');
    CREATE TABLE notes (body text, colour colour DEFAULT 'green');
    CREATE SEQUENCE numbers INCREMENT 7;
    CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM notes;
    CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
    CREATE UNLOGGED TABLE scratch (n int);
    INSERT INTO notes SELECT 'note ' || n FROM generate_series(1, 500) n;
    REFRESH MATERIALIZED VIEW totals;
    SELECT nextval('numbers'), nextval('numbers')";

#[test]
fn a_database_goes_from_13_to_15_to_17_under_writes() {
    let site = site_or_skip!("a_database_goes_from_13_to_15_to_17_under_writes");
    site.write(&stack(13, 0));
    site.must(&["apply", "--yes"]);
    let ledger = open(&site);
    let teller = Teller::new(&site);
    teller.run(BESIDES);
    teller.run("SET application_name = 'teller'");
    teller.run("PREPARE doubled AS SELECT twice($1)");
    for version in [15, 17] {
        let (before, _) = primary(&site);
        let began = Instant::now();
        site.write(&stack(version, 0));
        let plan = site.must(&["plan"]);
        assert!(plan.contains("version"), "{plan}");
        site.must(&["apply", "--yes"]);
        println!("to {version}: {:?}", began.elapsed());
        assert_ne!(primary(&site).0, before);
        let found = teller.ask("SELECT current_setting('server_version_num')::int / 10000");
        assert_eq!(found, version.to_string());
        assert_eq!(teller.ask("EXECUTE doubled(21)"), "42", "prepared statements are there");
        assert_eq!(teller.ask("SHOW application_name"), "teller");
        // A table without a key is as writable as ever, and nothing is left of what it needed.
        teller.run("UPDATE notes SET body = body || '!' WHERE colour = 'green'");
        assert_eq!(at_the_primary(&site, TRACES), Vec::<String>::new());
        let analysed = "SELECT count(*) FROM pg_class WHERE relname = 'ledger' AND reltuples > 0";
        assert_eq!(teller.ask(analysed), "1");
    }
    assert_eq!(teller.ask("SELECT count(*) FROM notes WHERE body LIKE '%!!'"), "500");
    assert_eq!(teller.ask("SELECT n FROM totals"), "500");
    assert_eq!(teller.ask("SELECT nextval('numbers')"), "15");
    assert_eq!(teller.ask("SELECT count(*) FROM scratch"), "0");
    assert_eq!(close(ledger, "13 to 15 to 17").told, Vec::<String>::new());

    // There is no way back.
    let (before, _) = primary(&site);
    for refused in [site.run(&["rollback", "--yes"]), {
        site.write(&stack(15, 0));
        site.run(&["apply", "--yes"])
    }] {
        assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
        assert!(
            told(&refused).contains("cannot be carried back to version 15"),
            "{}",
            told(&refused)
        );
    }
    assert_eq!(primary(&site).0, before);
    site.must(&["destroy", "--yes"]);
}

#[test]
fn a_new_version_has_its_standby_from_its_first_write_on() {
    let site = site_or_skip!("a_new_version_has_its_standby_from_its_first_write_on");
    site.write(&stack(15, 1));
    site.must(&["apply", "--yes"]);
    let ledger = open(&site);
    site.write(&stack(17, 1));
    site.must(&["apply", "--yes"]);
    // The one that was made for it takes over.
    let (before, pid) = primary(&site);
    kill(pid);
    recovered(&site, &[&before]);
    let told = close(ledger, "15 to 17 with a standby, and its primary lost").told;
    assert!(told.len() <= 4, "once for each client at most");
    site.must(&["destroy", "--yes"]);
}

#[test]
fn what_was_begun_is_taken_back_and_begun_anew() {
    let site = site_or_skip!("what_was_begun_is_taken_back_and_begun_anew");
    site.write(&stack(15, 0));
    site.must(&["apply", "--yes"]);
    let ledger = open(&site);
    let teller = Teller::new(&site);
    teller.run("CREATE TABLE notes (body text)");
    teller
        .run("INSERT INTO notes SELECT repeat(md5(n::text), 8) FROM generate_series(1, 300000) n");
    let (before, _) = primary(&site);

    // The daemon ends while rows are copied: what was half made is thrown away, and made anew.
    site.write(&stack(17, 0));
    let mut apply = site.start(&["apply", "--yes"]);
    let begun = || !at_the_primary(&site, "SELECT 1 FROM pg_publication").is_empty();
    within("the rows to be offered", begun);
    site.signal("serve", rustix::process::Signal::KILL);
    let _ = apply.wait();
    assert_eq!(teller.ask("SELECT count(*) FROM notes"), "300000", "the old one serves on");
    teller.run("UPDATE notes SET body = 'x' WHERE body LIKE '%0'");

    // Definitions change while it is made anew: the copy that lacks them is begun again.
    let mut apply = site.start(&["apply", "--yes"]);
    within("rows to be received", || {
        let slots = "SELECT 1 FROM pg_replication_slots WHERE active";
        !at_the_primary(&site, slots).is_empty()
    });
    teller.run("CREATE TABLE late (n int PRIMARY KEY); INSERT INTO late VALUES (7)");
    teller.run("ALTER TABLE notes ADD COLUMN more text DEFAULT 'and more'");
    let ended = apply.wait().unwrap();
    assert!(ended.success(), "{}", site.must(&["events"]));
    assert_ne!(primary(&site).0, before);
    assert_eq!(teller.ask("SELECT current_setting('server_version_num')::int / 10000"), "17");
    assert_eq!(teller.ask("SELECT n FROM late"), "7");
    assert_eq!(teller.ask("SELECT count(*) FROM notes WHERE more = 'and more'"), "300000");
    assert_eq!(at_the_primary(&site, TRACES), Vec::<String>::new());
    assert_eq!(
        close(ledger, "15 to 17 with a daemon killed and definitions changed").told,
        Vec::<String>::new()
    );
    site.must(&["destroy", "--yes"]);
}

#[test]
fn what_cannot_go_over_is_refused_and_leaves_no_trace() {
    let site = site_or_skip!("what_cannot_go_over_is_refused_and_leaves_no_trace");
    site.write(&stack(15, 0));
    site.must(&["apply", "--yes"]);
    let teller = Teller::new(&site);
    let (before, _) = primary(&site);
    let refused = |what: &str| {
        site.write(&stack(17, 0));
        let refused = site.run(&["apply", "--yes"]);
        assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
        assert!(told(&refused).contains(what), "{what}: {}", told(&refused));
        assert_eq!(primary(&site).0, before);
        assert_eq!(at_the_primary(&site, TRACES), Vec::<String>::new());
    };
    teller.run("SELECT lo_create(4711)");
    refused("large objects (4711)");
    teller.run("SELECT lo_unlink(4711)");
    teller.run(
        "CREATE TABLE notes (n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN RETURN new; END'; CREATE TRIGGER always BEFORE INSERT ON notes FOR EACH ROW EXECUTE \
         FUNCTION f(); ALTER TABLE notes ENABLE ALWAYS TRIGGER always",
    );
    refused("triggers that replicated rows set off");
    teller.run("DROP TABLE notes; CREATE TABLE notes (body json)");
    refused("public.notes can't be told apart");
    teller.run("DROP TABLE notes; CREATE TABLE notes (n int)");

    // The old one is lost on the way: it is recovered as what it was, and nothing is left of it.
    teller.run("INSERT INTO notes SELECT generate_series(1, 300000)");
    let mut apply = site.start(&["apply", "--yes"]);
    within("rows to be received", || {
        !at_the_primary(&site, "SELECT 1 FROM pg_replication_slots WHERE active").is_empty()
    });
    kill(primary(&site).1);
    assert!(!apply.wait().unwrap().success());
    recovered(&site, &[&before]);
    let again = Teller::new(&site);
    assert_eq!(again.ask("SELECT current_setting('server_version_num')::int / 10000"), "15");
    assert_eq!(again.ask("SELECT count(*) FROM notes"), "300000");
    within("the traces to go", || at_the_primary(&site, TRACES).is_empty());
    again.run("UPDATE notes SET n = n + 1 WHERE n < 10");

    // And then it goes.
    site.must(&["apply", "--yes"]);
    assert_eq!(again.ask("SELECT current_setting('server_version_num')::int / 10000"), "17");
    assert_eq!(again.ask("SELECT count(*) FROM notes"), "300000");
    site.must(&["destroy", "--yes"]);
}
