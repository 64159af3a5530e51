//! How far a server's instances have been replaced, and who of them serves meanwhile.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::generation::Generation;
use crate::name::{ComponentId, InstanceId};
use crate::observed::{Observed, ObservedInstance, StepRecord, Trial};
use crate::quantity::Timestamp;
use crate::spec::rollout::{Analysis, CanaryStep, Rollout, Strategy};

use super::report::Milestone;
use super::{DRAIN_BOUND, Reason};

/// One server in a rollout, or outside of one.
#[derive(Debug)]
pub(super) struct Stage {
    /// How many instances as wanted may be made by now.
    pub(super) target: u32,
    /// How many instances may exist besides those that are wanted.
    pub(super) surplus: u32,
    /// How many of the old ones stay; of these the newest.
    pub(super) keep_old: u32,
    /// Instances that are ready and get no traffic.
    pub(super) hidden: BTreeSet<InstanceId>,
    /// Nobody serves for a moment, and what asks is held.
    pub(super) holds: bool,
    /// The share of those as wanted, of a thousand, where it is a fixed one.
    pub(super) split: Option<u16>,
    /// Why the server is not through although all that was asked for is ready.
    pub(super) pending: Option<Reason>,
    /// What has been reached and is not written down.
    pub(super) milestone: Option<Milestone>,
    /// When it goes on although nothing is seen to change.
    pub(super) wake_at: Option<Timestamp>,
}

/// What a stage is decided from.
pub(super) struct Situation<'a> {
    pub(super) desired: &'a Generation,
    pub(super) observed: &'a Observed,
    pub(super) id: &'a ComponentId,
    pub(super) digest: Digest,
    pub(super) rollout: &'a Rollout,
    pub(super) wanted: u32,
    /// Whole and as wanted.
    pub(super) current: &'a [&'a ObservedInstance],
    /// Whole, and of another digest, network, or not quite as made.
    pub(super) old: &'a [&'a ObservedInstance],
}

