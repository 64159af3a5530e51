//! Bugs planted by hand, each of which the laws must find.

use kiln_model::generation::Generation;
use kiln_model::observed::Observed;
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
}

impl Flaw {
    /// The planner with this bug.
    pub fn planner(self) -> fn(&Generation, &Observed) -> (Plan, Report) {
        match self {
            Flaw::DestroyBeforeRoute => destroy_before_route,
            Flaw::ForgottenDeadline => forgotten_deadline,
            Flaw::DoubledCreate => doubled_create,
            Flaw::None | Flaw::SkippedSync | Flaw::LostEvent => plan::plan,
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
