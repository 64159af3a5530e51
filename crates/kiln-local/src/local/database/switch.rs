//! Who takes writes: how one instance takes over from another, and what becomes of volumes.
//!
//! The order matters. The one that took writes so far is fenced, or ended where it cannot be, and
//! sends to nobody but the next one any more: another standby that got further than that could not
//! follow it. The next one has all that it had; it is promoted; and only then the head moves,
//! durably. Whatever
//! interrupts this leaves the head where all that was acknowledged is: nobody but Kiln has written
//! to the new one before the gateway has a table that names it, and that is set last.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_database::{EngineError, Session, engine};
use kiln_engine::TargetError;
use kiln_model::data::Role;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::route::RouteTable;

use super::place::Place;
use super::{DataLabels, Databases, lock, upgrade};
use crate::instance;
use crate::local::create::chain;
use crate::local::{Machine, now};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the end of sessions may take, at one that takes no writes any more.
const FENCING: Duration = Duration::from_secs(4);
/// How long one may take to receive what it lacks.
pub(super) const CATCHING_UP: Duration = Duration::from_secs(5);
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// How long a promotion may take, and what is declared after it.
const PROMOTION: Duration = Duration::from_secs(12);
const DECLARING: Duration = Duration::from_secs(20);

/// An instance that is asked.
pub(super) struct Party {
    pub(super) id: InstanceId,
    pub(super) place: Place,
    pub(super) labels: DataLabels,
}

impl Machine {
    /// Has each database's writes go where the table says, before clients do.
    pub(in crate::local) fn promote_all(&self, table: &RouteTable) -> Result<(), TargetError> {
        for route in &table.databases {
            if let Some(primary) = &route.primary {
                let promotion = self.promote(&table.stack, &route.component, primary);
                self.databases.runtime.block_on(promotion)?;
            }
        }
        self.databases.hurry(table);
        Ok(())
    }

    async fn promote(
        &self,
        stack: &StackName,
        component: &ComponentId,
        primary: &InstanceId,
    ) -> Result<(), TargetError> {
        let what = format!("have {primary} take the writes of {component}");
        let fail = |cause: String| TargetError::passing(&what, cause);
        let databases = &self.databases;
        let Some(party) = databases.party(stack, component, primary) else {
            return Err(fail("no such instance runs".to_owned()));
        };
        let head = party.place.head().map_err(|error| fail(error.to_string()))?;
        let volume = &party.labels.volume;
        let is_head = head.as_ref().is_some_and(|head| head.volume == *volume);
        if is_head
            && party.place.primary().as_ref() == Some(primary)
            && databases.last_role(primary) == Some(Role::Primary)
        {
            return Ok(());
        }
        let mut session = party.session().await.map_err(|error| fail(error.to_string()))?;
        let state = answered(session.state()).await.map_err(|error| fail(error.to_string()))?;
        match (state.role, head.filter(|_| !is_head)) {
            (Role::Primary, Some(head)) => {
                if party.place.branch(&head.volume) == party.labels.branch {
                    return Err(fail(format!(
                        "it takes writes already, but {} is where they went to last",
                        head.volume
                    )));
                }
                // Another branch of the data: what the two hold is meant to differ.
                self.fence_others(stack, component, primary).await.map_err(fail)?;
            }
            (Role::Primary, None) => {}
            (Role::Standby, _) if state.takes_over => {
                let position = self.fence_others(stack, component, primary).await;
                upgrade::take(&party, position.map_err(fail)?).await.map_err(fail)?;
            }
            (Role::Standby, _) => {
                // Other standbys connect to it from here on, so that none gets further than it.
                let before = party.place.primary();
                let link = |to| party.place.set_primary(to).map_err(|e| fail(e.to_string()));
                link(primary)?;
                let taken = async {
                    let mut position = self.fence_others(stack, component, primary).await?;
                    if position.is_none() && !is_head {
                        position = self.furthest_beside(stack, component, &party).await?;
                    }
                    take_over(&mut *session, position).await
                };
                if let Err(cause) = taken.await {
                    before.as_ref().map_or(Ok(()), link)?;
                    return Err(fail(cause));
                }
            }
        }
        party.place.set_head(volume, now()).map_err(|error| fail(error.to_string()))?;
        party.place.set_primary(primary).map_err(|error| fail(error.to_string()))?;
        databases.takers.remove(primary);
        let identity = &party.labels.identity;
        match within(DECLARING, session.declare(identity)).await {
            Ok(()) => databases.note_declared(primary),
            // Its data is whole, and clients are waiting; its monitor goes on trying.
            Err(error) => eprintln!("kiln: {primary}: what is declared is not there: {error}"),
        }
        self.prune_volumes(&party.place);
        Ok(())
    }

