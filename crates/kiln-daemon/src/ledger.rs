//! What the store says of a stack: its generations with their fates, and its journal.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_engine::journal::{Entry, Event, Illegal, Record, State};
use kiln_engine::key::RootKey;
use kiln_engine::store::sqlite::SqliteStore;
use kiln_engine::store::{Audit, Store as _, StoreError};
use kiln_model::generation::Generation;
use kiln_model::name::StackName;
use kiln_model::quantity::Timestamp;

use crate::root::Root;

/// The store of a root, for reading.
pub struct Ledger {
    store: SqliteStore,
    key: RootKey,
    /// The generation that was read last: a large one is asked for more than once.
    last: Mutex<Option<Arc<Generation>>>,
}

/// Why the store can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The root can't be looked into.
    #[error("{path} cannot be read")]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal does not make sense.
    #[error("the journal of {stack} is damaged; restore the store from a backup")]
    Journal {
        /// The stack.
        stack: StackName,
        /// How it shows.
        source: Illegal,
    },
}

/// What became of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is being rolled out.
    RollingOut,
    /// It serves: it is the newest that became active.
    Active,
    /// It served once.
    Retired,
    /// It was given up.
    Abandoned(kiln_engine::journal::Abandonment),
}

/// One generation and what became of it.
#[derive(Debug, Clone)]
pub struct Chapter {
    /// The generation.
    pub generation: Arc<Generation>,
    /// Its fate.
    pub fate: Fate,
}

impl LedgerError {
    /// The way out.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Store(StoreError::Unsound(_) | StoreError::Altered { .. }) => Some(
                "what runs serves on; put ROOT/store back from a backup, the file `key` with it",
            ),
            Self::Unreadable { path, .. } if path.ends_with("key") => {
                Some("what runs serves on; put ROOT/store/key back from a backup")
            }
            _ => None,
        }
    }
}

impl Ledger {
    /// The store of `root`; `None` where nothing was ever applied.
    pub fn open(root: &Root) -> Result<Option<Self>, LedgerError> {
        let directory = root.store();
        let path = directory.join("store.db");
        let exists = path.try_exists();
        let there = exists.map_err(|source| LedgerError::Unreadable { path, source })?;
        // A head without its database says that there was one.
        if !there && !directory.join("head").exists() {
            return Ok(None);
        }
        let key = RootKey::open(&directory)
            .map_err(|source| LedgerError::Unreadable { path: directory.join("key"), source })?;
        let store = SqliteStore::open_existing(&directory, &key)?;
        Ok(store.map(|store| Self { store, key, last: Mutex::default() }))
    }

    /// The store of `root`, made if there is none.
    pub fn create(root: &Root) -> Result<Self, LedgerError> {
        let directory = root.store();
        let key = RootKey::open(&directory)
            .map_err(|source| LedgerError::Unreadable { path: directory.join("key"), source })?;
        let store = SqliteStore::open(&directory, &key)?;
        Ok(Self { store, key, last: Mutex::default() })
    }

    /// The store itself.
    pub fn store(&self) -> &SqliteStore {
        &self.store
    }

    /// The key of the root.
    pub fn key(&self) -> &RootKey {
        &self.key
    }

    /// Store and key, for the daemon.
    pub fn into_parts(self) -> (SqliteStore, RootKey) {
        (self.store, self.key)
    }

    /// The stacks that were ever applied, in order.
    pub fn stacks(&self) -> Result<Vec<StackName>, LedgerError> {
        Ok(self.store.stacks()?)
    }

    /// All entries of a stack's journal, in order.
    pub fn journal(&self, stack: &StackName) -> Result<Vec<Entry>, LedgerError> {
        Ok(self.store.journal(stack, Timestamp(0))?)
    }

    /// All entries of a stack's journal, or of everything, with who stands behind each.
    pub fn records(&self, stack: Option<&StackName>) -> Result<Vec<Record>, LedgerError> {
        Ok(self.store.records(stack)?)
    }

    /// Whether all entries and generations are what was written: every hash and signature.
    pub fn audit(&self) -> Result<Audit, LedgerError> {
        Ok(self.store.audit()?)
    }

    /// The state that the journal leads to.
    pub fn state(&self, stack: &StackName) -> Result<State, LedgerError> {
        let entries = self.store.journal(stack, Timestamp(u64::MAX >> 1))?;
        State::derive(&entries)
            .map_err(|source| LedgerError::Journal { stack: stack.clone(), source })
    }

