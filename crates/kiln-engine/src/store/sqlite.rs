//! The store as one `SQLite` file, `store.db`.
//!
//! Every write is a transaction with `synchronous = FULL`, so that it is on the disk when it
//! returns. Each generation is signed (Ed25519) together with the digest of the one before it:
//! one that was altered, removed or put in another's place is found when it is read. The journal is
//! one signed [chain](mod@super::chain), whose end is also told [outside](super::head) of the database;
//! that all is as it was written is [checked](super::watch) before anything is added.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use kiln_model::digest::Digest;
use kiln_model::generation::Generation;
use kiln_model::name::StackName;
use kiln_model::quantity::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};

use crate::actor::Actor;
use crate::journal::{Entry, Event, Record};
use crate::key::RootKey;

use super::chain::{self, Audit, Depth, Row};
use super::head::HeadFile;
use super::watch::Watch;
use super::{Problem, Store, StoreError, Write};

/// The version of the tables.
const FORMAT: i64 = 2;

/// The name under which entries stand that belong to no stack.
pub(super) const NO_STACK: &str = "";

const SCHEMA: &str = "
    create table generation (
        stack text not null, number integer not null, body blob not null,
        chain blob not null, signature blob not null, primary key (stack, number)
    ) strict;
    create table journal (
        seq integer primary key, stack text not null, at integer not null,
        decides integer not null, event text not null, by text not null,
        anchor blob not null, before blob not null, hash blob not null, signature blob not null
    ) strict;
    create index journal_by_stack on journal (stack, decides, at);
    create table secret (
        stack text not null, component text not null, version text not null,
        nonce blob not null, sealed blob not null, primary key (stack, component, version)
    ) strict;
";

/// From the first version of the tables to the present one; the chain is made afterwards.
const FROM_FIRST: &str = r#"
    alter table journal add column by text not null default '"keeper"';
    alter table journal add column anchor blob not null default x'';
    alter table journal add column before blob not null default x'';
    alter table journal add column hash blob not null default x'';
    alter table journal add column signature blob not null default x'';
"#;

/// The store in a directory.
pub struct SqliteStore {
    pub(crate) connection: Mutex<Connection>,
    signing: SigningKey,
    /// Signs the journal and its head.
    pub(super) journal_key: SigningKey,
    pub(super) directory: PathBuf,
    pub(super) head: HeadFile,
    pub(super) watch: Mutex<Watch>,
}

