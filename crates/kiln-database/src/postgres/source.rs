//! A PostgreSQL whose data goes over to one of a newer major version, by logical replication.
//!
//! What it has besides meanwhile is little, and says itself what it is, so that it can be taken away
//! whoever finds it: slots, the publication [`ROWS`] of all tables, and, as an `UPDATE` fails on a
//! published table whose rows nothing tells apart, the replica identity `FULL` for tables without a
//! key. These are members of one of two further publications, of which nothing is published: they
//! remember what the identity was before.

use std::path::Path;
use std::time::{Duration, Instant};

use kiln_model::name::InstanceId;
use tokio_postgres::{Client, SimpleQueryRow};

use super::catalog;
use super::session::{connect, literal, rows};
use crate::{Answer, EngineError, LastValues, Source};

/// The publication of all rows.
pub(super) const ROWS: &str = "kiln_rows";
/// Publications of nothing, and what the identity of their tables was before.
const KEYLESS: [(&str, &str); 2] =
    [("kiln_keyless_default", "DEFAULT"), ("kiln_keyless_nothing", "NOTHING")];

/// How long a lock is waited for: clients that ask for the table meanwhile wait as long.
const LOCK: &str = "SET LOCAL lock_timeout = '300ms'";
/// From one attempt to get a lock to the next.
const AGAIN: Duration = Duration::from_millis(500);
/// How long it is tried altogether.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the end of those who read from a slot may take.
const GOING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);
/// Held while anything of this is made or taken back.
const ALONE: &str = "SELECT pg_advisory_lock(hashtext('kiln upgrade'))";
const ALONE_NO_MORE: &str = "SELECT pg_advisory_unlock(hashtext('kiln upgrade'))";

/// The tables whose rows go over: those that are kept, and of those of extensions the ones that
/// they say hold data.
const TABLES: &str = "\
SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relreplident AS identity
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
      AND d.refclassid = 'pg_extension'::regclass AND c.oid <> ALL (coalesce(e.extconfig, '{}')))";

/// Whether nothing tells the rows of `t` apart.
const IS_KEYLESS: &str = "\
t.identity <> 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indisvalid
  AND (t.identity = 'd' AND i.indisprimary OR t.identity = 'i' AND i.indisreplident))";

/// See the module.
pub(super) struct PostgresSource {
    client: Client,
}

impl PostgresSource {
    pub(super) async fn open(sockets: &Path, database: &str) -> Result<Self, EngineError> {
        Ok(Self { client: connect(sockets, database).await? })
    }

    async fn rows(&self, query: &str) -> Result<Vec<SimpleQueryRow>, EngineError> {
        rows(&self.client, query).await
    }

    /// The first column of all rows.
    async fn names(&self, query: &str) -> Result<Vec<String>, EngineError> {
        let rows = self.rows(query).await?;
        Ok(rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect())
    }

    async fn one(&self, query: &str) -> Result<String, EngineError> {
        let first = self.names(query).await?.into_iter().next();
        first.ok_or_else(|| EngineError::Senseless(format!("nothing to {query}")))
    }

    async fn run(&self, statement: &str) -> Result<(), EngineError> {
        self.rows(statement).await.map(drop)
    }

    /// Runs statements in one transaction that gets its locks soon or not at all, until it does.
    async fn soon(&self, statements: &str) -> Result<(), EngineError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let done = self.run(&format!("BEGIN; {LOCK}; {statements}; COMMIT")).await;
            let Err(error) = done else { return Ok(()) };
            self.run("ROLLBACK").await?;
            let waits = matches!(&error, EngineError::Refused(why) if why.contains("lock timeout"));
            if !waits || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn offer_now(&self) -> Result<String, EngineError> {
        self.run(ALONE).await?;
        self.take_back().await?;
        let definitions = self.one(&catalog::definitions()).await?;
        for (publication, _) in KEYLESS {
            self.run(&format!("CREATE PUBLICATION {publication} WITH (publish = '')")).await?;
        }
        let keyless = format!("SELECT t.name, t.identity FROM ({TABLES}) t WHERE {IS_KEYLESS}");
        for row in self.rows(&keyless).await? {
            let (Some(table), identity) = (row.get(0), row.get(1)) else { continue };
            let (publication, _) = KEYLESS[usize::from(identity == Some("n"))];
            let remember = format!("ALTER PUBLICATION {publication} ADD TABLE ONLY {table}");
            let full = format!("ALTER TABLE ONLY {table} REPLICA IDENTITY FULL");
            self.soon(&format!("{remember}; {full}")).await?;
        }
        let tables = self.names(&format!("SELECT t.name FROM ({TABLES}) t")).await?;
        let tables: Vec<String> = tables.iter().map(|table| format!("ONLY {table}")).collect();
        let of = if tables.is_empty() { "" } else { " FOR TABLE " };
        let publish = format!("CREATE PUBLICATION {ROWS}{of}{}", tables.join(", "));
        self.soon(&publish).await?;
        self.run(ALONE_NO_MORE).await?;
        Ok(definitions)
    }