    /// Makes sure that no other instance of a database can acknowledge a write any more; how far
    /// the data of the one goes that could so far, where it tells.
    async fn fence_others(
        &self,
        stack: &StackName,
        component: &ComponentId,
        next: &InstanceId,
    ) -> Result<Option<u64>, String> {
        let mut position = None;
        for other in self.databases.others(stack, component, next) {
            let told = self.databases.last_role(&other.id);
            // One that is starting has not said it yet; what is on its disk decides what it will be.
            let on_disk = || engine(other.labels.identity.engine).role(&other.data()).ok();
            if told.or_else(on_disk) == Some(Role::Standby) {
                continue;
            }
            match other.fence(next).await {
                Ok(at) => position = position.max(at),
                Err(error) => {
                    eprintln!("kiln: {} is ended, as it cannot be fenced: {error}", other.id);
                    instance::kill(&self.cgroups, other.id.as_str())
                        .map_err(|error| format!("{}: {}", other.id, chain(&error)))?;
                }
            }
        }
        Ok(position)
    }

    /// How far the other standbys of its branch go, asked now. Where nobody is left to tell how far the
    /// one that took writes was, a standby must not take over from one that has more.
    async fn furthest_beside(
        &self,
        stack: &StackName,
        component: &ComponentId,
        next: &Party,
    ) -> Result<Option<u64>, String> {
        let mut position = None;
        for other in self.databases.others(stack, component, &next.id) {
            let told = self.databases.last_role(&other.id);
            if other.labels.branch != next.labels.branch || told != Some(Role::Standby) {
                continue;
            }
            // One that does not answer is taken for dead before long, and is asked no more.
            let silent = |error: EngineError| format!("{} is to be asked too: {error}", other.id);
            let mut session = other.session().await.map_err(silent)?;
            let state = answered(session.state()).await.map_err(silent)?;
            if state.role == Role::Standby && !state.takes_over {
                position = position.max(Some(state.position));
            }
        }
        Ok(position)
    }

    /// Removes volumes that nobody holds, but for the head, the one before it, and those in which
    /// other branches end.
    pub(super) fn prune_volumes(&self, place: &Place) {
        let Ok(head) = place.head() else { return };
        let kept = |id: &InstanceId| head.as_ref().is_some_and(|head| head.keeps(id));
        for id in place.list().unwrap_or_default().iter().filter(|id| !kept(id)) {
            if self.databases.holders(id).is_ok_and(|holders| holders.is_empty()) {
                // One that can't be removed now is met again at the next end.
                if let Err(error) = place.remove_volume(id) {
                    eprintln!("kiln: the volume {id} is not removed: {error}");
                }
            }
        }
    }
}

impl Databases {
    /// Removes what an instance that has been ended leaves: its socket, and its volume where all
    /// that is in it is elsewhere, too.
    pub(in crate::local) fn leave(&self, machine: &Machine, id: &InstanceId) -> io::Result<()> {
        for place in Place::with(&self.root, id)? {
            place.remove_socket(id)?;
            let kept = place.head()?.is_some_and(|head| head.keeps(id));
            if !kept && !place.is_whole(id)? {
                place.remove_volume(id)?;
            }
            machine.prune_volumes(&place);
            // While it is held no making begins that needs them.
            let _makings = lock(&self.makings);
            if !self.is_being_made(&place)? {
                place.remove_if_unused()?;
            }
        }
        Ok(())
    }

