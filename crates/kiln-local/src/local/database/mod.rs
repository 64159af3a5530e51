//! Databases on this machine: their volumes and sockets, how their instances are made, what these
//! say of themselves, and how one takes over from another.

pub(super) mod backup;
mod copy;
mod follow;
mod making;
mod monitor;
mod place;
mod program;
mod stray;
mod switch;
mod upgrade;
mod used;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_database::State;
use kiln_engine::target::Measured;
use kiln_model::data::{DataOrigin, ObservedData, ObservedVolume, Role, Said};
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::{ObservedInstance, Verdict};
use kiln_model::plan::{DataCreation, InstanceCreation};
use kiln_model::quantity::Timestamp;
use kiln_model::route::RouteTable;
use kiln_model::spec::database::DatabaseIdentity;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::events::Changes;
use super::labels::InstanceLabels;
pub(super) use making::create;

use follow::Follows;
use making::Making;
use monitor::{Monitor, Subject};
use place::Place;
use stray::Strays;
use upgrade::{Takers, is_taking_over};
use used::Used;

/// How long an answer is waited for that is asked for at once.
const FRESH: Duration = Duration::from_millis(50);

/// What makes an instance one of a database, kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DataLabels {
    /// The volume that it holds.
    pub(super) volume: InstanceId,
    /// The number of that volume's branch.
    #[serde(default)]
    pub(super) branch: u64,
    /// What the database is.
    pub(super) identity: DatabaseIdentity,
    /// What it began with; not known of those of older versions of Kiln.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<DataOrigin>,
}

impl DataLabels {
    pub(super) fn of(creation: &InstanceCreation) -> Option<Self> {
        let DataCreation { identity, origin, branch } = creation.data.as_ref()?;
        let volume = match origin {
            DataOrigin::Volume { volume } => volume,
            DataOrigin::Empty
            | DataOrigin::Standby { .. }
            | DataOrigin::Upgrade { .. }
            | DataOrigin::Branch { .. } => &creation.id,
        };
        let (volume, origin) = (volume.clone(), Some(origin.clone()));
        Some(Self { volume, branch: *branch, identity: identity.clone(), origin })
    }

    /// What is shown of it before it says anything.
    pub(super) fn observed(self) -> ObservedData {
        ObservedData { volume: self.volume, branch: self.branch, origin: self.origin, said: None }
    }

    /// Whether the instance takes the data over from one of an older major version.
    pub(super) fn takes_over(&self) -> bool {
        matches!(self.origin, Some(DataOrigin::Upgrade { .. }))
    }
}

/// The databases of one root.
pub(super) struct Databases {
    root: PathBuf,
    changes: Arc<Changes>,
    runtime: Handle,
    monitors: Mutex<BTreeMap<InstanceId, Monitor>>,
    makings: Mutex<BTreeMap<InstanceId, Arc<Making>>>,
    /// Databases whose clients are held: what is measured of them is waited for.
    hurried: Mutex<BTreeSet<(StackName, ComponentId)>>,
    follows: Arc<Follows>,
    takers: Arc<Takers>,
    /// Instances that offer nothing any more.
    withdrawn: Arc<Mutex<BTreeSet<InstanceId>>>,
    strays: Strays,
    used: Used,
    backups: backup::Backups,
}

impl Databases {
    /// Must be called inside a tokio runtime: instances are asked on it.
    pub(super) fn new(root: &Path, changes: Arc<Changes>) -> Self {
        Self {
            root: root.to_owned(),
            changes,
            runtime: Handle::current(),
            monitors: Mutex::default(),
            makings: Mutex::default(),
            hurried: Mutex::default(),
            follows: Arc::default(),
            takers: Arc::default(),
            withdrawn: Arc::default(),
            strays: Strays::default(),
            used: Used::default(),
            backups: backup::Backups::default(),
        }
    }

    fn place(&self, stack: &StackName, component: &ComponentId) -> Place {
        Place::of(&self.root, stack, component)
    }

