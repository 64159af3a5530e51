//! Whether the store is what was written: checked before anything is added, and whenever its files
//! are not as they were left.
//!
//! What a store has verified once is remembered: how far the journal reached, and how its files
//! looked. As long as they look so, nobody else has written to them. Else the whole chain is walked
//! through on a connection of its own, which sees the files and not what `SQLite` remembers of them.
//! A store that is not sound takes no decision. What happens meanwhile and decides nothing (an
//! instance that was made in the place of another) is held in memory and written once it is sound.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt as _;

use ed25519_dalek::SigningKey;
use kiln_model::quantity::Timestamp;
use rusqlite::TransactionBehavior::Immediate;

use crate::actor::Actor;
use crate::journal::{Entry, Event};

use super::chain::{self, Depth};
use super::head::{Head, HeadFile};
use super::sqlite::{NO_STACK, SqliteStore, database, decides, link_anew, reopen, tip};
use super::{Problem, StoreError, Write};

/// How many entries are held while the store is not sound; of more, the oldest are lost.
const HELD: usize = 10_000;

/// The files that are looked at.
const FILES: [&str; 4] = ["store.db", "store.db-wal", "head", "key"];

/// How a file looks: device, inode, size, and when it was written, in nanoseconds.
type Look = Option<(u64, u64, u64, i128)>;

/// What is known of the files of a store.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// How far the journal reached when it was last verified or added to.
    head: Option<Head>,
    looks: [Look; FILES.len()],
    problems: Vec<Problem>,
    /// When they were found.
    found_at: Option<Timestamp>,
    held: VecDeque<(String, Actor, Entry)>,
}

impl SqliteStore {
    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        // What is known is whole between any two statements.
        self.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn looks(&self) -> [Look; FILES.len()] {
        FILES.map(|name| {
            let file = std::fs::symlink_metadata(self.directory.join(name)).ok()?;
            let at = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
            Some((file.dev(), file.ino(), file.size(), at))
        })
    }

    /// What the last look has found.
    pub(super) fn known(&self) -> Result<(), StoreError> {
        let watch = self.watch();
        if watch.problems.is_empty() { Ok(()) } else { Err(unsound(&watch)) }
    }

