//! A store whose writes survive a crash once they are synced.

use std::sync::Arc;

use kiln_engine::Store;
use kiln_engine::actor::Actor;
use kiln_engine::journal::{Entry, Event};
use kiln_engine::store::{StoreError, Write};
use kiln_model::generation::Generation;
use kiln_model::name::StackName;
use kiln_model::quantity::Timestamp;

use crate::flaw::Flaw;
use crate::world::Shared;

/// The simulated store.
pub struct SimStore(pub Shared);

impl SimStore {
    fn writes(&self) -> Vec<Write> {
        let world = self.0.lock();
        world.durable.iter().chain(&world.promised).cloned().collect()
    }
}

impl Store for SimStore {
    fn stacks(&self) -> Result<Vec<StackName>, StoreError> {
        Ok(vec!["shop".parse().unwrap()])
    }

    fn generation(
        &self,
        _: &StackName,
        number: u64,
    ) -> Result<Option<Arc<Generation>>, StoreError> {
        Ok(self.writes().into_iter().find_map(|write| match write {
            Write::Generation(generation) if generation.number == number => Some(generation),
            _ => None,
        }))
    }

    fn numbers(&self, _: &StackName) -> Result<Vec<u64>, StoreError> {
        let generations = self.writes().into_iter().filter_map(|write| match write {
            Write::Generation(generation) => Some(generation.number),
            Write::Entry(_) => None,
        });
        Ok(generations.collect())
    }

    fn journal(&self, _: &StackName, _: Timestamp) -> Result<Vec<Entry>, StoreError> {
        let entries = self.writes().into_iter().filter_map(|write| match write {
            Write::Entry(entry) => Some(entry),
            Write::Generation(_) => None,
        });
        Ok(entries.collect())
    }

    fn append(&self, _: &StackName, _: &Actor, writes: &[Write]) -> Result<(), StoreError> {
        let mut world = self.0.lock();
        let refused = || StoreError::File {
            path: "simulated".into(),
            source: std::io::Error::other("the engine was killed"),
        };
        if world.crashed {
            return Err(refused());
        }
        // A crash at a write: before it reaches the disk, or after.
        let crash = world.crash_in == Some(1);
        if crash && world.chaos.one_in(2) {
            world.crash_now();
            self.0.crash.notify_one();
            return Err(refused());
        }
        for write in writes {
            if let Write::Entry(Entry { event, .. }) = write
                && !matches!(event, Event::Made { .. } | Event::Retired { .. })
            {
                world.say(format!("journal: {event:?}"));
            }
        }
        if world.flaw == Flaw::SkippedSync {
            world.promised.extend_from_slice(writes);
        } else {
            world.durable.extend_from_slice(writes);
        }
        if crash {
            world.crash_now();
            self.0.crash.notify_one();
            return Err(refused());
        }
        Ok(())
    }
}
