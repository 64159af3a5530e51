//! What one who has broken in may do to a store, and that each of it is found, told and not acted on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kiln_engine::Store as _;
use kiln_engine::actor::{Actor, Peer};
use kiln_engine::journal::{Entry, Event};
use kiln_engine::key::RootKey;
use kiln_engine::store::sqlite::SqliteStore;
use kiln_engine::store::{Problem, StoreError, Write};
use kiln_model::generation::Generation;
use kiln_model::name::StackName;
use kiln_model::quantity::Timestamp;

fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(directory, &RootKey::open(directory).unwrap()).unwrap()
}

fn shop() -> StackName {
    "shop".parse().unwrap()
}

fn somebody() -> Actor {
    Actor::Peer(Box::new(Peer {
        uid: 1000,
        pid: 7,
        program: "/usr/bin/kiln".to_owned(),
        login: None,
        terminal: None,
        follows: None,
    }))
}

fn commit(store: &SqliteStore, number: u64) -> Result<(), StoreError> {
    let generation = Arc::new(Generation { number, ..Generation::none(shop()) });
    let entry = |event| Write::Entry(Entry { at: Timestamp(number), event });
    let committed = Event::Committed { generation: number, deadline: Timestamp(99) };
    store.append(&shop(), &somebody(), &[Write::Generation(generation), entry(committed)])?;
    store.append(&shop(), &Actor::Keeper, &[entry(Event::Active { generation: number })])
}

fn note(store: &SqliteStore) -> Result<(), StoreError> {
    let event = Event::Unfollowed { id: "abc".to_owned() };
    store.note(&Actor::Keeper, &Entry { at: Timestamp(9), event })
}

/// A store with six entries: three generations, committed and active.
fn six(directory: &Path) -> SqliteStore {
    let store = open(directory);
    (1..=3).for_each(|number| commit(&store, number).unwrap());
    store
}

/// Runs SQL on the file as one who has broken in would.
fn tamper(directory: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// The whole state, WAL included, in one file.
fn copy(directory: &Path, to: &Path) {
    tamper(directory, &format!("vacuum into '{}'", to.display()));
}

fn put_back(directory: &Path, from: &Path) {
    // A file of its own, as a backup is put back: not over one that a process has open.
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(directory.join(name));
    }
    fs::copy(from, directory.join("store.db")).unwrap();
}

#[test]
fn what_was_written_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let store = six(directory.path());
    let audit = store.audit().unwrap();
    assert_eq!((audit.entries, audit.problems.as_slice()), (6, &[][..]));
    drop(store);
    let store = open(directory.path());
    store.check().unwrap();
    note(&store).unwrap();
    assert_eq!(store.audit().unwrap().entries, 7);
    let by: Vec<Actor> = store.records(None).unwrap().into_iter().map(|r| r.by).collect();
    assert_eq!(by[..2], [somebody(), Actor::Keeper]);
}

/// What is done to the journal, and what is told of it.
const JOURNAL: &[(&str, &[&str])] = &[
    ("update journal set event = replace(event, '2', '9') where seq = 3", &["altered 3-3"]),
    ("update journal set at = at + 1 where seq = 4", &["altered 4-4"]),
    ("update journal set by = '\"keeper\"' where seq = 1", &["altered 1-1"]),
    ("update journal set stack = 'other' where seq = 6", &["altered 6-6"]),
    ("update journal set decides = 0 where seq = 5", &["altered 5-5"]),
    ("update journal set signature = zeroblob(64) where seq = 6", &["altered 6-6"]),
    ("delete from journal where seq = 1", &["removed 1-1"]),
    ("delete from journal where seq in (2, 4)", &["removed 2-2", "removed 4-4"]),
    ("delete from journal where seq > 4", &["truncated 5-6"]),
    ("delete from journal", &["truncated 1-6"]),
    (
        "update journal set seq = -1 where seq = 2; update journal set seq = 2 where seq = 4;
         update journal set seq = 4 where seq = -1",
        &["reordered 2-2", "reordered 4-4"],
    ),
    (
        "delete from journal where seq = 2; update journal set seq = seq - 1 where seq > 2",
        &["reordered 2-2", "reordered 3-3", "reordered 4-4", "reordered 5-5", "truncated 6-6"],
    ),
    (
        "insert into journal select 7, stack, at, decides, event, by, anchor, before, hash, signature
         from journal where seq = 6",
        &["reordered 7-7"],
    ),
    ("delete from generation where number = 3", &["generation"]),
    ("update generation set body = x'00' where number = 1", &["generation"]),
];