    /// Looks whether the files are as they were left, and if not whether they are sound.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        let mut watch = self.watch();
        self.look_with(&mut watch)
    }

    fn look_with(&self, watch: &mut Watch) -> Result<(), StoreError> {
        let looks = self.looks();
        if watch.head.is_some() && watch.looks == looks {
            return if watch.problems.is_empty() { Ok(()) } else { Err(unsound(watch)) };
        }
        let first = watch.head.is_none();
        let problems = match self.examine(watch, first) {
            Ok(problems) => problems,
            // Not an answer: another look is taken next time.
            Err(StoreError::Database { source, .. }) if is_passing(&source) => return Ok(()),
            Err(error) => vec![Problem::Database { problem: text(&error) }],
        };
        watch.looks = looks;
        if problems.is_empty() {
            self.settled(watch);
            return Ok(());
        }
        if watch.problems.is_empty() {
            watch.found_at = Some(now());
        }
        watch.problems = problems;
        Err(unsound(watch))
    }

    /// Walks through all, as the files have it now.
    fn examine(&self, watch: &mut Watch, first: bool) -> Result<Vec<Problem>, StoreError> {
        let path = self.directory.join("store.db");
        if !path.exists() {
            return Ok(vec![Problem::Database { problem: "it is gone".to_owned() }]);
        }
        if let Some(problem) = self.foreign_key() {
            return Ok(vec![problem]);
        }
        let head = self.head.read(&self.journal_key);
        let connection = reopen(&path)?;
        let mut audit = chain::walk(&connection, &self.journal_key, head, Depth::Last)?;
        if audit.problems.is_empty() {
            audit.problems.extend(Self::known_otherwise(watch, &connection)?);
            audit.problems.extend(self.verify_generations(&connection)?);
        }
        // What this process goes on with is what was looked at, wherever the names led before.
        let file = |look: Look| look.map(|look| (look.0, look.1));
        let same = self.looks().iter().zip(watch.looks).take(2).all(|(a, b)| file(*a) == file(b));
        if !first && !same && audit.problems.is_empty() {
            *self.lock() = connection;
        }
        if audit.problems.is_empty() {
            let known = Head { entries: audit.last, hash: audit.hash };
            if known.entries > 0 && watch.head != Some(known) {
                write_head_of(&self.head, &known, &self.journal_key)?;
            }
            watch.head = Some(known);
        } else if first {
            // Something must be remembered, else each look would walk through all again.
            watch.head = Some(Head { entries: 0, hash: chain::START });
        }
        Ok(audit.problems)
    }

    /// Whether the key on the disk is not the one that this process has.
    fn foreign_key(&self) -> Option<Problem> {
        let read = crate::key::RootKey::open(&self.directory);
        let same = read
            .as_ref()
            .is_ok_and(|key| key.derive("signing the journal") == self.journal_key.to_bytes());
        (!same).then_some(Problem::Key)
    }

    /// Whether the journal is another than the one that this process has seen, however well signed
    /// it and its head are: both were put back together.
    fn known_otherwise(
        watch: &Watch,
        connection: &rusqlite::Connection,
    ) -> Result<Option<Problem>, StoreError> {
        let Some(known) = watch.head.filter(|head| head.entries > 0) else { return Ok(None) };
        let (last, _) = tip(connection)?;
        if last.unsigned_abs() < known.entries {
            let (from, to) = (last.unsigned_abs() + 1, known.entries);
            return Ok(Some(Problem::Truncated { from, to }));
        }
        let hash: Vec<u8> = connection
            .query_row(
                "select hash from journal where seq = ?1",
                [i64::try_from(known.entries).unwrap_or(i64::MAX)],
                |row| row.get(0),
            )
            .map_err(database("read the journal"))?;
        let same = hash.as_slice() == known.hash.as_slice();
        Ok((!same).then_some(Problem::Forked { entry: known.entries }))
    }

    /// The store is sound (again): what was held is written, and what had been wrong.
    fn settled(&self, watch: &mut Watch) {
        let problems = std::mem::take(&mut watch.problems);
        let found_at = watch.found_at.take();
        let mut held: Vec<_> = watch.held.drain(..).collect();
        if let (false, Some(found_at)) = (problems.is_empty(), found_at) {
            let problems = problems.iter().map(ToString::to_string).collect();
            let entry = Entry { at: now(), event: Event::Tampered { problems, found_at } };
            held.push((NO_STACK.to_owned(), Actor::Keeper, entry));
        }
        for (stack, by, entry) in held {
            // What can't be written now is lost, as it would be with the process.
            let _ = self.add(watch, &stack, &by, &[Write::Entry(entry)]);
        }
    }

    /// Adds to the journal, if the store is what this process knows.
    pub(super) fn write(
        &self,
        stack: &str,
        by: &Actor,
        writes: &[Write],
    ) -> Result<(), StoreError> {
        let mut watch = self.watch();
        match self.look_with(&mut watch) {
            Ok(()) => self.add(&mut watch, stack, by, writes),
            Err(error) => hold(&mut watch, stack, by, writes).ok_or(error),
        }
    }

    fn add(
        &self,
        watch: &mut Watch,
        stack: &str,
        by: &Actor,
        writes: &[Write],
    ) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection
            .transaction_with_behavior(Immediate)
            .map_err(database("begin a transaction"))?;
        self.insert(&transaction, stack, by, writes)?;
        let (seq, hash) = tip(&transaction)?;
        transaction.commit().map_err(database("commit"))?;
        drop(connection);
        if seq > 0 {
            let head = head_of(seq, &hash);
            // It is allowed to be behind; what could not be written now is with the next entry.
            let _ = self.head.write(&head, &self.journal_key);
            watch.head = Some(head);
        }
        watch.looks = self.looks();
        Ok(())
    }

    /// Takes the store as it is, keeps a copy beside it, and writes that down.
    pub(super) fn accept_as_found(
        &self,
        by: &Actor,
        at: Timestamp,
        because: &str,
    ) -> Result<Vec<String>, StoreError> {
        let mut watch = self.watch();
        // As the files are now, whatever was known of them.
        watch.looks = Default::default();
        if self.look_with(&mut watch).is_ok() {
            return Ok(Vec::new());
        }
        if watch.problems.contains(&Problem::Key) {
            return Err(unsound(&watch));
        }
        let problems: Vec<String> = watch.problems.iter().map(ToString::to_string).collect();
        let mut connection = reopen(&self.directory.join("store.db"))?;
        let copy = self.directory.join(format!("store-as-found-{}.db", at.0));
        connection
            .execute("vacuum into ?1", [copy.to_string_lossy()])
            .map_err(database("copy what was found"))?;
        let transaction = connection.transaction().map_err(database("begin a transaction"))?;
        forget_unknown(&transaction)?;
        link_anew(&transaction, &self.journal_key)?;
        let event = Event::Accepted { problems: problems.clone(), because: because.to_owned() };
        self.insert(&transaction, NO_STACK, by, &[Write::Entry(Entry { at, event })])?;
        let (seq, hash) = tip(&transaction)?;
        transaction.commit().map_err(database("commit"))?;
        let head = head_of(seq, &hash);
        write_head_of(&self.head, &head, &self.journal_key)?;
        *self.lock() = connection;
        watch.head = Some(head);
        watch.found_at = None;
        watch.problems.clear();
        watch.looks = Default::default();
        // What can't be accepted, such as a generation that was altered, is still wrong.
        self.look_with(&mut watch)?;
        Ok(problems)
    }
}

