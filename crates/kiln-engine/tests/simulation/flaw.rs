//! Bugs planted by hand, each of which the laws must find.

use kiln_model::data::{Role, Said};
use kiln_model::generation::Generation;
use kiln_model::observed::{Observed, ObservedInstance, Verdict};
use kiln_model::plan::{self, Action, Creation, Doomed, Outcome, Plan, Report};

/// A bug. Each is put into what is handed to the engine, never into the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// The store says that something is durable before it is.
    SkippedSync,
    /// Instances are drained and destroyed without waiting for the route.
    DestroyBeforeRoute,
    /// A rollout's deadline passes unnoticed.
    ForgottenDeadline,
    /// The target does not say that something has changed.
    LostEvent,
    /// An instance is made twice.
    DoubledCreate,
    /// A standby is promoted without a look at what it lacks.
    PromotedBlindly,
    /// Any standby is taken for one that has all that was acknowledged.
    AnyHeir,
    /// The gateway says that nobody takes writes, and goes on with the one before.
    LeakyFence,
    /// One that does not answer is taken for gone, with its hold on its volume.
    ForgottenHolder,
    /// That a standby went which may have been the only one with a write is not minded.
    ForgottenMember,
    /// Which volume is the head is not on the disk when it is said to be.
    LostHead,
}

impl Flaw {
    /// The planner with this bug.
    pub fn planner(self) -> fn(&Generation, &Observed) -> (Plan, Report) {
        match self {
            Flaw::DestroyBeforeRoute => destroy_before_route,
            Flaw::ForgottenDeadline => forgotten_deadline,
            Flaw::DoubledCreate => doubled_create,
            Flaw::PromotedBlindly => promoted_blindly,
            Flaw::AnyHeir => any_heir,
            Flaw::ForgottenHolder => forgotten_holder,
            Flaw::None
            | Flaw::SkippedSync
            | Flaw::LostEvent
            | Flaw::LeakyFence
            | Flaw::ForgottenMember
            | Flaw::LostHead => plan::plan,
        }
    }
}

fn destroy_before_route(desired: &Generation, observed: &Observed) -> (Plan, Report) {
    let (mut plan, report) = plan::plan(desired, observed);
    for step in &mut plan.steps {
        if matches!(step.action, Action::Drain(_) | Action::Destroy(Doomed::Instance(..))) {
            step.after.clear();
        }
    }
    (plan, report)
}

fn forgotten_deadline(desired: &Generation, observed: &Observed) -> (Plan, Report) {
    let (plan, mut report) = plan::plan(desired, observed);
    if report.outcome == Outcome::Expired {
        report.outcome = Outcome::Progressing;
    }
    (plan, report)
}

fn doubled_create(desired: &Generation, observed: &Observed) -> (Plan, Report) {
    let (mut plan, report) = plan::plan(desired, observed);
    let twin = plan.steps.iter().find_map(|step| match &step.action {
        Action::Create(Creation::Instance(instance)) => Some((step.clone(), instance.clone())),
        _ => None,
    });
    if let Some((mut step, instance)) = twin {
        let mut instance = (*instance).clone();
        instance.id = format!("{}0", instance.id).parse().expect("a longer id is an id");
        step.action = Action::Create(Creation::Instance(instance.into()));
        plan.steps.push(step);
    }
    (plan, report)
}

/// The same with another look at what databases say.
fn misread(
    desired: &Generation,
    observed: &Observed,
    how: impl Fn(&mut Said, u64),
) -> (Plan, Report) {
    let mut observed = observed.clone();
    let said = |instance: &ObservedInstance| instance.data.as_ref()?.said.clone();
    let ahead = observed.instances.iter().filter_map(said).map(|said| said.position).max();
    for data in observed.instances.iter_mut().filter_map(|instance| instance.data.as_mut()) {
        let standby = data.said.as_mut().filter(|said| said.role == Role::Standby);
        if let (Some(said), Some(ahead)) = (standby, ahead) {
            how(said, ahead);
        }
    }
    plan::plan(desired, &observed)
}

fn promoted_blindly(desired: &Generation, observed: &Observed) -> (Plan, Report) {
    misread(desired, observed, |said, ahead| said.position = ahead)
}

fn any_heir(desired: &Generation, observed: &Observed) -> (Plan, Report) {
    misread(desired, observed, |said, _| said.synchronous = true)
}

fn forgotten_holder(desired: &Generation, observed: &Observed) -> (Plan, Report) {
    let mut observed = observed.clone();
    observed.instances.retain(|instance| !matches!(instance.health, Verdict::Dead { .. }));
    plan::plan(desired, &observed)
}
