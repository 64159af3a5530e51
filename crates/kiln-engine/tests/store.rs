//! The store against its suite, and against what may befall its file.

#![allow(clippy::unwrap_used, reason = "a test program: a failed expectation is a panic")]

use kiln_engine::Store as _;
use kiln_engine::actor::Actor;
use kiln_engine::journal::{Entry, Event, State};
use kiln_engine::key::RootKey;
use kiln_engine::secret::Secrets;
use kiln_engine::store::sqlite::SqliteStore;
use kiln_engine::store::{StoreError, Write};
use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::quantity::Timestamp;
use std::path::Path;
use std::sync::Arc;

fn open(directory: &Path) -> SqliteStore {
    let key = RootKey::open(directory).unwrap();
    SqliteStore::open(directory, &key).unwrap()
}

fn shop() -> StackName {
    "shop".parse().unwrap()
}

fn with_generations(directory: &Path, numbers: std::ops::RangeInclusive<u64>) -> SqliteStore {
    let store = open(directory);
    for number in numbers {
        let generation = Generation { number, ..Generation::none(shop()) };
        store.append(&shop(), &Actor::Keeper, &[Write::Generation(Arc::new(generation))]).unwrap();
    }
    store
}

#[test]
fn it_is_a_store() {
    let directory = tempfile::tempdir().unwrap();
    kiln_engine::conformance::store(|| open(directory.path()));
}

#[test]
fn of_the_counts_that_follow_demand_the_last_ones_are_kept_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_generations(directory.path(), 1..=1);
    let sized = |at, server: &str, count| {
        let component: ComponentId = server.parse().unwrap();
        let event = Event::Sized { component, was: 1, count, because: "5 of 1 each".to_owned() };
        Write::Entry(Entry { at: Timestamp(at), event })
    };
    let entries = [
        sized(1, "server.web", 2),
        sized(2, "server.api", 3),
        sized(3, "server.web", 4),
        sized(4, "server.web[\"a.b\"]", 5),
    ];
    store.append(&shop(), &Actor::Keeper, &entries).unwrap();
    let counts = |since| {
        let state = State::derive(&store.journal(&shop(), Timestamp(since)).unwrap()).unwrap();
        state.sized.values().map(|sized| sized.count).collect::<Vec<_>>()
    };
    assert_eq!(store.journal(&shop(), Timestamp(100)).unwrap().len(), 3);
    assert_eq!(store.journal(&shop(), Timestamp(0)).unwrap().len(), 4);
    assert_eq!(counts(100), [3, 4, 5]);
}

/// Runs SQL on the file as one who has broken in would.
fn tamper(directory: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[test]
fn altered_removed_and_swapped_generations_are_found() {
    let tampers = [
        "update generation set body = cast(replace(cast(body as text), ':2', ':9') as blob)
         where number = 2",
        "update generation set signature = zeroblob(64) where number = 2",
        "update generation set body = (select body from generation where number = 1) where number = 2",
        "delete from generation where number = 1",
    ];
    for sql in tampers {
        let directory = tempfile::tempdir().unwrap();
        drop(with_generations(directory.path(), 1..=3));
        tamper(directory.path(), sql);
        let read = open(directory.path()).generation(&shop(), 2);
        assert!(matches!(read, Err(StoreError::Altered { .. })), "{sql}: {read:?}");
    }
}

#[test]
fn another_roots_key_opens_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(with_generations(one.path(), 1..=1));
    let stranger = RootKey::open(two.path()).unwrap();
    let store = SqliteStore::open(one.path(), &stranger).unwrap();
    assert!(matches!(store.generation(&shop(), 1), Err(StoreError::Altered { .. })));
}

#[test]
fn a_store_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    tamper(directory.path(), "pragma user_version = 99");
    let key = RootKey::open(directory.path()).unwrap();
    let opened = SqliteStore::open(directory.path(), &key);
    assert!(matches!(opened, Err(StoreError::Format { found: 99, .. })));
}

#[test]
fn secrets_are_kept_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let (key, store) = (RootKey::open(directory.path()).unwrap(), open(directory.path()));
    let secrets = Secrets::new(&store, &key);
    let name: ComponentId = "secret.orders".parse().unwrap();
    let version = secrets.keep(&shop(), &name, b"correct horse").unwrap();
    assert_eq!(secrets.keep(&shop(), &name, b"correct horse").unwrap(), version);
    assert_ne!(secrets.keep(&shop(), &name, b"battery staple").unwrap(), version);
    let revealed = secrets.reveal(&shop(), &name, &version).unwrap();
    assert_eq!(revealed.as_deref(), Some(&b"correct horse"[..]));
    let generated = secrets.generate(&shop(), &name, 32).unwrap();
    assert_eq!(secrets.reveal(&shop(), &name, &generated).unwrap().unwrap().len(), 64);
    assert_eq!(secrets.reveal(&shop(), &name, "none").unwrap(), None);
    // The value stands in no file of the store.
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(13).any(|w| w == b"correct horse"));
    }
    tamper(directory.path(), "update secret set component = 'secret.other'");
    let other: ComponentId = "secret.other".parse().unwrap();
    let moved = secrets.reveal(&shop(), &other, &version);
    assert!(matches!(moved, Err(StoreError::Altered { .. })), "sealed for another name");
}

#[test]
fn several_processes_that_make_a_key_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| RootKey::open(directory.path()).unwrap().derive("a test")))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
}