impl SqliteStore {
    /// The store in `directory`, made there if there is none.
    pub fn open(directory: &Path, key: &RootKey) -> Result<Self, StoreError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { path, source }
        };
        fs::create_dir_all(directory).map_err(file(directory))?;
        let path = directory.join("store.db");
        let head = HeadFile::of(directory);
        if head.path().exists() && !path.exists() {
            return Err(gone());
        }
        let mut connection = Connection::open(&path).map_err(database("open"))?;
        let journal_key = journal_key(key);
        prepare(&mut connection, &journal_key, &head)?;
        Ok(Self::over(connection, key, directory))
    }

    /// The store in `directory` for reading only; `None` where there is none yet.
    pub fn open_existing(directory: &Path, key: &RootKey) -> Result<Option<Self>, StoreError> {
        let path = directory.join("store.db");
        if !path.exists() {
            return if HeadFile::of(directory).path().exists() { Err(gone()) } else { Ok(None) };
        }
        let mut connection = reopen(&path)?;
        prepare(&mut connection, &journal_key(key), &HeadFile::of(directory))?;
        Ok(Some(Self::over(connection, key, directory)))
    }

    fn over(connection: Connection, key: &RootKey, directory: &Path) -> Self {
        Self {
            connection: Mutex::new(connection),
            signing: SigningKey::from_bytes(&key.derive("signing generations")),
            journal_key: journal_key(key),
            directory: directory.to_owned(),
            head: HeadFile::of(directory),
            watch: Mutex::default(),
        }
    }

    /// Walks through the whole journal, every signature, and all generations.
    pub fn audit(&self) -> Result<Audit, StoreError> {
        // The head first: what is added meanwhile is then more than it says, never less.
        let head = self.head.read(&self.journal_key);
        let connection = reopen(&self.directory.join("store.db"))?;
        let mut audit = chain::walk(&connection, &self.journal_key, head, Depth::All)?;
        audit.problems.extend(self.verify_generations(&connection)?);
        Ok(audit)
    }

    /// The generations that are not as they were signed.
    pub(super) fn verify_generations(
        &self,
        connection: &Connection,
    ) -> Result<Vec<Problem>, StoreError> {
        let failed = || database("verify generations");
        let mut statement = connection
            .prepare(
                "select stack, number, body, chain, signature,
                     lag(chain) over (partition by stack order by number)
                 from generation order by stack, number",
            )
            .map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        let mut problems = Vec::new();
        while let Some(row) = rows.next().map_err(failed())? {
            let read = || -> rusqlite::Result<(String, i64, Vec<u8>, Links)> {
                let links =
                    Links { chain: row.get(3)?, signature: row.get(4)?, before: row.get(5)? };
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, links))
            };
            let (stack, number, body, links) = read().map_err(failed())?;
            if let Err(problem) = self.verify(&stack, &body, &links) {
                let (number, problem) = (number.unsigned_abs(), problem.to_owned());
                problems.push(Problem::Generation { stack, number, problem });
            }
        }
        Ok(problems)
    }

    /// All entries of a stack, or of everything, in order, with who stands behind each.
    pub fn records(&self, stack: Option<&StackName>) -> Result<Vec<Record>, StoreError> {
        let rows = chain::rows(&self.lock())?;
        let mine = |row: &Row| stack.is_none_or(|stack| row.stack == stack.as_str());
        rows.into_iter().filter(mine).map(record).collect()
    }

    /// The public half of the key that signs generations.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.signing.verifying_key()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held left no transaction open: they roll back when dropped.
        self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn insert_generation(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
    ) -> Result<(), StoreError> {
        let body = serde_json::to_vec(generation).map_err(|e| StoreError::Altered {
            what: format!("generation {}", generation.number),
            problem: e.to_string(),
        })?;
        let stack = generation.stack.as_str();
        let before: Option<Vec<u8>> = transaction
            .query_row(
                "select chain from generation where stack = ?1 order by number desc limit 1",
                [stack],
                |row| row.get(0),
            )
            .optional()
            .map_err(database("read the generation before"))?;
        let chain = chain(stack, before.as_deref(), &body);
        let signature = self.signing.sign(chain.as_bytes());
        transaction
            .execute(
                "insert into generation values (?1, ?2, ?3, ?4, ?5)",
                params![
                    stack,
                    i64::try_from(generation.number).unwrap_or(i64::MAX),
                    body,
                    chain.as_bytes(),
                    signature.to_bytes()
                ],
            )
            .map_err(database("add a generation"))?;
        Ok(())
    }

    /// Whether a generation is what was signed; an error says what is wrong.
    fn verify(&self, stack: &str, body: &[u8], links: &Links) -> Result<(), &'static str> {
        let expected = chain(stack, links.before.as_deref(), body);
        if links.chain != expected.as_bytes() {
            return Err("it does not follow from the one before it");
        }
        let signature =
            Signature::from_slice(&links.signature).map_err(|_| "its signature is malformed")?;
        self.signing
            .verifying_key()
            .verify_strict(expected.as_bytes(), &signature)
            .map_err(|_| "its signature is not of this root's key")
    }
}

/// What ties a generation to the one before it.
struct Links {
    before: Option<Vec<u8>>,
    chain: Vec<u8>,
    signature: Vec<u8>,
}

impl Store for SqliteStore {
    fn stacks(&self) -> Result<Vec<StackName>, StoreError> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("select distinct stack from generation order by stack")
            .map_err(database("list stacks"))?;
        let names = statement
            .query_map([], |row| row.get::<_, String>(0))
            .and_then(Iterator::collect::<Result<Vec<String>, _>>)
            .map_err(database("list stacks"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn generation(
        &self,
        stack: &StackName,
        number: u64,
    ) -> Result<Option<Arc<Generation>>, StoreError> {
        let sql = "select body, chain, signature, (select chain from generation b
                   where b.stack = g.stack and b.number < g.number
                   order by number desc limit 1) from generation g
                   where stack = ?1 and number = ?2";
        let row: Option<(Vec<u8>, Links)> = self
            .lock()
            .query_row(sql, params![stack.as_str(), i64::try_from(number).unwrap_or(-1)], |row| {
                let links =
                    Links { chain: row.get(1)?, signature: row.get(2)?, before: row.get(3)? };
                Ok((row.get(0)?, links))
            })
            .optional()
            .map_err(database("read a generation"))?;
        let Some((body, links)) = row else { return Ok(None) };
        self.verify(stack.as_str(), &body, &links).map_err(|problem| StoreError::Altered {
            what: format!("generation {number} of {stack}"),
            problem: problem.to_owned(),
        })?;
        let generation = serde_json::from_slice(&body).map_err(|e| StoreError::Altered {
            what: format!("generation {number} of {stack}"),
            problem: e.to_string(),
        })?;
        Ok(Some(Arc::new(generation)))
    }

    fn numbers(&self, stack: &StackName) -> Result<Vec<u64>, StoreError> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("select number from generation where stack = ?1 order by number")
            .map_err(database("list generations"))?;
        let numbers = statement
            .query_map([stack.as_str()], |row| row.get::<_, i64>(0))
            .and_then(Iterator::collect::<Result<Vec<i64>, _>>)
            .map_err(database("list generations"))?;
        Ok(numbers.into_iter().filter_map(|n| u64::try_from(n).ok()).collect())
    }