    /// The order matters: rows without an identity must not be published for a moment.
    async fn take_back(&self) -> Result<(), EngineError> {
        let own = format!("SELECT pubname FROM pg_publication WHERE pubname ~ '^{}'", catalog::OWN);
        let publications = self.names(&own).await?;
        let has = |name: &str| publications.iter().any(|it| it == name);
        if has(ROWS) {
            self.run(&format!("DROP PUBLICATION {ROWS}")).await?;
        }
        for (publication, before) in KEYLESS.iter().filter(|(name, _)| has(name)) {
            let members = format!(
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_publication p
                    JOIN pg_publication_rel r ON r.prpubid = p.oid
                    JOIN pg_class c ON c.oid = r.prrelid
                    JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE p.pubname = {}",
                literal(publication)
            );
            for table in self.names(&members).await? {
                let back = format!("ALTER TABLE ONLY {table} REPLICA IDENTITY {before}");
                let forget = format!("ALTER PUBLICATION {publication} DROP TABLE ONLY {table}");
                self.soon(&format!("{back}; {forget}")).await?;
            }
            self.run(&format!("DROP PUBLICATION {publication}")).await?;
        }
        self.drop_slots().await
    }

    /// There is nobody but Kiln who can have made one.
    async fn drop_slots(&self) -> Result<(), EngineError> {
        let slots = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical'";
        let deadline = Instant::now() + GOING;
        for slot in self.names(slots).await? {
            let name = literal(&slot);
            let here = format!("FROM pg_replication_slots WHERE slot_name = {name}");
            loop {
                self.run(&format!("SELECT pg_terminate_backend(active_pid) {here} AND active"))
                    .await?;
                let free = format!("SELECT pg_drop_replication_slot(slot_name) {here}");
                match self.run(&format!("{free} AND NOT active")).await {
                    // Another has taken it between the two looks.
                    Err(error) if Instant::now() >= deadline => return Err(error),
                    _ => {}
                }
                if self.names(&format!("SELECT slot_name {here}")).await?.is_empty() {
                    break;
                }
                if Instant::now() >= deadline {
                    let text = format!("the replication slot {slot} stays in use");
                    return Err(EngineError::Refused(text));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    async fn withdraw_now(
        &self,
        wanted: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<(), EngineError> {
        self.run(ALONE).await?;
        if !wanted() {
            self.take_back().await?;
        }
        self.run(ALONE_NO_MORE).await
    }

    async fn obstacles_now(&self) -> Result<Vec<String>, EngineError> {
        let mut found = Vec::new();
        for (query, what) in OBSTACLES {
            let named = self.names(query).await?;
            if !named.is_empty() {
                let some: Vec<&str> = named.iter().take(5).map(String::as_str).collect();
                let more = if named.len() > some.len() { ", …" } else { "" };
                found.push(what.replace("{}", &format!("{}{more}", some.join(", "))));
            }
        }
        let keyless = format!(
            "SELECT DISTINCT t.name FROM ({TABLES}) t
                JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
                JOIN pg_type y ON y.oid = a.atttypid
                LEFT JOIN pg_type e ON e.oid = y.typelem AND y.typcategory = 'A'
                LEFT JOIN pg_type b ON b.oid = y.typbasetype
                WHERE ({IS_KEYLESS} OR t.identity = 'f')
                  AND coalesce(b.typname, e.typname, y.typname) IN ('json', 'xml', 'point', 'line',
                    'lseg', 'box', 'path', 'polygon', 'circle')
                  AND NOT EXISTS (SELECT FROM pg_index i
                    WHERE i.indrelid = t.oid AND i.indisprimary)"
        );
        let keyless = self.names(&keyless).await?;
        if !keyless.is_empty() {
            found.push(format!(
                "the rows of {} can't be told apart: give it a primary key, as it has columns that \
                 can't be compared",
                keyless.join(", ")
            ));
        }
        Ok(found)
    }

    async fn last_values_now(&self) -> Result<LastValues, EngineError> {
        let named = |kind: char, rest: &str| {
            format!(
                "SELECT format('%I.%I', n.nspname, c.relname), concat(c.relfilenode, ' ',
                    pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
                    + pg_stat_get_tuples_deleted(c.oid))
                FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind = '{kind}' AND c.relpersistence = 'p'
                  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' {rest}"
            )
        };
        let mut last = LastValues::default();
        for row in self.rows(&named('m', "AND c.relispopulated")).await? {
            let (Some(name), Some(mark)) = (row.get(0), row.get(1)) else { continue };
            last.views.insert(name.to_owned(), mark.to_owned());
        }
        let sequences = self.names(&named('S', "")).await?;
        for some in sequences.chunks(100) {
            let one = |name: &String| {
                format!("SELECT {}, last_value, is_called FROM {name}", literal(name))
            };
            let query = some.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ");
            for row in self.rows(&query).await? {
                let value = row.get(1).and_then(|value| value.parse().ok());
                let (Some(name), Some(value)) = (row.get(0), value) else {
                    return Err(EngineError::Senseless("a sequence without a value".to_owned()));
                };
                last.sequences.insert(name.to_owned(), (value, row.get(2) == Some("t")));
            }
        }
        Ok(last)
    }
}

impl Source for PostgresSource {
    fn obstacles(&mut self) -> Answer<'_, Vec<String>> {
        Box::pin(self.obstacles_now())
    }

    fn offer(&mut self) -> Answer<'_, String> {
        Box::pin(self.offer_now())
    }

    fn withdraw<'a>(&'a mut self, wanted: &'a (dyn Fn() -> bool + Send + Sync)) -> Answer<'a, ()> {
        Box::pin(self.withdraw_now(wanted))
    }

    fn definitions(&mut self) -> Answer<'_, String> {
        Box::pin(async move { self.one(&catalog::definitions()).await })
    }

    fn confirmed<'a>(&'a mut self, by: &'a InstanceId) -> Answer<'a, Option<u64>> {
        Box::pin(async move {
            let query = format!(
                "SELECT (flush_lsn - '0/0'::pg_lsn)::bigint FROM pg_stat_replication
                    WHERE application_name = {} AND state = 'streaming'",
                literal(by.as_str())
            );
            let found = self.names(&query).await?;
            Ok(found.first().and_then(|position| position.parse().ok()))
        })
    }

    fn last_values(&mut self) -> Answer<'_, LastValues> {
        Box::pin(self.last_values_now())
    }
}

