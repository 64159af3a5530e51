//! A keeper: the loop that holds one stack to its generation.
//!
//! Observe, plan, act, and again until no step is left; then wait until something changes.
//! Apply, rollback, healing, scaling and recovery after a crash all are this loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::Observed;
use kiln_model::plan::{Action, Creation, Doomed, Outcome, Plan, Reason, Report, Step};
use kiln_model::quantity::{Millis, Timestamp};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::actor::Actor;
use crate::backup;
use crate::clock::Clock;
use crate::failure;
use crate::journal::{AbandonKind, Blame, Event, State};
use crate::progress::{Progress, ProgressEvent};
use crate::store::Store;
use crate::target::{Probes, Target, TargetError};

use super::execute::{Ends, Taken, execute};
use super::scale::Scalers;
use super::trial::Watcher;
use super::{Committed, Engine, Handle, Proposal, Refusal, Request, Snapshot, probes};

/// Events of the journal that are read back at the start, for the pace.
const RECENT: Millis = failure::RECENT;

/// The pause after a failed look or step; it doubles with each further one up to a bound.
const PAUSE: Millis = Millis(100);

/// Holds one stack to its generation.
pub struct Keeper<T, C, S> {
    pub(super) engine: Arc<Engine<T, C, S>>,
    pub(super) stack: StackName,
    pub(super) state: State,
    /// Instances that were seen ready.
    pub(super) proved: BTreeSet<InstanceId>,
    /// Instances whose end was written down.
    pub(super) ended: BTreeSet<InstanceId>,
    /// Components whose last instance failed.
    pub(super) failing: BTreeSet<ComponentId>,
    /// What the last failed instance of a component wrote at its end.
    pub(super) words: BTreeMap<ComponentId, Vec<String>>,
    pub(super) generations: BTreeMap<u64, Arc<Generation>>,
    pub(super) scalers: Scalers,
    probes: Probes,
    requests: mpsc::Receiver<Request>,
    waiting: VecDeque<(Proposal, oneshot::Sender<Result<Committed, Refusal>>)>,
    pub(super) snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    progress: broadcast::Sender<Progress>,
    ends: Ends,
    /// How the new instances of a rollout do.
    pub(super) watcher: Watcher,
    /// Looks or rounds of steps that failed in a row.
    failed: u32,
    trouble: Option<String>,
    told: Option<Report>,
    /// The epoch of the table that it has set last, where that is known.
    pub(super) routed: Option<u64>,
    /// The generation whose databases the target was last told to back up.
    backed_up: Option<u64>,
}

/// What a keeper does after a turn.
enum Next {
    /// Look again.
    Again,
    /// Wait for a change, at the latest until then.
    Wait(Timestamp),
}

impl<T: Target, C: Clock, S: Store> Keeper<T, C, S> {
    /// The keeper of `stack`, with what its journal says, and a handle on it.
    pub fn open(engine: Arc<Engine<T, C, S>>, stack: StackName) -> Result<(Self, Handle), Refusal> {
        let since = Timestamp(engine.clock.now().0.saturating_sub(RECENT.0));
        let state = State::derive(&engine.store.journal(&stack, since)?)?;
        let (requests_in, requests) = mpsc::channel(64);
        let (snapshot, snapshot_out) = watch::channel(None);
        let (progress, _) = broadcast::channel(4096);
        let handle =
            Handle { requests: requests_in, snapshot: snapshot_out, progress: progress.clone() };
        let mut keeper = Self {
            engine,
            stack,
            state,
            proved: BTreeSet::new(),
            ended: BTreeSet::new(),
            failing: BTreeSet::new(),
            words: BTreeMap::new(),
            generations: BTreeMap::new(),
            scalers: Scalers::default(),
            probes: Probes::default(),
            requests,
            waiting: VecDeque::new(),
            snapshot,
            progress,
            ends: Ends::default(),
            watcher: Watcher::default(),
            failed: 0,
            trouble: None,
            told: None,
            routed: None,
            backed_up: None,
        };
        keeper.load()?;
        Ok((keeper, handle))
    }

