//! The store as one `SQLite` file, `store.db`.
//!
//! Every write is a transaction with `synchronous = FULL`, so that it is on the disk when it
//! returns. Each generation is signed (Ed25519) together with the digest of the one before it:
//! one that was altered, removed or put in another's place is found when it is read.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use kiln_model::digest::Digest;
use kiln_model::generation::Generation;
use kiln_model::name::StackName;
use kiln_model::quantity::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};

use crate::journal::{Entry, Event};
use crate::key::RootKey;

use super::{Store, StoreError, Write};

/// The version of the tables.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
    create table generation (
        stack text not null, number integer not null, body blob not null,
        chain blob not null, signature blob not null, primary key (stack, number)
    ) strict;
    create table journal (
        seq integer primary key, stack text not null, at integer not null,
        decides integer not null, event text not null
    ) strict;
    create index journal_by_stack on journal (stack, decides, at);
    create table secret (
        stack text not null, component text not null, version text not null,
        nonce blob not null, sealed blob not null, primary key (stack, component, version)
    ) strict;
";

/// The store in a directory.
pub struct SqliteStore {
    pub(crate) connection: Mutex<Connection>,
    signing: SigningKey,
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
        let mut connection = Connection::open(&path).map_err(database("open"))?;
        prepare(&mut connection)?;
        Ok(Self::over(connection, key))
    }

    /// The store in `directory` for reading only; `None` where there is none yet.
    pub fn open_existing(directory: &Path, key: &RootKey) -> Result<Option<Self>, StoreError> {
        let path = directory.join("store.db");
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open_with_flags(&path, flags).map_err(database("open"))?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(database("open"))?;
        check_format(&connection)?;
        Ok(Some(Self::over(connection, key)))
    }

    fn over(connection: Connection, key: &RootKey) -> Self {
        let signing = SigningKey::from_bytes(&key.derive("signing generations"));
        Self { connection: Mutex::new(connection), signing }
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

    /// Whether a generation is what was signed.
    fn verify(
        &self,
        stack: &StackName,
        number: u64,
        body: &[u8],
        links: &Links,
    ) -> Result<(), StoreError> {
        let altered = |problem: &str| StoreError::Altered {
            what: format!("generation {number} of {stack}"),
            problem: problem.to_owned(),
        };
        let expected = chain(stack.as_str(), links.before.as_deref(), body);
        if links.chain != expected.as_bytes() {
            return Err(altered("it does not follow from the one before it"));
        }
        let signature = Signature::from_slice(&links.signature)
            .map_err(|_| altered("its signature is malformed"))?;
        self.signing
            .verifying_key()
            .verify_strict(expected.as_bytes(), &signature)
            .map_err(|_| altered("its signature is not of this root's key"))
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
        self.verify(stack, number, &body, &links)?;
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

    fn append(&self, stack: &StackName, writes: &[Write]) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction().map_err(database("begin a transaction"))?;
        for write in writes {
            match write {
                Write::Generation(generation) => {
                    self.insert_generation(&transaction, generation)?;
                }
                Write::Entry(entry) => insert_entry(&transaction, stack, entry)?,
            }
        }
        transaction.commit().map_err(database("commit"))
    }
}

fn insert_entry(
    transaction: &Transaction<'_>,
    stack: &StackName,
    entry: &Entry,
) -> Result<(), StoreError> {
    let event = serde_json::to_string(&entry.event).map_err(|e| StoreError::Altered {
        what: "an entry of the journal".to_owned(),
        problem: e.to_string(),
    })?;
    transaction
        .prepare_cached("insert into journal (stack, at, decides, event) values (?1, ?2, ?3, ?4)")
        .and_then(|mut insert| {
            insert.execute(params![
                stack.as_str(),
                i64::try_from(entry.at.0).unwrap_or(i64::MAX),
                decides(&entry.event),
                event
            ])
        })
        .map_err(database("add to the journal"))?;
    Ok(())
}

/// Whether an entry is needed for ever to know a stack's state (1), or until the next one about
/// the same component (2).
fn decides(event: &Event) -> i64 {
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
        | Event::Crashed { .. } => 0,
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

fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_secs(10)).map_err(database("open"))?;
    connection
        .pragma_update(None, "journal_mode", "wal")
        .and_then(|()| connection.pragma_update(None, "synchronous", "full"))
        .and_then(|()| connection.pragma_update(None, "foreign_keys", "on"))
        .map_err(database("open"))?;
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(database("open"))?;
    let format: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(database("open"))?;
    if format == 0 {
        transaction
            .execute_batch(SCHEMA)
            .and_then(|()| transaction.pragma_update(None, "user_version", FORMAT))
            .map_err(database("make its tables"))?;
    }
    transaction.commit().map_err(database("open"))?;
    check_format(connection)
}

fn check_format(connection: &Connection) -> Result<(), StoreError> {
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(database("open"))?;
    if found == FORMAT { Ok(()) } else { Err(StoreError::Format { found, known: FORMAT }) }
}

pub(crate) fn database(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Database { action, source }
}
