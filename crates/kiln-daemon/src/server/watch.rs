//! Watching a change to its end, for a client that waits.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Sender;
use kiln_engine::engine::{Handle, Snapshot};
use kiln_engine::journal::Abandonment;
use kiln_engine::progress::{Progress, ProgressEvent};
use kiln_model::name::ComponentId;
use kiln_model::plan::{DRAIN_BOUND, Outcome};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::api::{Decision, End, Line};

/// How often the state is looked at when nothing is heard.
const TICK: Duration = Duration::from_millis(250);

/// What a client waits for.
pub(super) struct Goal {
    /// What was decided.
    pub(super) decision: Decision,
    /// The count that was pinned (`Some(None)`: given back), where that was the request.
    pub(super) scaled: Option<(ComponentId, Option<u32>)>,
}

/// Sends what happens until the goal is reached or given up. Ends early where the client is gone.
pub(super) async fn watch_to_the_end(
    handle: Handle,
    mut heard: Receiver<Progress>,
    goal: Goal,
    mut out: Sender<Bytes>,
) {
    if send(&mut out, &Line::Decided(goal.decision)).await.is_none() {
        return;
    }
    let end = match goal.decision {
        Decision::Unchanged(generation) => Some(End::Active { generation, settled: true }),
        _ => watch(&handle, &mut heard, &goal, &mut out).await,
    };
    if let Some(end) = end {
        // A client that has gone away is told nothing.
        let _ = send(&mut out, &Line::End(end)).await;
    }
}

async fn watch(
    handle: &Handle,
    heard: &mut Receiver<Progress>,
    goal: &Goal,
    out: &mut Sender<Bytes>,
) -> Option<End> {
    let number = goal.decision.generation();
    let mut given_up: Option<Abandonment> = None;
    let mut bound: Option<Instant> = None;
    loop {
        match tokio::time::timeout(TICK, heard.recv()).await {
            Ok(Ok(progress)) => {
                if let ProgressEvent::Abandoned { generation, reason } = &progress.event
                    && *generation == number
                {
                    given_up = Some(reason.clone());
                }
                send(out, &Line::Progress(progress)).await?;
            }
            // What was missed is not shown; the state says how it ends.
            Err(_) | Ok(Err(RecvError::Lagged(_))) => {}
            Ok(Err(RecvError::Closed)) => return None,
        }
        let Some(snapshot) = handle.snapshot() else { continue };
        if let Some((_, reason)) =
            snapshot.state.abandoned.as_ref().filter(|(generation, _)| *generation == number)
        {
            given_up.get_or_insert_with(|| reason.clone());
        }
        if given_up.is_none() && !is_reached(&snapshot, goal) {
            continue;
        }
        let bound = *bound.get_or_insert_with(|| Instant::now() + Duration::from(DRAIN_BOUND));
        let settled = is_settled(&snapshot, number, given_up.is_some());
        if !settled && Instant::now() < bound {
            continue;
        }
        return Some(match given_up {
            Some(reason) => {
                End::Abandoned { generation: number, reason, serving: snapshot.state.active }
            }
            None => End::Active { generation: number, settled },
        });
    }
}

/// Whether what was asked for serves.
fn is_reached(snapshot: &Snapshot, goal: &Goal) -> bool {
    let number = goal.decision.generation();
    match &goal.scaled {
        None => snapshot.state.active.is_some_and(|active| active >= number),
        Some((component, count)) => {
            snapshot.state.scale.get(component) == count.as_ref()
                && matches!(snapshot.report.outcome, Outcome::Ready | Outcome::Converged)
        }
    }
}

/// Whether nothing is left to be done. A snapshot of a generation that was given up may still
/// be aimed at it.
fn is_settled(snapshot: &Snapshot, number: u64, given_up: bool) -> bool {
    let aimed_back = !given_up || snapshot.desired.number != number;
    aimed_back && snapshot.report.outcome == Outcome::Converged
}

async fn send(out: &mut Sender<Bytes>, line: &Line) -> Option<()> {
    let mut text = serde_json::to_vec(line).ok()?;
    text.push(b'\n');
    out.send_data(text.into()).await.ok()
}
