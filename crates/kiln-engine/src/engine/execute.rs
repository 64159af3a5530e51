//! Taking the steps of a plan: at once where their order allows, each within its bound.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_model::name::InstanceId;
use kiln_model::plan::{Action, Creation, Doomed, Plan, Step};
use kiln_model::quantity::Millis;
use tokio::task::{Id, JoinError, JoinSet};

use crate::clock::Clock;
use crate::target::{Target, TargetError};

use super::Bounds;

/// What became of one step.
#[derive(Debug)]
pub(super) enum Taken {
    /// It succeeded.
    Done,
    /// It failed.
    Failed(TargetError),
    /// A step before it failed.
    Skipped,
    /// It is under way, and nobody waits for it here.
    Begun,
}

/// The pause after an end that failed, before it is tried again.
const PAUSE: Millis = Millis(500);

/// Ends of instances that are under way. An instance may take as long to end as its `stop` says;
/// what else there is to do does not wait for it.
#[derive(Debug, Default)]
pub(super) struct Ends {
    running: JoinSet<Result<(), TargetError>>,
    steps: HashMap<Id, Step>,
    trouble: Option<String>,
}

impl Ends {
    /// Whether the instance is being ended.
    pub(super) fn hold(&self, instance: &InstanceId) -> bool {
        self.steps.values().any(|step| ended_by(step) == Some(instance))
    }

    /// Whether `step` is under way.
    pub(super) fn do_already(&self, step: &Step) -> bool {
        ended_by(step).is_some_and(|instance| self.hold(instance))
    }

    /// Why the last one failed, until one succeeds.
    pub(super) fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }

    /// The next that is over, and how it went; none when none is under way.
    pub(super) async fn next(&mut self) -> Option<(Step, Result<(), TargetError>)> {
        let joined = self.running.join_next_with_id().await?;
        self.over(joined)
    }

    /// One that is over already.
    pub(super) fn try_next(&mut self) -> Option<(Step, Result<(), TargetError>)> {
        let joined = self.running.try_join_next_with_id()?;
        self.over(joined)
    }

    fn over(
        &mut self,
        joined: Result<(Id, Result<(), TargetError>), JoinError>,
    ) -> Option<(Step, Result<(), TargetError>)> {
        let (id, result) = joined.unwrap_or_else(|error| {
            let panicked = TargetError::passing("end an instance", &error);
            (error.id(), Err(panicked))
        });
        self.trouble = result.as_ref().err().map(ToString::to_string);
        Some((self.steps.remove(&id)?, result))
    }

    fn begin<T: Target, C: Clock>(
        &mut self,
        target: &Arc<T>,
        clock: &Arc<C>,
        step: &Step,
        bound: Millis,
    ) {
        let (target, clock, action) = (target.clone(), clock.clone(), step.action.clone());
        let task = self.running.spawn(async move {
            let result = act(&*target, &*clock, &action, bound).await;
            if result.is_err() {
                clock.sleep_until(clock.now().after(PAUSE)).await;
            }
            result
        });
        self.steps.insert(task.id(), step.clone());
    }
}

/// The instance that a step ends, if it does that.
fn ended_by(step: &Step) -> Option<&InstanceId> {
    match &step.action {
        Action::Destroy(Doomed::Instance(id, _)) => Some(id),
        _ => None,
    }
}

/// Takes every step of `plan`; the results are in the order of the steps. Ends of instances that
/// no step waits for are begun only, and go on in `ends`.
pub(super) async fn execute<T: Target, C: Clock>(
    target: &Arc<T>,
    clock: &Arc<C>,
    plan: &Plan,
    bounds: &Bounds,
    ends: &mut Ends,
) -> Vec<Taken> {
    let count = plan.steps.len();
    let mut taken: Vec<Option<Taken>> = (0..count).map(|_| None).collect();
    let mut waits: Vec<usize> = plan.steps.iter().map(|s| s.after.len()).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (index, step) in plan.steps.iter().enumerate() {
        step.after.iter().for_each(|before| followers[*before].push(index));
    }
    let mut running: JoinSet<(usize, Result<(), TargetError>)> = JoinSet::new();
    let mut ready: Vec<usize> = (0..count).rev().filter(|i| waits[*i] == 0).collect();
    loop {
        while let Some(index) = ready.pop() {
            let step = &plan.steps[index];
            if ended_by(step).is_some() && followers[index].is_empty() {
                if !ends.do_already(step) {
                    ends.begin(target, clock, step, bounds.end);
                }
                taken[index] = Some(Taken::Begun);
                continue;
            }
            let (target, clock) = (target.clone(), clock.clone());
            let (action, bound) = (step.action.clone(), bounds.step);
            running.spawn(async move { (index, act(&*target, &*clock, &action, bound).await) });
        }
        let Some(joined) = running.join_next().await else { break };
        // A step that panicked is left as skipped; the next look shows what it did.
        let Ok((index, result)) = joined else { continue };
        let failed = result.is_err();
        taken[index] = Some(result.map_or_else(Taken::Failed, |()| Taken::Done));
        if !failed {
            for follower in &followers[index] {
                waits[*follower] -= 1;
                if waits[*follower] == 0 {
                    ready.push(*follower);
                }
            }
        }
    }
    taken.into_iter().map(|t| t.unwrap_or(Taken::Skipped)).collect()
}

async fn act<T: Target, C: Clock>(
    target: &T,
    clock: &C,
    action: &Action,
    bound: Millis,
) -> Result<(), TargetError> {
    let deadline = clock.now().after(bound);
    let work = async {
        match action {
            Action::Create(creation) => target.create(creation).await,
            Action::Route(table) => target.route(table).await,
            Action::Drain(instance) => target.drain(instance).await,
            Action::Destroy(doomed) => target.destroy(doomed).await,
        }
    };
    tokio::select! {
            biased;
        result = work => result,
        () = clock.sleep_until(deadline) => {
            Err(TargetError::passing(describe(action), format!("not done within {bound}")))
        }
    }
}

/// What an action is, in a few words.
pub(super) fn describe(action: &Action) -> String {
    match action {
        Action::Create(Creation::Network(n)) => format!("create {}", n.id),
        Action::Create(Creation::Instance(i)) => format!("create {}", i.id),
        Action::Route(table) => format!("route {} (epoch {})", table.stack, table.epoch),
        Action::Drain(id) => format!("drain {id}"),
        Action::Destroy(Doomed::Network(id) | Doomed::Instance(id, _)) => format!("destroy {id}"),
        Action::Destroy(Doomed::Data(_, database)) => format!("remove the data of {database}"),
    }
}
