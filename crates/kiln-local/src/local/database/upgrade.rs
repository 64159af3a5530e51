//! One instance takes the data over from another, of an older major version.
//!
//! Rows go over by themselves once the new instance has begun. What is done here is the rest: the
//! old one is asked beforehand whether all that it has can go over; while rows come, definitions are
//! looked at, as those that change meanwhile do not come; when all rows are there, statistics are
//! gathered; after the fence what is no row is told and set. Whatever the old one has for all this
//! is taken back as soon as there is nobody any more for whom it is, whoever has made it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_database::{EngineError, Source, Taker, engine};
use kiln_engine::TargetError;
use kiln_model::data::Role;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::Verdict;
use tokio::task::AbortHandle;

use super::monitor::Subject;
use super::place::{Place, Upgraded};
use super::switch::{CATCHING_UP, LOOK, Party, answered, within};
use super::{DataLabels, Databases, lock};

/// From one look at the definitions to the next, and after what could not be done.
const WATCH: Duration = Duration::from_secs(2);
/// From one look at how many rows are missing to the next.
const COPY: Duration = Duration::from_millis(200);
/// How long the offer may take: locks of many tables are waited for one after the other.
const OFFER: Duration = Duration::from_secs(300);
/// How long what was offered may take to be taken back.
const WITHDRAWAL: Duration = Duration::from_secs(120);
/// How long what clients wait for may take at the new one: less than a step of the engine.
const TAKING: Duration = Duration::from_secs(15);

/// The instances that take over, each with whose data.
#[derive(Debug, Default)]
pub(super) struct Takers(Mutex<BTreeMap<InstanceId, (StackName, ComponentId)>>);

impl Takers {
    pub(super) fn add(&self, id: &InstanceId, stack: &StackName, component: &ComponentId) {
        lock(&self.0).insert(id.clone(), (stack.clone(), component.clone()));
    }

    pub(super) fn remove(&self, id: &InstanceId) {
        lock(&self.0).remove(id);
    }

    /// Forgets those of a stack that are neither there nor being made.
    fn keep(&self, stack: &StackName, here: impl Fn(&InstanceId) -> bool) {
        lock(&self.0).retain(|id, (of, _)| of != stack || here(id));
    }

    fn are_there(&self, stack: &StackName, component: &ComponentId) -> bool {
        lock(&self.0).values().any(|(s, c)| s == stack && c == component)
    }
}

/// How far an instance that takes over has come, beside its rows.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// What it is at.
    stage: String,
    /// It has all that goes over before the writes do.
    settled: bool,
    /// Why nothing can come of it.
    failed: Option<String>,
}

impl Way {
    pub(super) fn begun() -> Self {
        Self { stage: "its rows are copied".to_owned(), settled: false, failed: None }
    }

    /// What it is worth by that; nothing is against it where there is none.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        if let Some(reason) = self.failed.clone() {
            return Some(Verdict::Dead { since: crate::local::now(), reason });
        }
        (!self.settled).then(|| Verdict::Starting { last: Some(self.stage.clone()) })
    }
}

/// Follows one on its way, until it is dropped.
#[derive(Debug)]
pub(super) struct Guide(AbortHandle);

impl Drop for Guide {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Guide {
    /// One for an instance that takes over; none where it has, or never did.
    pub(super) fn start(
        runtime: &tokio::runtime::Handle,
        subject: &Subject,
        way: Arc<Mutex<Way>>,
    ) -> Option<Self> {
        let (place, labels) = (subject.place.clone(), subject.labels.clone());
        if !is_taking_over(&place, &labels) {
            return None;
        }
        let trip =
            Trip { id: subject.id.clone(), place, labels, way, alarm: subject.alarm.clone() };
        Some(Self(runtime.spawn(trip.go()).abort_handle()))
    }
}

/// Whether an instance is to take over, and has not yet.
pub(super) fn is_taking_over(place: &Place, labels: &DataLabels) -> bool {
    let head = place.head().ok().flatten();
    labels.takes_over() && head.is_some_and(|head| head.volume != labels.volume)
}

struct Trip {
    id: InstanceId,
    place: Place,
    labels: DataLabels,
    way: Arc<Mutex<Way>>,
    alarm: Arc<tokio::sync::Notify>,
}

impl Trip {
    async fn go(self) {
        let mut looked: Option<Instant> = None;
        while is_taking_over(&self.place, &self.labels) {
            if looked.is_none_or(|at| at.elapsed() >= WATCH) {
                looked = Some(Instant::now());
                if let Ok(Some(why)) = self.differs().await {
                    eprintln!("kiln: {} starts over: {why}", self.id);
                    self.say(|way| way.failed = Some(why));
                    return;
                }
            }
            let settled = lock(&self.way).settled;
            if !settled && let Err(error) = self.settle().await {
                self.say(|way| way.stage = error.to_string());
            }
            tokio::time::sleep(if settled { WATCH } else { COPY }).await;
        }
    }