    /// Runs until every handle is dropped.
    pub async fn run(mut self) {
        loop {
            self.admit_waiting();
            if let Err(refusal) = self.follow_demand().await {
                self.stumble(refusal.to_string());
            }
            let next = match self.turn().await {
                Ok(next) => next,
                Err(refusal) => self.stumble(refusal.to_string()),
            };
            let until = match next {
                Next::Again => {
                    // Requests are heard between any two turns.
                    match self.requests.try_recv() {
                        Ok(request) => self.serve(request).await,
                        Err(mpsc::error::TryRecvError::Empty) => {}
                        Err(mpsc::error::TryRecvError::Disconnected) => return,
                    }
                    continue;
                }
                Next::Wait(until) => until,
            };
            if !self.wait(until).await {
                return;
            }
        }
    }

    /// Waits until there is reason for another turn, at the latest until then; whether anybody
    /// still has a handle.
    async fn wait(&mut self, until: Timestamp) -> bool {
        loop {
            let due = self.scalers.due().map_or(until, |due| due.min(until));
            tokio::select! {
            biased;
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return false,
                },
                Some((step, result)) = self.ends.next() => {
                    if let Err(refusal) = self.ended(&step, result) {
                        self.stumble(refusal.to_string());
                    }
                }
                () = self.watcher.answered() => {}
                () = self.engine.target.changed(&self.stack) => self.scalers.hurry(),
                () = self.engine.clock.sleep_until(due) => {
                    // Demand is measured far more often than all there is.
                    match self.follow_demand().await {
                        Ok(false) if due < until => continue,
                        Ok(_) => {}
                        Err(refusal) => drop(self.stumble(refusal.to_string())),
                    }
                }
            }
            return true;
        }
    }

    /// One look, and the steps that follow from it.
    async fn turn(&mut self) -> Result<Next, Refusal> {
        while let Some((step, result)) = self.ends.try_next() {
            self.ended(&step, result)?;
        }
        let desired = self.desired()?;
        let observed = match self.observe().await {
            Ok(observed) => observed,
            Err(error) => return Ok(self.stumble(error.to_string())),
        };
        self.note(&desired, &observed).await?;
        self.watcher.see(observed.at, &observed.instances, self.state.rollout.is_some());
        let observed = self.complete(&desired, observed)?;
        let (plan, report) = (self.engine.planner)(&desired, &observed);
        self.publish(&desired, &observed, &report);
        self.watch_out(&desired, &observed, &report)?;
        match report.outcome {
            Outcome::Expired | Outcome::Worse => {
                let worse = report.outcome == Outcome::Worse;
                let kind = if worse { AbandonKind::Worse } else { AbandonKind::Deadline };
                let blame = self.blame(&report, &observed.instances).await;
                self.abandon(kind, blame, &Actor::Keeper)?;
                return Ok(Next::Again);
            }
            Outcome::Ready | Outcome::Converged if self.state.rollout.is_some() => {
                self.activate()?;
                return Ok(Next::Again);
            }
            _ => {}
        }
        if self.reached(&report.milestones)? {
            return Ok(Next::Again);
        }
        if !plan.steps.iter().all(|step| self.ends.do_already(step)) {
            return self.take(&plan, report.past_return).await;
        }
        self.failed = 0;
        self.trouble = None;
        if report.outcome == Outcome::Converged {
            self.tell(ProgressEvent::Converged { generation: desired.number });
        }
        let sweep = self.engine.clock.now().after(self.engine.bounds.sweep);
        let check = self.ask(&desired, &observed);
        Ok(Next::Wait([report.wake_at, check].into_iter().flatten().fold(sweep, Timestamp::min)))
    }

    /// Begins the checks of a rollout that are due; when the next one is.
    fn ask(&mut self, desired: &Generation, observed: &Observed) -> Option<Timestamp> {
        self.state.rollout.as_ref()?;
        let engine = self.engine.clone();
        let with = (&engine.target, &engine.clock);
        self.watcher.ask(with, &self.stack, desired, &observed.trial, &observed.instances)
    }

    async fn observe(&self) -> Result<Observed, TargetError> {
        let (clock, bound) = (&self.engine.clock, self.engine.bounds.observe);
        let deadline = clock.now().after(bound);
        tokio::select! {
            biased;
            measured = self.engine.target.observe(&self.stack, &self.probes) => {
                let mut observed = measured?.into_observed();
                // What is being ended may vanish while it is looked at, its mark before itself.
                for instance in observed.instances.iter_mut().filter(|i| self.ends.hold(&i.id)) {
                    instance.draining_since.get_or_insert(observed.at);
                }
                Ok(observed)
            }
            () = clock.sleep_until(deadline) => {
                let what = format!("look at {}", self.stack);
                Err(TargetError::passing(what, format!("not done within {bound}")))
            }
        }
    }

    /// Adds to what was measured what the journal knows.
    fn complete(
        &mut self,
        desired: &Generation,
        mut observed: Observed,
    ) -> Result<Observed, Refusal> {
        if self.state.active == Some(desired.number) && self.backed_up != Some(desired.number) {
            self.engine.target.back_up(&self.stack, backup::wanted(desired));
            self.backed_up = Some(desired.number);
        }
        observed.rollout.clone_from(&self.state.rollout);
        observed.active_since = self.state.active_since;
        observed.pace = self.state.pace(observed.at);
        observed.wanted = self.wanted();
        if let (Some(_), Some(active)) = (&self.state.rollout, self.state.active) {
            let parent = self.generation(active)?;
            observed.trial = self.watcher.trial(desired, &parent);
            // Data that went to another branch goes back to its own.
            let branch = |of: &Generation, id| of.content.branch(id).number;
            let databases = parent.content.databases();
            let stay = databases.filter(|(id, ..)| branch(&parent, id) == branch(desired, id));
            observed.versions_before =
                stay.map(|(id, _, it)| (id.clone(), it.identity.version)).collect();
        }
        Ok(observed)
    }

    /// Takes the steps of a plan and writes down what became of them.
    async fn take(&mut self, plan: &Plan, past_return: bool) -> Result<Next, Refusal> {
        let engine = self.engine.clone();
        let (target, clock, bounds) = (&engine.target, &engine.clock, &engine.bounds);
        let taken = execute(target, clock, plan, bounds, &mut self.ends).await;
        let mut events = Vec::new();
        let mut errors = Vec::new();
        for (step, taken) in plan.steps.iter().zip(taken) {
            match taken {
                Taken::Done => {
                    self.done(step, &mut events);
                    if let Action::Route(table) = &step.action {
                        self.routed = Some(table.epoch);
                    }
                }
                Taken::Failed(error) => {
                    if matches!(step.action, Action::Route(_)) {
                        // It may have come about all the same.
                        self.routed = None;
                    }
                    if let Action::Create(Creation::Instance(instance)) = &step.action {
                        self.failing.insert(instance.component.clone());
                        events.push(Event::Failed {
                            component: instance.component.clone(),
                            instance: instance.id.clone(),
                            cause: error.to_string(),
                            last_words: Vec::new(),
                        });
                    }
                    self.tell(ProgressEvent::Failed { error: error.to_string() });
                    errors.push(error);
                }
                Taken::Skipped | Taken::Begun => {}
            }
        }
        self.record(events)?;
        let permanent = errors.iter().find(|e| e.permanent && !past_return);
        if let (Some(error), Some(_)) = (permanent, &self.state.rollout)
            && !self.is_past_return().await?
        {
            let blame: Vec<Blame> = Self::refused(error);
            self.abandon(AbandonKind::Refused, blame, &Actor::Keeper)?;
            return Ok(Next::Again);
        }
        if let Some(error) = errors.first() {
            return Ok(self.stumble(error.to_string()));
        }
        self.failed = 0;
        self.trouble = None;
        Ok(Next::Again)
    }

    /// Writes down what became of the end of an instance.
    fn ended(&mut self, step: &Step, result: Result<(), TargetError>) -> Result<(), Refusal> {
        let mut events = Vec::new();
        match result {
            Ok(()) => self.done(step, &mut events),
            Err(error) => self.tell(ProgressEvent::Failed { error: error.to_string() }),
        }
        self.record(events)
    }

    fn done(&self, step: &Step, events: &mut Vec<Event>) {
        let because = step.because.to_string();
        match &step.action {
            Action::Create(Creation::Instance(i)) => {
                let (component, instance) = (i.component.clone(), i.id.clone());
                events.push(Event::Made {
                    component: component.clone(),
                    instance: instance.clone(),
                    because: because.clone(),
                    grows: step.because == Reason::Missing,
                });
                self.tell(ProgressEvent::Created { component, instance, because });
            }
            Action::Create(Creation::Network(n)) => {
                let (component, instance) = (n.component.clone(), n.id.clone());
                self.tell(ProgressEvent::Created { component, instance, because });
            }
            Action::Route(table) => self.tell(ProgressEvent::Routed { epoch: table.epoch }),
            Action::Drain(id) => {
                self.tell(ProgressEvent::Draining { instance: id.clone(), because });
            }
            Action::Destroy(Doomed::Instance(id, _)) => {
                events.push(Event::Retired {
                    component: None,
                    instance: id.clone(),
                    because: because.clone(),
                });
                self.tell(ProgressEvent::Destroyed { instance: id.clone(), because });
            }
            Action::Destroy(Doomed::Network(id)) => {
                self.tell(ProgressEvent::Destroyed { instance: id.clone(), because });
            }
            Action::Destroy(Doomed::Data(..)) => {}
        }
    }

    async fn serve(&mut self, request: Request) {
        // A reply that nobody waits for any more is no error.
        match request {
            Request::Commit(proposal, reply) => match self.admit(&proposal) {
                Some(answer) => drop(reply.send(answer)),
                None => self.waiting.push_back((*proposal, reply)),
            },
            Request::Scale(component, count, by, reply) => {
                drop(reply.send(self.scale(component, count, &by)));
            }
            Request::Pin(generation, by, reply) => {
                let event =
                    generation.map_or(Event::Resumed, |generation| Event::Pinned { generation });
                drop(reply.send(self.record_by(&by, vec![event])));
            }
            Request::Cancel(by, reply) => {
                drop(reply.send(self.cancel(&by).await));
            }
            Request::Measure(reply) => {
                self.engine.target.inspect(&self.stack).await;
                if let (Ok(desired), Ok(observed)) = (self.desired(), self.observe().await) {
                    self.look(&desired, observed);
                }
                let latest = self.snapshot.borrow().clone();
                if let Some(latest) = latest {
                    drop(reply.send(latest));
                }
            }
        }
    }

    /// Publishes what was seen, and does nothing.
    /// Gives up the generation under way, unless that is what the data can't go back from.
    async fn cancel(&mut self, by: &Actor) -> Result<u64, Refusal> {
        if self.is_past_return().await? {
            return Err(Refusal::PastReturn(self.stack.clone()));
        }
        self.abandon(AbandonKind::Cancelled, Vec::new(), by)
    }

    /// Whether the rollout under way can't be given up, as things are now; also where that can't be seen.
    async fn is_past_return(&mut self) -> Result<bool, Refusal> {
        // It takes a database for it.
        let databases = |g: &Generation| g.content.databases().next().is_some();
        if self.state.rollout.is_none() || !databases(&*self.desired()?) {
            return Ok(false);
        }
        let desired = self.desired()?;
        let Ok(observed) = self.observe().await else { return Ok(true) };
        let observed = self.complete(&desired, observed)?;
        Ok((self.engine.planner)(&desired, &observed).1.past_return)
    }

    fn look(&mut self, desired: &Arc<Generation>, observed: Observed) {
        if let Ok(observed) = self.complete(desired, observed) {
            let (_, report) = (self.engine.planner)(desired, &observed);
            self.publish(desired, &observed, &report);
        }
    }

    fn scale(
        &mut self,
        component: ComponentId,
        count: Option<u32>,
        by: &Actor,
    ) -> Result<(), Refusal> {
        let desired = self.desired()?;
        let known = desired.content.components.get(&component);
        if known.is_none_or(|c| c.spec.as_server().is_none()) {
            return Err(Refusal::NoSuchServer { stack: self.stack.clone(), component });
        }
        let given_back = if count.is_none() { self.given_back(&component)? } else { None };
        let mut events = vec![Event::Scaled { component, count }];
        events.extend(given_back);
        self.record_by(by, events)
    }

    /// Proposals that waited for a rollout's end, in the order in which they came.
    fn admit_waiting(&mut self) {
        while self.state.rollout.is_none() {
            let Some((proposal, reply)) = self.waiting.pop_front() else { return };
            if let Some(answer) = self.admit(&proposal) {
                drop(reply.send(answer));
            }
        }
    }

    /// The generation to aim at.
    pub(super) fn desired(&mut self) -> Result<Arc<Generation>, Refusal> {
        match self.state.aim() {
            Some(number) => self.generation(number),
            None => Ok(Arc::new(Generation::none(self.stack.clone()))),
        }
    }

    pub(super) fn generation(&mut self, number: u64) -> Result<Arc<Generation>, Refusal> {
        if let Some(generation) = self.generations.get(&number) {
            return Ok(generation.clone());
        }
        let stored = self.engine.store.generation(&self.stack, number)?;
        let generation = stored.ok_or_else(|| crate::store::StoreError::Altered {
            what: format!("generation {number} of {}", self.stack),
            problem: "the journal names it and it is not there".to_owned(),
        })?;
        self.remember(generation.clone());
        Ok(generation)
    }

    pub(super) fn remember(&mut self, generation: Arc<Generation>) {
        self.generations.insert(generation.number, generation);
        self.probes = Arc::new(probes(self.generations.values()));
    }

    /// The generations whose instances may exist: the newest few.
    fn load(&mut self) -> Result<(), Refusal> {
        let numbers = self.engine.store.numbers(&self.stack)?;
        let newest = numbers.iter().rev().take(8).copied();
        for number in newest.chain(self.state.aim()) {
            self.generation(number)?;
        }
        Ok(())
    }

    fn publish(&mut self, desired: &Arc<Generation>, observed: &Observed, report: &Report) {
        if !report.waiting.is_empty() && self.told.as_ref() != Some(report) {
            self.tell(ProgressEvent::Waiting { waiting: report.waiting.clone() });
            self.told = Some(report.clone());
        }
        let snapshot = Snapshot {
            desired: desired.clone(),
            observed: observed.clone(),
            report: report.clone(),
            state: self.state.clone(),
            trouble: self.trouble.as_ref().or(self.ends.trouble()).cloned(),
            scaling: self.scalers.shown(),
        };
        self.snapshot.send_replace(Some(Arc::new(snapshot)));
    }

    pub(super) fn tell(&self, event: ProgressEvent) {
        let at = self.engine.clock.now();
        // Nobody watching is no error.
        let _ = self.progress.send(Progress { at, stack: self.stack.clone(), event });
    }

    /// After a failure: a pause before the next turn, longer each time.
    fn stumble(&mut self, error: String) -> Next {
        let pause = Millis(PAUSE.0 << self.failed.min(5));
        self.failed = self.failed.saturating_add(1);
        self.trouble = Some(error);
        Next::Wait(self.engine.clock.now().after(pause))
    }
}