    /// What a stack's databases raise alarms for: all since this was last asked.
    pub(super) fn alarms(&self, stack: &StackName) -> Vec<kiln_model::alarm::Alarm> {
        self.backups.alarms(stack)
    }

    /// The volume that an instance which runs holds.
    fn volume_of(&self, instance: &InstanceId) -> Option<InstanceId> {
        let monitors = lock(&self.monitors);
        monitors.get(instance).map(|it| it.subject().labels.volume.clone())
    }

    /// Whether an instance took writes when it was last asked.
    fn takes_writes(&self, instance: &InstanceId) -> bool {
        self.last_role(instance) == Some(Role::Primary)
    }

    /// Has a running instance of a database asked from now on.
    pub(super) fn watch(&self, id: &InstanceId, labels: &InstanceLabels) {
        let Some(data) = &labels.data else { return };
        let mut monitors = lock(&self.monitors);
        if monitors.contains_key(id) {
            return;
        }
        let place = self.place(&labels.stack, &labels.component);
        if is_taking_over(&place, data) {
            self.takers.add(id, &labels.stack, &labels.component);
        }
        let subject = Subject {
            root: self.root.clone(),
            id: id.clone(),
            stack: labels.stack.clone(),
            component: labels.component.clone(),
            sockets: place.socket(id),
            data: place.data(&data.volume),
            place,
            labels: data.clone(),
            alarm: self.changes.of(&labels.stack),
            follows: self.follows.clone(),
        };
        let hurried = self.is_hurried(&labels.stack, &labels.component);
        monitors.insert(id.clone(), Monitor::start(&self.runtime, subject, hurried));
    }

    /// Whether an instance is one of a database, and so is asked in another way than servers.
    pub(super) fn knows(&self, id: &InstanceId) -> bool {
        lock(&self.monitors).contains_key(id) || lock(&self.makings).contains_key(id)
    }

    /// Stops asking an instance: it is about to be ended.
    pub(super) fn forget(&self, id: &InstanceId) {
        lock(&self.monitors).remove(id);
    }

    /// What instances say of themselves and what is on disk, put into `measured`.
    pub(super) async fn judge(&self, stack: &StackName, measured: &mut Measured) {
        if let Some(table) = &measured.table {
            self.hurry(table);
        }
        lock(&self.monitors).retain(|id, monitor| {
            monitor.subject().stack != *stack
                || measured.instances.iter().any(|i| i.id == *id && i.is_running())
        });
        {
            let monitors = lock(&self.monitors);
            let ready = |monitor: &Monitor| matches!(monitor.told().verdict, Verdict::Ready { .. });
            let answers = |id: &_| monitors.get(id).is_some_and(ready);
            self.follows.keep(|id| monitors.contains_key(id), answers);
            self.strays.keep(|id| monitors.contains_key(id));
        }
        self.withdraw_offers(stack);
        self.freshen(stack).await;
        let monitors = lock(&self.monitors);
        for instance in measured.instances.iter_mut().filter(|instance| instance.is_running()) {
            let Some(monitor) = monitors.get(&instance.id) else { continue };
            let told = monitor.told();
            instance.health = told.verdict.clone();
            instance.drift.extend(told.drift.iter().cloned());
            instance.data = Some(ObservedData {
                volume: monitor.subject().labels.volume.clone(),
                origin: monitor.subject().labels.origin.clone(),
                branch: monitor.subject().labels.branch,
                said: told.state.as_ref().map(|(state, at)| self.said(&instance.id, state, *at)),
            });
        }
        self.find_strays(stack, measured);
    }