fn kinds(problems: &[Problem]) -> Vec<String> {
    let kind = |problem: &Problem| match problem.entries() {
        Some((from, to)) => format!("{} {from}-{to}", problem.kind()),
        None => problem.kind().to_owned(),
    };
    problems.iter().map(kind).collect()
}

#[test]
fn whatever_is_done_to_the_journal_is_found_and_named() {
    for (sql, expected) in JOURNAL {
        let directory = tempfile::tempdir().unwrap();
        let store = six(directory.path());
        tamper(directory.path(), sql);
        let audit = store.audit().unwrap();
        assert_eq!(kinds(&audit.problems), *expected, "{sql}");
        drop(store);
        let fresh = open(directory.path());
        assert!(
            matches!(fresh.check(), Err(StoreError::Unsound(_))),
            "{sql}: a daemon that begins"
        );
        assert!(matches!(commit(&fresh, 4), Err(StoreError::Unsound(_))), "{sql}");
    }
}

#[test]
fn a_running_daemon_decides_nothing_on_what_was_tampered_with_and_loses_nothing() {
    for (sql, _) in JOURNAL.iter().filter(|(sql, _)| !sql.contains("body")) {
        let directory = tempfile::tempdir().unwrap();
        let store = six(directory.path());
        let copied = directory.path().join("backup");
        copy(directory.path(), &copied);
        tamper(directory.path(), sql);
        assert!(matches!(commit(&store, 4), Err(StoreError::Unsound(_))), "{sql}");
        note(&store).expect("what decides nothing is held");
        assert_eq!(store.records(None).unwrap().iter().filter(|r| r.number > 7).count(), 0);
        assert!(store.sound().is_err() && store.check().is_err(), "{sql}");
        put_back(directory.path(), &copied);
        store.check().unwrap_or_else(|error| panic!("{sql}: put back, and {error}"));
        commit(&store, 4).unwrap();
        let audit = store.audit().unwrap();
        assert_eq!((audit.entries, audit.problems.as_slice()), (10, &[][..]), "{sql}");
        let events: Vec<Event> =
            store.records(None).unwrap().into_iter().map(|record| record.entry.event).collect();
        assert!(matches!(events[6], Event::Unfollowed { .. }), "what was held: {events:?}");
        assert!(matches!(events[7], Event::Tampered { .. }), "what was found: {events:?}");
    }
}

#[test]
fn an_older_copy_is_found_by_the_head_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = six(directory.path());
    let older = directory.path().join("older");
    copy(directory.path(), &older);
    commit(&store, 4).unwrap();
    drop(store);
    put_back(directory.path(), &older);
    let store = open(directory.path());
    assert_eq!(kinds(&store.audit().unwrap().problems), ["truncated 7-8"]);
    assert!(store.check().is_err());
}

#[test]
fn an_older_copy_with_its_head_is_found_by_a_daemon_that_runs() {
    let directory = tempfile::tempdir().unwrap();
    let store = six(directory.path());
    let older = directory.path().join("older");
    copy(directory.path(), &older);
    let head = fs::read(directory.path().join("head")).unwrap();
    commit(&store, 4).unwrap();
    put_back(directory.path(), &older);
    fs::write(directory.path().join("head"), head).unwrap();
    let Err(StoreError::Unsound(problems)) = store.check() else { panic!("it is not found") };
    assert_eq!(kinds(&problems), ["truncated 7-8"]);
    assert!(commit(&store, 5).is_err());
    // Without the daemon's memory, nothing on the disk tells it: the documentation says so.
    drop(store);
    open(directory.path()).check().unwrap();
}

