//! Taking the steps of a plan: at once where their order allows, each within its bound.

use std::sync::Arc;

use kiln_model::plan::{Action, Creation, Doomed, Plan};
use kiln_model::quantity::Millis;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::target::{Target, TargetError};

/// What became of one step.
#[derive(Debug)]
pub(super) enum Taken {
    /// It succeeded.
    Done,
    /// It failed.
    Failed(TargetError),
    /// A step before it failed.
    Skipped,
}

/// Takes every step of `plan`; the results are in the order of the steps.
pub(super) async fn execute<T: Target, C: Clock>(
    target: &Arc<T>,
    clock: &Arc<C>,
    plan: &Plan,
    bound: Millis,
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
            let (target, clock) = (target.clone(), clock.clone());
            let action = plan.steps[index].action.clone();
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
        Action::Destroy(Doomed::Network(id) | Doomed::Instance(id)) => format!("destroy {id}"),
    }
}