    /// Removes all the data of a database that nobody holds.
    pub(in crate::local) fn remove(
        &self,
        stack: &StackName,
        component: &ComponentId,
    ) -> Result<(), TargetError> {
        let what = format!("remove the data of {component}");
        let fail = |error: io::Error| TargetError::passing(&what, error);
        let place = self.place(stack, component);
        // While it is held no making begins that needs them.
        let _makings = lock(&self.makings);
        for volume in place.list().map_err(fail)? {
            if let Some(holder) = self.holders(&volume).map_err(fail)?.first() {
                return Err(fail(io::Error::other(format!("{volume} is held by {holder}"))));
            }
        }
        place.remove_all().map_err(fail)
    }

    fn party(&self, stack: &StackName, component: &ComponentId, id: &InstanceId) -> Option<Party> {
        self.parties(stack, component).into_iter().find(|party| party.id == *id)
    }

    fn others(&self, stack: &StackName, component: &ComponentId, than: &InstanceId) -> Vec<Party> {
        let mut parties = self.parties(stack, component);
        parties.retain(|party| party.id != *than);
        parties
    }

    /// The running instances of a database.
    fn parties(&self, stack: &StackName, component: &ComponentId) -> Vec<Party> {
        let monitors = lock(&self.monitors);
        let subjects = monitors.values().map(super::Monitor::subject);
        let own = subjects.filter(|it| it.stack == *stack && it.component == *component);
        own.map(|subject| Party {
            id: subject.id.clone(),
            place: self.place(stack, component),
            labels: subject.labels.clone(),
        })
        .collect()
    }

    /// What an instance did with writes when it was last asked.
    pub(super) fn last_role(&self, id: &InstanceId) -> Option<Role> {
        let monitors = lock(&self.monitors);
        monitors.get(id)?.told().state.map(|(state, _)| state.role)
    }

    /// Has an instance end the piece of its log that it writes to; its timeline, and how far its data goes.
    pub(super) fn switch_log(
        &self,
        place: &Place,
        primary: &InstanceId,
        wanted: &kiln_engine::backup::Wanted,
    ) -> Result<(u32, u64), String> {
        let data = wanted.creation.data.as_ref().ok_or("it has no data")?;
        let sockets = place.socket(primary);
        let asked = async {
            let mut session = answered(engine(data.identity.engine).connect(&sockets)).await?;
            answered(session.switch_log()).await
        };
        self.runtime.block_on(asked).map_err(|error| chain(&error))
    }

    fn note_declared(&self, id: &InstanceId) {
        if let Some(monitor) = lock(&self.monitors).get(id) {
            monitor.note_declared();
        }
    }
}

impl Party {
    async fn session(&self) -> Result<Box<dyn Session>, EngineError> {
        let sockets = self.place.socket(&self.id);
        answered(engine(self.labels.identity.engine).connect(&sockets)).await
    }

    fn data(&self) -> PathBuf {
        self.place.data(&self.labels.volume)
    }

    /// Where it takes writes: that it takes no more of anybody, and how far it is.
    async fn fence(&self, next: &InstanceId) -> Result<Option<u64>, EngineError> {
        let mut session = self.session().await?;
        match answered(session.state()).await?.role {
            Role::Standby => Ok(None),
            Role::Primary => within(FENCING, session.fence(next)).await.map(Some),
        }
    }
}

/// Waits until a standby has all up to a position, and has it take writes.
async fn take_over(session: &mut dyn Session, position: Option<u64>) -> Result<(), String> {
    let deadline = Instant::now() + CATCHING_UP;
    while let Some(wanted) = position {
        let state = answered(session.state()).await.map_err(|error| error.to_string())?;
        if state.position >= wanted {
            break;
        }
        if Instant::now() >= deadline {
            let lacks = wanted - state.position;
            return Err(format!("it lacks {lacks} bytes of what was written before it"));
        }
        tokio::time::sleep(LOOK).await;
    }
    within(PROMOTION, session.promote()).await.map_err(|error| error.to_string())
}

pub(super) async fn answered<T>(answer: kiln_database::Answer<'_, T>) -> Result<T, EngineError> {
    within(ANSWER, answer).await
}

pub(super) async fn within<T>(
    bound: Duration,
    answer: kiln_database::Answer<'_, T>,
) -> Result<T, EngineError> {
    let late = |_| EngineError::Silent(format!("no answer within {bound:?}"));
    tokio::time::timeout(bound, answer).await.map_err(late)?
}