    fn journal(&self, stack: &StackName, since: Timestamp) -> Result<Vec<Entry>, StoreError> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached(
                "select at, event from journal
                 where stack = ?1 and (decides = 1 or at >= ?2 or seq in (
                     select max(seq) from journal where stack = ?1 and decides = 2
                     group by json_extract(event, '$.sized.component'))) order by seq",
            )
            .map_err(database("read the journal"))?;
        let since = i64::try_from(since.0).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(params![stack.as_str(), since], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(database("read the journal"))?;
        rows.into_iter().map(|(at, event)| entry(stack, at, &event)).collect()
    }

    fn append(&self, stack: &StackName, by: &Actor, writes: &[Write]) -> Result<(), StoreError> {
        self.write(stack.as_str(), by, writes)
    }

    fn note(&self, by: &Actor, entry: &Entry) -> Result<(), StoreError> {
        self.write(NO_STACK, by, &[Write::Entry(entry.clone())])
    }

    fn check(&self) -> Result<(), StoreError> {
        self.look()
    }

    fn sound(&self) -> Result<(), StoreError> {
        self.known()
    }

    fn accept(&self, by: &Actor, at: Timestamp, because: &str) -> Result<Vec<String>, StoreError> {
        self.accept_as_found(by, at, because)
    }
}

impl SqliteStore {
    /// Adds writes within a transaction.
    pub(super) fn insert(
        &self,
        transaction: &Transaction<'_>,
        stack: &str,
        by: &Actor,
        writes: &[Write],
    ) -> Result<(), StoreError> {
        for write in writes {
            match write {
                Write::Generation(generation) => self.insert_generation(transaction, generation)?,
                Write::Entry(entry) => self.insert_entry(transaction, stack, by, entry)?,
            }
        }
        Ok(())
    }

    fn insert_entry(
        &self,
        transaction: &Transaction<'_>,
        stack: &str,
        by: &Actor,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        let text = |value: serde_json::Result<String>| {
            value.map_err(|e| StoreError::Altered {
                what: "an entry of the journal".to_owned(),
                problem: e.to_string(),
            })
        };
        let anchor = match &entry.event {
            Event::Committed { generation, .. } => anchor(transaction, stack, *generation)?,
            _ => Vec::new(),
        };
        let mut row = Row {
            seq: 0,
            stack: stack.to_owned(),
            at: i64::try_from(entry.at.0).unwrap_or(i64::MAX),
            decides: decides(&entry.event),
            event: text(serde_json::to_string(&entry.event))?,
            by: text(serde_json::to_string(by))?,
            anchor,
            before: Vec::new(),
            hash: Vec::new(),
            signature: Vec::new(),
        };
        let (seq, hash) = tip(transaction)?;
        row.link(seq + 1, &hash, &self.journal_key);
        insert_row(transaction, &row)
    }
}

