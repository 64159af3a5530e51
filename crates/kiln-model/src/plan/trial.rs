//! Whether a change that is under way has to be called off although it gets healthy, and
//! whether it has been watched for long enough.

use crate::analysis;
use crate::generation::Generation;
use crate::name::ComponentId;
use crate::observed::Observed;
use crate::quantity::Timestamp;
use crate::spec::Server;

use super::report::{Milestone, Waiting};
use super::stage::check_passed;
use super::{Fleets, Reason};

/// How far the watch over new instances has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watch {
    /// There is nothing to watch, or it was watched long enough.
    Over,
    /// It begins when all that is wanted serves.
    Due,
    /// It goes on until then.
    Until(Timestamp),
}

/// The servers whose new instances do worse than those before, and in what.
pub(super) fn worse(desired: &Generation, observed: &Observed, fleets: &Fleets) -> Vec<Waiting> {
    if observed.rollout.is_none() {
        return Vec::new();
    }
    let trial = &observed.trial;
    let found = |(id, server): (_, &Server)| {
        let analysis = &server.policy.rollout.analysis;
        let fallen = trial.fallen.get(id).map(|cause| format!("it was ready, and then {cause}"));
        let check = || trial.checks.get(id)?.failure.as_ref().map(|f| format!("its check: {f}"));
        let judged = || analysis::judge(analysis, trial.evidence.get(id)?);
        let unasked = || is_unchecked(observed, id, server).then(|| NEVER_PASSED.to_owned());
        let what = fallen.or_else(check).or_else(judged).or_else(unasked)?;
        Some(fleets.waiting(id, Some(Reason::Worse { what })))
    };
    judged(desired, observed).filter_map(found).flatten().collect()
}

/// What is said of a check that was not answered in time.
const NEVER_PASSED: &str = "its check had not passed by the deadline";

/// Whether all serves, and the deadline has come before a server's check passed.
fn is_unchecked(observed: &Observed, id: &ComponentId, server: &Server) -> bool {
    let Some(rollout) = &observed.rollout else { return false };
    let passed = |since| check_passed(&server.policy.rollout.analysis, &observed.trial, id, since);
    observed.at >= rollout.deadline && rollout.serving.is_some_and(|since| !passed(since))
}

/// How far the watch has come.
pub(super) fn watch(desired: &Generation, observed: &Observed) -> Watch {
    let (Some(rollout), trial) = (&observed.rollout, &observed.trial) else { return Watch::Over };
    let asked = judged(desired, observed).any(|(id, server)| {
        let answered = trial.evidence.get(id).is_some_and(|e| e.new.total() + e.old.total() > 0);
        answered || server.policy.rollout.analysis.check.is_some()
    });
    if trial.watch.0 == 0 || !asked {
        return Watch::Over;
    }
    let Some(since) = rollout.serving else { return Watch::Due };
    let until = since.after(trial.watch);
    let checked = judged(desired, observed)
        .all(|(id, server)| check_passed(&server.policy.rollout.analysis, trial, id, since));
    if observed.at >= until && checked { Watch::Over } else { Watch::Until(until) }
}

/// What the watch makes the keeper write down once all that is wanted serves.
pub(super) fn milestone(watch: &Watch, serves: bool) -> Option<Milestone> {
    (*watch == Watch::Due && serves).then_some(Milestone::Serving)
}

fn judged<'a>(
    desired: &'a Generation,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a ComponentId, &'a Server)> {
    let judged = &observed.trial.judged;
    desired.content.servers().filter(|(id, _, _)| judged.contains(*id)).map(|(id, _, s)| (id, s))
}