    /// A generation.
    pub fn generation(
        &self,
        stack: &StackName,
        number: u64,
    ) -> Result<Option<Arc<Generation>>, LedgerError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref().filter(|g| g.stack == *stack && g.number == number);
        if let Some(known) = known {
            return Ok(Some(known.clone()));
        }
        let found = self.store.generation(stack, number)?;
        last.clone_from(&found);
        Ok(found)
    }

    /// The generation that serves, if any.
    pub fn active(&self, stack: &StackName) -> Result<Option<Arc<Generation>>, LedgerError> {
        match self.state(stack)?.active {
            Some(number) => self.generation(stack, number),
            None => Ok(None),
        }
    }

    /// All generations with their fates, oldest first.
    pub fn chapters(&self, stack: &StackName) -> Result<Vec<Chapter>, LedgerError> {
        let entries = self.store.journal(stack, Timestamp(u64::MAX >> 1))?;
        let state = State::derive(&entries)
            .map_err(|source| LedgerError::Journal { stack: stack.clone(), source })?;
        let mut chapters = Vec::new();
        for number in self.store.numbers(stack)? {
            let Some(generation) = self.store.generation(stack, number)? else { continue };
            chapters.push(Chapter { generation, fate: fate(number, &state, &entries) });
        }
        Ok(chapters)
    }

    /// The newest generation before the active one that served with another content: where a
    /// rollback without a number goes.
    pub fn before_active(&self, stack: &StackName) -> Result<Option<Arc<Generation>>, LedgerError> {
        let Some(active) = self.active(stack)? else { return Ok(None) };
        let older = self.chapters(stack)?.into_iter().rev().find(|chapter| {
            chapter.fate == Fate::Retired
                && chapter.generation.number < active.number
                && chapter.generation.content != active.content
        });
        Ok(older.map(|chapter| chapter.generation))
    }
}

fn fate(number: u64, state: &State, entries: &[Entry]) -> Fate {
    let given_up = entries.iter().find_map(|entry| match &entry.event {
        Event::Abandoned { generation, reason } if *generation == number => Some(reason.clone()),
        _ => None,
    });
    if let Some(reason) = given_up {
        Fate::Abandoned(reason)
    } else if state.rollout.as_ref().is_some_and(|r| r.generation == number) {
        Fate::RollingOut
    } else if state.active == Some(number) {
        Fate::Active
    } else {
        Fate::Retired
    }
}

#[cfg(test)]
mod tests {
    use kiln_engine::actor::Actor;
    use kiln_engine::store::Write;
    use kiln_model::fixture::{generation, image};

    use super::*;

    fn write(ledger: &Ledger, number: u64, inputs: &str, ending: Event) {
        let generation = generation(number, vec![image("web", inputs)]);
        let stack = generation.stack.clone();
        let committed = Event::Committed { generation: number, deadline: Timestamp(99) };
        let entries =
            [committed, ending].map(|event| Write::Entry(Entry { at: Timestamp(number), event }));
        let mut writes = vec![Write::Generation(Arc::new(generation))];
        writes.extend(entries);
        ledger.store.append(&stack, &Actor::Keeper, &writes).unwrap();
    }

    #[test]
    fn generations_have_fates_and_a_rollback_a_goal() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let root = Root::new(dir.path());
        assert!(Ledger::open(&root).unwrap().is_none());
        let ledger = Ledger::create(&root).unwrap();
        let stack = "shop".parse().unwrap();
        let reason = kiln_engine::journal::Abandonment {
            kind: kiln_engine::journal::AbandonKind::Deadline,
            blame: Vec::new(),
        };
        write(&ledger, 1, "v1", Event::Active { generation: 1 });
        assert!(ledger.before_active(&stack).unwrap().is_none());
        write(&ledger, 2, "v2", Event::Active { generation: 2 });
        write(&ledger, 3, "v3", Event::Abandoned { generation: 3, reason: reason.clone() });
        write(&ledger, 4, "v2", Event::Active { generation: 4 });
        let fates: Vec<Fate> =
            ledger.chapters(&stack).unwrap().into_iter().map(|c| c.fate).collect();
        assert_eq!(fates, [Fate::Retired, Fate::Retired, Fate::Abandoned(reason), Fate::Active]);
        let goal = ledger.before_active(&stack).unwrap().unwrap();
        assert_eq!(goal.number, 1, "generation 2 has the same content as 4");
    }
}