/// Takes out generations that the journal knows nothing of. They stay in the copy.
fn forget_unknown(connection: &rusqlite::Connection) -> Result<(), StoreError> {
    let rows = chain::rows(connection)?;
    for (stack, number) in chain::generations(connection)?.into_keys() {
        let known = rows
            .iter()
            .any(|row| row.stack == stack && chain::committed(&row.event) == Some(number));
        if !known {
            let number = i64::try_from(number).unwrap_or(-1);
            connection
                .execute(
                    "delete from generation where stack = ?1 and number = ?2",
                    rusqlite::params![stack, number],
                )
                .map_err(database("take out a generation"))?;
        }
    }
    Ok(())
}

/// Holds entries that decide nothing; `None` where something of it decides.
fn hold(watch: &mut Watch, stack: &str, by: &Actor, writes: &[Write]) -> Option<()> {
    let entries: Option<Vec<&Entry>> = writes
        .iter()
        .map(|write| match write {
            Write::Entry(entry) if decides(&entry.event) == 0 => Some(entry),
            _ => None,
        })
        .collect();
    for entry in entries? {
        if watch.held.len() == HELD {
            watch.held.pop_front();
        }
        watch.held.push_back((stack.to_owned(), by.clone(), entry.clone()));
    }
    Some(())
}

fn unsound(watch: &Watch) -> StoreError {
    StoreError::Unsound(watch.problems.clone())
}

fn head_of(seq: i64, hash: &[u8]) -> Head {
    Head { entries: seq.unsigned_abs(), hash: hash.try_into().unwrap_or_default() }
}

pub(super) fn write_head(
    file: &HeadFile,
    seq: i64,
    hash: &[u8],
    key: &SigningKey,
) -> Result<(), StoreError> {
    write_head_of(file, &head_of(seq, hash), key)
}

fn write_head_of(file: &HeadFile, head: &Head, key: &SigningKey) -> Result<(), StoreError> {
    let failed = |source| StoreError::File { path: file.path().to_owned(), source };
    file.replace(head, key).map_err(failed)
}

/// Whether another attempt may succeed: somebody has the database locked, or the disk is full.
fn is_passing(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};

    error
        .sqlite_error_code()
        .is_some_and(|code| matches!(code, DatabaseBusy | DatabaseLocked | DiskFull))
}

fn text(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn now() -> Timestamp {
    use crate::clock::{Clock as _, SystemClock};

    SystemClock.now()
}