/// What cannot go over: a query that names it, and what is said of it.
const OBSTACLES: [(&str, &str); 7] = [
    (
        "SELECT setting FROM pg_settings WHERE name = 'wal_level' AND setting <> 'logical'",
        "it was started by a version of kiln that wrote too little to its log (`wal_level = {}`): \
         change something else first, say `memory`, so that it is made anew",
    ),
    (
        "SELECT oid FROM pg_largeobject_metadata LIMIT 6",
        "it has large objects ({}): keep them in columns of type bytea, or move the data with \
         `pg_dump`",
    ),
    (
        "SELECT gid FROM pg_prepared_xacts LIMIT 6",
        "it has prepared transactions ({}): end them with COMMIT PREPARED or ROLLBACK PREPARED",
    ),
    (
        "SELECT datname FROM pg_database WHERE NOT datistemplate
            AND datname NOT IN ('postgres', current_database())",
        "it has further databases ({}), and one goes over: drop them, or move them with `pg_dump`",
    ),
    (
        "SELECT concat(tgrelid::regclass, '.', tgname) FROM pg_trigger
            WHERE NOT tgisinternal AND tgenabled IN ('A', 'R')",
        "it has triggers that replicated rows set off as well ({}): make them ENABLE TRIGGER",
    ),
    (
        "SELECT oid::regclass FROM pg_class WHERE relforcerowsecurity",
        "it has tables whose rows are secured from their owner too ({}): make them NO FORCE ROW \
         LEVEL SECURITY meanwhile",
    ),
    (
        "SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')",
        "it has tablespaces of its own ({}): move what is in them to pg_default",
    ),
];