    fn say(&self, what: impl FnOnce(&mut Way)) {
        what(&mut lock(&self.way));
        self.alarm.notify_one();
    }

    fn upgraded(&self) -> Option<Upgraded> {
        self.place.about(&self.labels.volume)?.upgrade
    }

    async fn source(&self) -> Result<Box<dyn Source>, EngineError> {
        source_of(&self.place, &self.labels, &self.labels.identity.database).await
    }

    /// Why its definitions are not those of the old one.
    async fn differs(&self) -> Result<Option<String>, EngineError> {
        let Some(upgraded) = self.upgraded() else { return Ok(None) };
        let mut source = self.source().await?;
        let definitions = answered(source.definitions()).await?;
        Ok((definitions != upgraded.definitions).then(|| CHANGED.to_owned()))
    }

    /// Does what can be done before writes go over, once all rows are there.
    async fn settle(&self) -> Result<(), EngineError> {
        if self.place.settled(&self.labels.volume).is_some() {
            self.say(|way| way.settled = true);
            return Ok(());
        }
        let mut taker = taker_of(&self.place, &self.id, &self.labels).await?;
        let missing = answered(taker.missing_tables()).await?;
        if missing > 0 {
            self.say(|way| way.stage = format!("the rows of {missing} tables are copied"));
            return Ok(());
        }
        self.say(|way| "its statistics are gathered".clone_into(&mut way.stage));
        let mut source = self.source().await?;
        let views = answered(source.last_values()).await?.views;
        let names: Vec<String> = views.keys().cloned().collect();
        taker.settle(&names).await?;
        let noted = self.place.settle(&self.labels.volume, &views);
        noted.map_err(|error| EngineError::Senseless(format!("it can't be noted: {error}")))?;
        self.say(|way| way.settled = true);
        Ok(())
    }
}

/// What is said of definitions that are not those that went over.
const CHANGED: &str = "definitions have changed at the one whose data it takes over (tables, \
    functions, users or rights); its copy is begun anew";

async fn source_of(
    place: &Place,
    labels: &DataLabels,
    database: &str,
) -> Result<Box<dyn Source>, EngineError> {
    let nobody = || EngineError::Silent("nobody takes writes".to_owned());
    let sockets = place.socket(&place.primary().ok_or_else(nobody)?);
    answered(engine(labels.identity.engine).source(&sockets, database)).await
}

async fn taker_of(
    place: &Place,
    id: &InstanceId,
    labels: &DataLabels,
) -> Result<Box<dyn Taker>, EngineError> {
    let sockets = place.socket(id);
    answered(engine(labels.identity.engine).taker(&sockets, &labels.identity.database)).await
}

impl Databases {
    /// Refuses to begin what cannot come to its end.
    pub(super) fn refuse_obstacles(
        &self,
        place: &Place,
        of: &InstanceId,
        data: &DataLabels,
    ) -> Result<(), TargetError> {
        let what = format!("take the data over from {of}");
        let sockets = place.socket(of);
        let ask = async {
            let connect = engine(data.identity.engine).source(&sockets, &data.identity.database);
            let mut source = answered(connect).await?;
            answered(source.obstacles()).await
        };
        let found = self.runtime.block_on(ask);
        let found = found.map_err(|error| TargetError::passing(&what, error))?;
        if found.is_empty() {
            return Ok(());
        }
        let hint = "do so and apply again; the old version serves on";
        Err(TargetError::permanent(what, found.join("; "), hint))
    }

    /// Has an instance's rows be received by another.
    pub(super) fn have_offered(
        &self,
        place: &Place,
        of: &InstanceId,
        data: &DataLabels,
    ) -> Result<Upgraded, EngineError> {
        let database = data.identity.database.clone();
        let sockets = place.socket(of);
        let definitions = self.runtime.block_on(async {
            let connect = engine(data.identity.engine).source(&sockets, &database);
            let mut source = answered(connect).await?;
            within(OFFER, source.offer()).await
        })?;
        Ok(Upgraded { database, definitions })
    }