/// The last entry of the journal: its number and its hash.
pub(super) fn tip(connection: &Connection) -> Result<(i64, Vec<u8>), StoreError> {
    let last = connection
        .prepare_cached("select seq, hash from journal order by seq desc limit 1")
        .and_then(|mut last| last.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(database("read the journal"))?;
    Ok(last.unwrap_or((0, chain::START.to_vec())))
}

/// The chain value of a generation; empty where it is not there.
pub(super) fn anchor(
    connection: &Connection,
    stack: &str,
    number: u64,
) -> Result<Vec<u8>, StoreError> {
    let number = i64::try_from(number).unwrap_or(-1);
    let chain: Option<Vec<u8>> = connection
        .query_row(
            "select chain from generation where stack = ?1 and number = ?2",
            params![stack, number],
            |row| row.get(0),
        )
        .optional()
        .map_err(database("read a generation"))?;
    Ok(chain.unwrap_or_default())
}

pub(super) fn insert_row(connection: &Connection, row: &Row) -> Result<(), StoreError> {
    connection
        .prepare_cached("insert into journal values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")
        .and_then(|mut insert| {
            insert.execute(params![
                row.seq,
                row.stack,
                row.at,
                row.decides,
                row.event,
                row.by,
                row.anchor,
                row.before,
                row.hash,
                row.signature
            ])
        })
        .map_err(database("add to the journal"))?;
    Ok(())
}

/// Puts all entries as they are into one chain, the numbers without gaps.
pub(super) fn link_anew(connection: &Connection, key: &SigningKey) -> Result<(), StoreError> {
    let rows = chain::rows(connection)?;
    connection.execute("delete from journal", []).map_err(database("link the journal"))?;
    let mut before = chain::START.to_vec();
    for (mut row, seq) in rows.into_iter().zip(1..) {
        row.anchor = match chain::committed(&row.event) {
            Some(number) => anchor(connection, &row.stack, number)?,
            None => Vec::new(),
        };
        row.link(seq, &before, key);
        before.clone_from(&row.hash);
        insert_row(connection, &row)?;
    }
    Ok(())
}

fn record(row: Row) -> Result<Record, StoreError> {
    let unreadable = |e: serde_json::Error| StoreError::Altered {
        what: format!("entry {} of the journal", row.seq),
        problem: e.to_string(),
    };
    Ok(Record {
        number: row.seq.unsigned_abs(),
        entry: Entry {
            at: Timestamp(u64::try_from(row.at).unwrap_or(0)),
            event: serde_json::from_str(&row.event).map_err(unreadable)?,
        },
        by: serde_json::from_str(&row.by).map_err(unreadable)?,
        content: row.anchor.try_into().ok().map(Digest::from_bytes),
        hash: Digest::from_bytes(row.hash.try_into().unwrap_or_default()),
        stack: row.stack,
    })
}

/// Whether an entry is needed for ever to know a stack's state (1), or until the next one about
/// the same component (2).
pub(super) fn decides(event: &Event) -> i64 {
    match event {
        Event::Committed { .. }
        | Event::Active { .. }
        | Event::Stepped { .. }
        | Event::Serving { .. }
        | Event::Abandoned { .. }
        | Event::Pinned { .. }
        | Event::Resumed
        | Event::Scaled { .. } => 1,
        Event::Sized { .. } => 2,
        Event::Made { .. }
        | Event::Retired { .. }
        | Event::Proved { .. }
        | Event::Failed { .. }
        | Event::Crashed { .. }
        | Event::Drifted { .. }
        | Event::Alarmed { .. }
        | Event::Began { .. }
        | Event::Followed { .. }
        | Event::Unfollowed { .. }
        | Event::Tampered { .. }
        | Event::Accepted { .. } => 0,
    }
}

fn entry(stack: &StackName, at: i64, event: &str) -> Result<Entry, StoreError> {
    let event = serde_json::from_str(event).map_err(|e| StoreError::Altered {
        what: format!("an entry of the journal of {stack}"),
        problem: e.to_string(),
    })?;
    Ok(Entry { at: Timestamp(u64::try_from(at).unwrap_or(0)), event })
}

/// The digest that ties a generation to the one before it.
fn chain(stack: &str, before: Option<&[u8]>, body: &[u8]) -> Digest {
    let mut text = format!("kiln.chain.v1\n{stack}\n").into_bytes();
    text.extend_from_slice(before.unwrap_or(&[0; 32]));
    text.extend_from_slice(Digest::of(body).as_bytes());
    Digest::of(&text)
}

fn journal_key(key: &RootKey) -> SigningKey {
    SigningKey::from_bytes(&key.derive("signing the journal"))
}

fn gone() -> StoreError {
    let problem = "it is gone, although the file `head` beside it says that there was one";
    StoreError::Unsound(vec![Problem::Database { problem: problem.to_owned() }])
}

/// A database that is there.
pub(super) fn reopen(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags(path, flags).map_err(database("open"))?;
    settle(&connection)?;
    Ok(connection)
}

fn settle(connection: &Connection) -> Result<(), StoreError> {
    connection
        .busy_timeout(Duration::from_secs(10))
        .and_then(|()| connection.pragma_update(None, "journal_mode", "wal"))
        .and_then(|()| connection.pragma_update(None, "synchronous", "full"))
        .and_then(|()| connection.pragma_update(None, "foreign_keys", "on"))
        .map_err(database("open"))
}

/// Makes the tables that are missing, and brings those of the first version up to date.
fn prepare(
    connection: &mut Connection,
    key: &SigningKey,
    head: &HeadFile,
) -> Result<(), StoreError> {
    settle(connection)?;
    let found = format(connection)?;
    if found == FORMAT {
        return Ok(());
    }
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(database("open"))?;
    // Another process may have been quicker.
    match format(&transaction)? {
        0 => transaction.execute_batch(SCHEMA).map_err(database("make its tables"))?,
        1 => {
            transaction
                .execute_batch(FROM_FIRST)
                .map_err(database("bring its tables up to date"))?;
            link_anew(&transaction, key)?;
        }
        FORMAT => return Ok(()),
        found => return Err(StoreError::Format { found, known: FORMAT }),
    }
    let (seq, hash) = tip(&transaction)?;
    transaction.pragma_update(None, "user_version", FORMAT).map_err(database("make its tables"))?;
    transaction.commit().map_err(database("open"))?;
    if seq > 0 {
        super::watch::write_head(head, seq, &hash, key)?;
    }
    Ok(())
}

fn format(connection: &Connection) -> Result<i64, StoreError> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(database("open"))
}

pub(crate) fn database(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Database { action, source }
}
