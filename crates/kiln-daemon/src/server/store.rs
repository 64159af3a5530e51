//! The daemon's eye on its store: whether it is what was written, and what is done where it is not.

use std::sync::Weak;
use std::time::Duration;

use kiln_engine::actor::{Actor, Peer};
use kiln_engine::alarm::Raised;
use kiln_engine::engine::Refusal;
use kiln_engine::journal::{Entry, Event};
use kiln_engine::{Clock, Store, Target};
use kiln_model::alarm::{Alarm, Cause};
use kiln_model::digest::Digest;

use crate::api::{Fault, VERSION};

use super::{Daemon, chain};

/// From one look at the store's files to the next.
const EVERY: Duration = Duration::from_millis(100);

/// The way out of a store that is not what was written.
pub(super) const HELP: &str = "what runs serves on, and nothing is decided: `kiln events --verify` \
     lists what is wrong; end the daemon and put ROOT/store back from a backup, or, where what is there is right, \
     take it with `kiln events --accept REASON`";

impl<T: Target, C: Clock, S: Store> Daemon<T, C, S> {
    /// Who a client is.
    pub(super) fn actor(&self, mut peer: Peer) -> Actor {
        let followers = self.followers.get();
        peer.follows = followers.and_then(|followers| followers.of_process(peer.pid));
        Actor::Peer(Box::new(peer))
    }

    /// Writes down what belongs to no stack.
    pub(super) fn note(&self, by: &Actor, event: Event) -> Result<(), Fault> {
        let entry = Entry { at: self.engine.clock.now(), event };
        Ok(self.engine.store.note(by, &entry).map_err(Refusal::from)?)
    }

    /// Writes down that this daemon has begun, and which program it is.
    fn begin(&self) {
        let program = std::fs::read("/proc/self/exe").map(|bytes| Digest::of(&bytes).to_string());
        let program = program.unwrap_or_default();
        let (version, pid) = (VERSION.to_owned(), std::process::id());
        let begun = Event::Began { version, program, pid };
        if let Err(fault) = self.note(&Actor::Keeper, begun) {
            self.log.line(&format!("its begin is not written down: {}", fault.message));
        }
    }

    /// Tells whomever the stacks name that the store is not what was written. What they name is known
    /// from before; in such a store nothing more is written down.
    fn sound_alarm(&self, problem: &str) {
        let at = self.engine.clock.now();
        for handle in self.keepers().values() {
            let Some(latest) = handle.snapshot() else { continue };
            let alarm = Alarm { cause: Cause::Tampered, component: None, what: problem.to_owned() };
            let (stack, hooks) = (latest.desired.stack.clone(), &latest.desired.content.hooks);
            let (generation, hooks) = (latest.state.aim(), hooks.clone());
            self.engine.target.alarm(Raised { at, stack, generation, alarm, hooks });
        }
    }

    /// Keeps every stack that the store knows, where the store is sound; else none.
    pub(super) fn keep_all(&self) {
        let stacks = self.engine.store.check().and_then(|()| self.engine.store.stacks());
        let stacks = match stacks {
            Ok(stacks) => stacks,
            Err(error) => {
                self.log.line(&format!("no stack is kept: {}; {HELP}", chain(&error)));
                return;
            }
        };
        for stack in stacks {
            // A stack whose journal is damaged must not keep the others from being kept.
            if let Err(refusal) = self.known_or_new(&stack) {
                self.log.line(&format!("{stack} is not kept: {}", chain(&refusal)));
            }
        }
    }
}

/// Looks at the store again and again, as long as there is a daemon.
pub(super) async fn watch<T: Target, C: Clock, S: Store>(daemon: Weak<Daemon<T, C, S>>) {
    // Reading the whole program takes a while, and nobody waits for it.
    let begin = |daemon: std::sync::Arc<Daemon<T, C, S>>| daemon.begin();
    if let Some(daemon) = daemon.upgrade() {
        drop(tokio::task::spawn_blocking(move || begin(daemon)).await);
    }
    let mut told: Option<String> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(daemon) = daemon.upgrade() else { return };
        let store = daemon.engine.store.clone();
        let looked = tokio::task::spawn_blocking(move || store.check()).await;
        let Ok(looked) = looked else { return };
        let problem = looked.err().map(|error| chain(&error));
        if problem == told {
            continue;
        }
        if let Some(problem) = &problem {
            daemon.log.line(&format!("alarm: {problem}; {HELP}"));
            daemon.sound_alarm(problem);
        } else {
            daemon.log.line("the store is what was written again");
            daemon.keep_all();
        }
        told = problem;
    }
}