    /// Takes back what instances of a stack have offered to those that are not there any more.
    pub(super) fn withdraw_offers(&self, stack: &StackName) {
        let monitors = lock(&self.monitors);
        // One that is being ended may have been seen once more.
        let makings = lock(&self.makings);
        self.takers.keep(stack, |id| monitors.contains_key(id) || makings.contains_key(id));
        drop(makings);
        let mut withdrawn = lock(&self.withdrawn);
        withdrawn.retain(|id| monitors.contains_key(id));
        for (id, monitor) in monitors.iter() {
            let (subject, told) = (monitor.subject(), monitor.told());
            let primary = told.state.is_some_and(|(state, _)| state.role == Role::Primary);
            let ready = matches!(told.verdict, Verdict::Ready { .. });
            let head = subject.place.head().ok().flatten();
            let seated = head.is_some_and(|head| head.volume == subject.labels.volume);
            if subject.stack != *stack || !primary || !ready || !seated {
                continue;
            }
            if self.takers.are_there(stack, &subject.component) {
                withdrawn.remove(id);
            } else if withdrawn.insert(id.clone()) {
                let withdrawal = Withdrawal {
                    id: id.clone(),
                    place: subject.place.clone(),
                    labels: subject.labels.clone(),
                    of: (stack.clone(), subject.component.clone()),
                    takers: self.takers.clone(),
                    withdrawn: self.withdrawn.clone(),
                };
                self.runtime.spawn(withdrawal.make());
            }
        }
    }
}

/// The taking back of what one instance has offered.
struct Withdrawal {
    id: InstanceId,
    place: Place,
    labels: DataLabels,
    of: (StackName, ComponentId),
    takers: Arc<Takers>,
    withdrawn: Arc<Mutex<BTreeSet<InstanceId>>>,
}

impl Withdrawal {
    async fn make(self) {
        if let Err(error) = self.try_once().await {
            eprintln!("kiln: {} keeps what it has offered for now: {error}", self.id);
            tokio::time::sleep(WATCH).await;
            lock(&self.withdrawn).remove(&self.id);
        }
    }

    async fn try_once(&self) -> Result<(), EngineError> {
        let sockets = self.place.socket(&self.id);
        let identity = &self.labels.identity;
        let connect = engine(identity.engine).source(&sockets, &identity.database);
        let mut source = answered(connect).await?;
        let wanted = || self.takers.are_there(&self.of.0, &self.of.1);
        within(WITHDRAWAL, source.withdraw(&wanted)).await
    }
}

/// Has an instance of a newer version take writes, after the fence: it has all rows up to `position`,
/// and gets what is no row.
pub(super) async fn take(party: &Party, position: Option<u64>) -> Result<(), String> {
    let told = |error: EngineError| error.to_string();
    let Some(position) = position else {
        return Err("the one before does not say any more how far its data goes".to_owned());
    };
    let about = party.place.about(&party.labels.volume);
    let upgraded = about.and_then(|about| about.upgrade).ok_or("it takes over from nobody")?;
    let settled = party.place.settled(&party.labels.volume).ok_or("it is not settled yet")?;
    let source = source_of(&party.place, &party.labels, &upgraded.database);
    let mut source = source.await.map_err(told)?;
    let deadline = Instant::now() + CATCHING_UP;
    loop {
        let confirmed = answered(source.confirmed(&party.id)).await.map_err(told)?;
        if confirmed.is_some_and(|confirmed| confirmed >= position) {
            break;
        }
        if Instant::now() >= deadline {
            return Err(format!("it has confirmed {confirmed:?} of {position} bytes"));
        }
        tokio::time::sleep(LOOK).await;
    }
    if answered(source.definitions()).await.map_err(told)? != upgraded.definitions {
        return Err(CHANGED.to_owned());
    }
    let obstacles = answered(source.obstacles()).await.map_err(told)?;
    if !obstacles.is_empty() {
        return Err(obstacles.join("; "));
    }
    let last = answered(source.last_values()).await.map_err(told)?;
    let stale = last.views.iter().filter(|(name, mark)| settled.get(*name) != Some(*mark));
    let stale: Vec<String> = stale.map(|(name, _)| name.clone()).collect();
    let mut taker = taker_of(&party.place, &party.id, &party.labels).await.map_err(told)?;
    within(TAKING, taker.take(&last, &stale)).await.map_err(told)
}