impl Situation<'_> {
    pub(super) fn decide(&self) -> Stage {
        if self.observed.rollout.is_none() {
            return self.steady();
        }
        match &self.rollout.strategy {
            // With nothing to replace, all are alike.
            _ if self.old_ready().next().is_none() => self.rolling(1, 0),
            Strategy::Rolling { surge, unavailable } if self.rollout.overlap => {
                self.rolling(*surge, *unavailable)
            }
            Strategy::Canary { steps } if self.rollout.overlap => self.canary(steps),
            Strategy::Rolling { .. } | Strategy::BlueGreen | Strategy::Canary { .. } => {
                self.blue_green()
            }
        }
    }

    fn ready(&self) -> u32 {
        count(self.current.iter().filter(|i| i.is_ready()))
    }

    fn old_ready(&self) -> impl Iterator<Item = &ObservedInstance> {
        self.old.iter().copied().filter(|i| i.is_ready())
    }

    fn ids<'i>(instances: impl Iterator<Item = &'i ObservedInstance>) -> BTreeSet<InstanceId> {
        instances.map(|i| i.id.clone()).collect()
    }

    fn current_ready(&self) -> impl Iterator<Item = &ObservedInstance> {
        self.current.iter().copied().filter(|i| i.is_ready())
    }

    /// Old ones leave as new ones get ready.
    fn rolling(&self, surge: u32, unavailable: u32) -> Stage {
        let missing = self.wanted.saturating_sub(self.ready());
        Stage {
            target: self.wanted,
            surplus: if unavailable > 0 { surge } else { surge.max(1) },
            keep_old: missing.saturating_sub(unavailable),
            hidden: BTreeSet::new(),
            holds: false,
            split: None,
            pending: None,
            milestone: None,
            wake_at: None,
        }
    }

    /// Outside of a rollout; what the last one replaced may be kept for a while.
    fn steady(&self) -> Stage {
        let mut stage = self.rolling(1, 0);
        let until = self.observed.active_since.map(|since| since.after(self.rollout.keep));
        let Some(until) = until.filter(|until| *until > self.observed.at) else { return stage };
        // Where none of those wanted is ready, what was kept serves once more.
        if self.ready() == 0 {
            return stage;
        }
        let warm = |i: &&ObservedInstance| {
            i.digest != self.digest && i.generation < self.desired.number && i.drift.is_empty()
        };
        stage.hidden = Self::ids(self.old_ready().filter(warm));
        let kept = count(stage.hidden.iter());
        // They stand in nobody's way.
        stage.surplus += kept;
        stage.keep_old = stage.keep_old.max(kept);
        stage.wake_at = (!stage.hidden.is_empty()).then_some(until);
        stage
    }

    /// All old ones serve until all new ones are ready, and stay until the change stands.
    fn blue_green(&self) -> Stage {
        let mut stage = self.rolling(self.wanted, 0);
        stage.surplus = u32::MAX;
        stage.keep_old = u32::MAX;
        let switched = self.ready() >= self.wanted || (self.ready() > 0 && self.has_switched());
        stage.hidden =
            if switched { Self::ids(self.old_ready()) } else { Self::ids(self.current_ready()) };
        if switched && !self.rollout.overlap {
            self.hand_over(&mut stage);
        }
        stage
    }

    /// Old ones finish what they have begun before new ones serve: what is asked meanwhile is
    /// held, for no longer than a drain may take.
    fn hand_over(&self, stage: &mut Stage) {
        let record = self.observed.rollout.as_ref().and_then(|r| r.steps.get(self.id));
        let until = record.map(|record| record.since.after(DRAIN_BOUND));
        let table = self.observed.table.as_ref();
        let serving: BTreeSet<&InstanceId> = table.iter().flat_map(|t| t.in_rotation()).collect();
        let serve = self.old.iter().any(|i| serving.contains(&i.id));
        let busy = self.old.iter().any(|i| i.is_running() && i.in_flight > 0);
        if !(serve || busy) || until.is_some_and(|until| self.observed.at >= until) {
            return;
        }
        stage.holds = true;
        stage.hidden.extend(Self::ids(self.current_ready()));
        stage.pending = Some(Reason::HandingOver);
        stage.wake_at = until;
        if !serve && record.is_none() {
            stage.milestone = Some(Milestone::Step { component: self.id.clone(), step: 0 });
        }
    }

    /// Whether the table in force leads to new ones only.
    fn has_switched(&self) -> bool {
        let Some(table) = &self.observed.table else { return false };
        let serving: BTreeSet<&InstanceId> = table.in_rotation().collect();
        self.current_ready().any(|i| serving.contains(&i.id))
            && !self.old_ready().any(|i| serving.contains(&i.id))
    }

    /// New ones get a share that grows by steps; old ones stay until the change stands.
    fn canary(&self, steps: &[CanaryStep]) -> Stage {
        let mut stage = self.blue_green();
        let record = self.observed.rollout.as_ref().and_then(|r| r.steps.get(self.id)).copied();
        let aim = self.aim(steps, record);
        let Some(step) = steps.get(aim).copied() else {
            // The last step is passed: all of them are made, and take over at once.
            if self.ready() < self.wanted && !self.has_switched() {
                stage.hidden.clear();
                stage.split = steps.last().map(|step| permille(*step));
            }
            return stage;
        };
        stage.target = step.instances(self.wanted);
        stage.hidden.clear();
        let before = record.and_then(|r| steps.get(r.step as usize)).copied();
        let share = if self.ready() >= stage.target { Some(step) } else { before };
        match share.filter(|_| self.ready() > 0) {
            Some(share) => stage.split = Some(permille(share)),
            None => stage.hidden = Self::ids(self.current_ready()),
        }
        let number = u32::try_from(aim).unwrap_or(u32::MAX);
        let of = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        stage.pending = Some(Reason::Canary { step: number + 1, of, weight: step.weight });
        if record.is_none_or(|r| r.step != number) && self.in_force(permille(step)) {
            stage.milestone = Some(Milestone::Step { component: self.id.clone(), step: number });
        }
        stage.wake_at = record.filter(|r| r.step == number).map(|r| r.since.after(step.hold));
        stage
    }

    /// The step to be in: the one that was come to, or the next where it was held long enough.
    fn aim(&self, steps: &[CanaryStep], record: Option<StepRecord>) -> usize {
        let Some(record) = record else { return 0 };
        let (step, at) = (record.step as usize, self.observed.at);
        let held = steps.get(step).is_none_or(|s| at >= record.since.after(s.hold));
        let passed =
            check_passed(&self.rollout.analysis, &self.observed.trial, self.id, record.since);
        if held && passed { step + 1 } else { step }
    }

    /// Whether the table gives new ones this share.
    fn in_force(&self, permille: u16) -> bool {
        let split = self.observed.table.iter().flat_map(|t| &t.splits);
        let mut split = split.filter(|s| s.component == *self.id && s.permille == permille);
        let known = |id: &InstanceId| self.current.iter().any(|i| i.id == *id);
        split.any(|s| !s.instances.is_empty() && s.instances.iter().all(known))
    }
}

/// Whether a server's check, where it has one, has passed since `since` and not failed after.
pub(super) fn check_passed(
    analysis: &Analysis,
    trial: &Trial,
    server: &ComponentId,
    since: Timestamp,
) -> bool {
    let record = trial.checks.get(server);
    analysis.check.is_none()
        || record.is_some_and(|r| r.failure.is_none() && r.passed.is_some_and(|at| at >= since))
}

fn permille(step: CanaryStep) -> u16 {
    u16::from(step.weight) * 10
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