    /// Takes standbys that can't follow who takes writes for dead.
    fn find_strays(&self, stack: &StackName, measured: &mut Measured) {
        let said = |i: &ObservedInstance| i.data.as_ref()?.said.clone();
        let ready = measured.instances.iter().filter(|i| i.is_ready());
        let primaries: Vec<_> = ready
            .filter_map(|i| Some((i.component.clone(), i.id.clone(), said(i)?)))
            .filter(|(_, _, said)| said.role == Role::Primary)
            .collect();
        // One that receives rows may take long over what is one change in the log.
        let by_rows = |i: &ObservedInstance| {
            let origin = i.data.as_ref().and_then(|data| data.origin.as_ref());
            matches!(origin, Some(DataOrigin::Upgrade { .. }))
        };
        for instance in measured.instances.iter_mut().filter(|i| i.is_ready() && !by_rows(i)) {
            let Some(standby) = said(instance).filter(|said| said.role == Role::Standby) else {
                continue;
            };
            let place = self.place(stack, &instance.component);
            let link = place.primary();
            let primary = primaries.iter().find(|(component, id, _)| {
                *component == instance.component && Some(id) == link.as_ref()
            });
            let ahead = primary.map(|(_, _, said)| said.position);
            let ahead = ahead.filter(|_| standby.follows.is_none());
            if self.strays.is_stray(&instance.id, standby.position, ahead, Instant::now()) {
                let reason = "it cannot follow the one that takes writes".to_owned();
                instance.health = Verdict::Dead { since: standby.at, reason };
            }
        }
    }

    fn said(&self, id: &InstanceId, state: &State, at: Timestamp) -> Said {
        let standby = state.role == Role::Standby;
        let followed = self.follows.of(id).filter(|_| standby);
        let confirmed = followed.as_ref().and_then(|it| it.position).unwrap_or_default();
        Said {
            at,
            role: state.role,
            position: if state.takes_over { confirmed } else { state.position },
            synchronous: followed.as_ref().is_some_and(|it| it.synchronous),
            follows: followed.filter(|_| state.receives).map(|it| it.primary),
        }
    }

    /// Asks what is hurried now, and waits a moment for the answers.
    async fn freshen(&self, stack: &StackName) {
        let asked: Vec<_> = {
            let hurried = lock(&self.hurried);
            let monitors = lock(&self.monitors);
            let wanted = monitors.values().filter(|monitor| {
                let subject = monitor.subject();
                subject.stack == *stack
                    && hurried.contains(&(subject.stack.clone(), subject.component.clone()))
            });
            wanted.map(Monitor::ask_now).collect()
        };
        let deadline = tokio::time::Instant::now() + FRESH;
        for answer in asked {
            // One that does not answer in time is shown as it was last.
            let _ = tokio::time::timeout_at(deadline, answer).await;
        }
    }

    /// Has databases whose clients are held asked more often.
    pub(super) fn hurry(&self, table: &RouteTable) {
        let held = table.databases.iter().filter(|route| route.holds || route.primary.is_none());
        let held: BTreeSet<_> =
            held.map(|route| (table.stack.clone(), route.component.clone())).collect();
        {
            let mut hurried = lock(&self.hurried);
            hurried.retain(|(stack, _)| *stack != table.stack);
            hurried.extend(held.iter().cloned());
        }
        for monitor in lock(&self.monitors).values() {
            let subject = monitor.subject();
            if subject.stack == table.stack {
                let key = (subject.stack.clone(), subject.component.clone());
                monitor.hurry(held.contains(&key));
            }
        }
    }

    fn is_hurried(&self, stack: &StackName, component: &ComponentId) -> bool {
        lock(&self.hurried).contains(&(stack.clone(), component.clone()))
    }

    /// The data of a stack's databases.
    pub(super) fn volumes(&self, stack: &StackName) -> std::io::Result<Vec<ObservedVolume>> {
        let mut all = Vec::new();
        for (component, place) in Place::all(&self.root, stack)? {
            let head = place.head()?;
            let head = head.as_ref();
            for id in place.list()? {
                let Some(about) = place.about(&id) else { continue };
                all.push(ObservedVolume {
                    component: component.clone(),
                    generation: about.generation,
                    version: about.version,
                    head: head.is_some_and(|head| head.volume == id),
                    branch: about.branch,
                    tip: head.is_some_and(|head| head.tips.contains(&id)),
                    left_at: head.and_then(|head| head.left_at.get(&id).copied()),
                    used: self.used.of(&place.data(&id)),
                    id,
                });
            }
        }
        all.sort_by(|a, b| (&a.component, &a.id).cmp(&(&b.component, &b.id)));
        Ok(all)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