#[test]
fn what_is_deleted_or_replaced_beside_the_database_is_found() {
    type Deed = fn(&Path);
    let deeds: [(&str, Deed, &str); 5] = [
        ("the head", |d| fs::remove_file(d.join("head")).unwrap(), "head"),
        ("a head of nonsense", |d| fs::write(d.join("head"), "7").unwrap(), "head"),
        ("the key", |d| fs::remove_file(d.join("key")).unwrap(), "key"),
        ("another key", |d| fs::write(d.join("key"), [7; 32]).unwrap(), "key"),
        ("the database", |d| fs::remove_file(d.join("store.db")).unwrap(), "database"),
    ];
    for (what, deed, expected) in deeds {
        let directory = tempfile::tempdir().unwrap();
        let store = six(directory.path());
        deed(directory.path());
        let Err(StoreError::Unsound(problems)) = store.check() else { panic!("{what}") };
        assert_eq!(kinds(&problems), [expected], "{what}");
        assert!(commit(&store, 4).is_err(), "{what}");
        drop(store);
        // A daemon that begins: no new key, no new database, nothing kept.
        let begun = RootKey::open(directory.path())
            .map_err(|e| e.to_string())
            .and_then(|key| SqliteStore::open(directory.path(), &key).map_err(|e| e.to_string()))
            .and_then(|store| store.check().map_err(|e| e.to_string()));
        assert!(begun.is_err(), "{what}");
    }
}

#[test]
fn bytes_of_the_file_that_are_overwritten_are_found() {
    let directory = tempfile::tempdir().unwrap();
    drop(six(directory.path()));
    let path = directory.path().join("store.db");
    let mut bytes = fs::read(&path).unwrap();
    let found = bytes.windows(10).position(|window| window == b"\"committed").unwrap();
    bytes[found + 2] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(open(directory.path()).check().is_err());
}

#[test]
fn a_store_is_accepted_as_it_is_by_somebody_who_says_why() {
    for sql in ["delete from journal where seq > 4", "update journal set at = 77 where seq = 2"] {
        let directory = tempfile::tempdir().unwrap();
        let store = six(directory.path());
        tamper(directory.path(), sql);
        let problems = store.accept(&somebody(), Timestamp(50), "a drill").unwrap();
        assert!(!problems.is_empty());
        let audit = store.audit().unwrap();
        assert_eq!(audit.problems, [], "{sql}");
        let last = store.records(None).unwrap().pop().unwrap();
        assert_eq!(last.by, somebody());
        let because = "a drill".to_owned();
        assert_eq!(last.entry.event, Event::Accepted { problems, because });
        let copy = directory.path().join("store-as-found-50.db");
        assert!(copy.exists(), "the evidence is kept");
        assert!(store.accept(&somebody(), Timestamp(51), "again").unwrap().is_empty());
        note(&store).unwrap();
    }
}

#[test]
fn a_generation_that_was_tampered_with_is_never_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let store = six(directory.path());
    tamper(directory.path(), "update generation set body = x'00' where number = 3");
    drop(store);
    let store = open(directory.path());
    assert!(store.accept(&somebody(), Timestamp(50), "a drill").is_err());
    assert!(store.check().is_err());
}

#[test]
fn a_store_of_the_first_format_gets_its_chain() {
    let directory = tempfile::tempdir().unwrap();
    drop(six(directory.path()));
    tamper(
        directory.path(),
        "create table old as select seq, stack, at, decides, event from journal;
         drop table journal;
         create table journal (
             seq integer primary key, stack text not null, at integer not null,
             decides integer not null, event text not null
         ) strict;
         insert into journal select * from old; drop table old; pragma user_version = 1",
    );
    fs::remove_file(directory.path().join("head")).unwrap();
    let store = open(directory.path());
    store.check().unwrap();
    let audit = store.audit().unwrap();
    assert_eq!((audit.entries, audit.problems.as_slice()), (6, &[][..]));
}
