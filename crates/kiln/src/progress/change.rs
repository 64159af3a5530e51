//! A change on its way: what the daemon says, shown to the person, who may take it back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kiln_daemon::api::{Decision, End, Line};
use kiln_daemon::client::{Client, Lines};
use kiln_engine::progress::{Progress, ProgressEvent};
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::plan::{Milestone, Reason, Waiting};

use crate::context::Context;
use crate::error::CommandError;

use super::{Board, bar};

/// How often the lines below are drawn anew while nothing is heard.
const TICK: Duration = Duration::from_millis(250);

/// How watching ended.
#[derive(Debug)]
pub(crate) enum Watched {
    /// The change did.
    Ended(Decision, End),
    /// The person left.
    Detached(Decision),
}

/// Shows what happens until the end. The first Ctrl-C takes back what this client began, the
/// next one leaves it.
pub(crate) async fn watch(
    context: &Context,
    stack: &StackName,
    mut lines: Lines,
    board: &Board,
) -> Result<Watched, CommandError> {
    let mut view = View::new(board);
    let mut decision = None;
    let mut cancelled = false;
    loop {
        let line = tokio::select! {
            line = lines.next() => line?,
            () = tokio::time::sleep(TICK) => {
                view.draw();
                continue;
            }
            _ = tokio::signal::ctrl_c() => {
                let Some(decision) = decision else {
                    // The request is on its way; whether it was decided on is not known yet.
                    return Err(CommandError::failed("left before the daemon had answered")
                        .with_help("`kiln status` shows whether it was committed"));
                };
                if cancelled || !matches!(decision, Decision::Started(_)) {
                    return Ok(Watched::Detached(decision));
                }
                cancelled = true;
                cancel(context, stack, decision, board).await?;
                continue;
            }
        };
        match line {
            Some(Line::Decided(decided)) => {
                decision = Some(decided);
                view.decided(decided);
            }
            Some(Line::Progress(progress)) => view.progress(&progress),
            Some(Line::End(end)) => {
                board.finish();
                let decision = decision.unwrap_or(Decision::Unchanged(0));
                return Ok(Watched::Ended(decision, end));
            }
            None => {
                return Err(CommandError::failed("the daemon ended before the change did")
                    .with_help(
                        "what was committed goes on with the next daemon: `kiln status` starts \
                         one and shows how far it has come",
                    ));
            }
        }
    }
}

async fn cancel(
    context: &Context,
    stack: &StackName,
    decision: Decision,
    board: &Board,
) -> Result<(), CommandError> {
    let generation = decision.generation();
    board.line(&format!(
        "taking generation {generation} back; press Ctrl-C again to leave that to the daemon"
    ));
    // The first connection carries the stream.
    let mut client = Client::connect(&context.root).await?;
    match client.cancel(stack).await {
        // It ended in this very moment: the stream says how.
        Ok(_) | Err(kiln_daemon::client::ClientError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What is shown.
struct View<'a> {
    board: &'a Board,
    begun: Instant,
    waiting: Vec<Waiting>,
    /// Servers that were waited for, and how many instances they want.
    seen: BTreeMap<ComponentId, u32>,
    /// What each instance is one of.
    of: BTreeMap<InstanceId, ComponentId>,
    last_failure: Option<String>,
}

impl<'a> View<'a> {
    fn new(board: &'a Board) -> Self {
        Self {
            board,
            begun: Instant::now(),
            waiting: Vec::new(),
            seen: BTreeMap::new(),
            of: BTreeMap::new(),
            last_failure: None,
        }
    }

    fn decided(&self, decision: Decision) {
        let generation = decision.generation();
        match decision {
            Decision::Started(_) => self.board.line(&format!("generation {generation} committed")),
            Decision::Joined(_) => {
                let text = format!("generation {generation} has this content and is on its way");
                self.board.line(&text);
            }
            Decision::Unchanged(_) | Decision::Scaled(_) => {}
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let palette = self.board.palette();
        match &progress.event {
            ProgressEvent::Created { component, instance, because } => {
                self.of.insert(instance.clone(), component.clone());
                let plus = palette.green("+");
                self.board.line(&format!("{plus} {component}: {instance} made ({because})"));
            }
            ProgressEvent::Draining { instance, because } => {
                let tilde = palette.yellow("~");
                self.board.line(&format!("{tilde} {instance} drains ({because})"));
            }
            ProgressEvent::Destroyed { instance, .. } => {
                self.board.line(&format!("{} {instance} gone", palette.red("-")));
            }
            ProgressEvent::Failed { error } => {
                // The same failure again and again is said once.
                if self.last_failure.as_ref() != Some(error) {
                    self.board.line(&format!("{} {error}", palette.red("!")));
                    self.last_failure = Some(error.clone());
                }
            }
            ProgressEvent::Sized { component, count, because } => {
                self.board.line(&format!("{component}: scaled to {count} ({because})"));
            }
            ProgressEvent::Waiting { waiting } => self.wait_for(waiting),
            ProgressEvent::Reached { generation, milestone } => {
                self.board.line(&reached(*generation, milestone));
            }
            ProgressEvent::Active { generation } => {
                self.waiting.clear();
                self.board.line(&format!("generation {generation} serves"));
            }
            ProgressEvent::Abandoned { generation, .. } => {
                self.waiting.clear();
                self.board.line(&format!("generation {generation} is given up"));
            }
            ProgressEvent::Committed { .. }
            | ProgressEvent::Routed { .. }
            | ProgressEvent::Converged { .. } => {}
        }
        self.draw();
    }

    /// Says how many are ready, where no lines can be drawn anew.
    fn wait_for(&mut self, waiting: &[Waiting]) {
        for one in waiting {
            let before = self.waiting.iter().find(|w| w.component == one.component);
            let counts = |w: &Waiting| (w.ready, w.wanted, w.why.clone());
            if !self.board.is_live() && before.map(counts) != Some(counts(one)) {
                self.board.line(&describe(one));
            }
            self.seen.insert(one.component.clone(), one.wanted);
        }
        self.waiting = waiting.to_vec();
    }

    fn draw(&self) {
        let palette = self.board.palette();
        let width = self.seen.keys().map(|id| id.to_string().len()).max().unwrap_or(0);
        let mut lines: Vec<String> = Vec::new();
        for (component, wanted) in &self.seen {
            let waiting = self.waiting.iter().find(|w| w.component == *component);
            let ready = waiting.map_or(*wanted, |w| w.ready);
            let filled = bar(u64::from(ready), u64::from(*wanted), 16);
            let filled =
                if ready >= *wanted { palette.green(&filled) } else { palette.yellow(&filled) };
            let name = format!("{:width$}", component.to_string());
            let why = waiting.and_then(|w| w.why.as_ref()).map(hindrance);
            let why = palette.dim(&why.unwrap_or_default());
            lines.push(format!("  {name} {filled} {ready}/{wanted} {why}"));
        }
        if !lines.is_empty() {
            let elapsed = crate::render::time::span(self.begun.elapsed());
            lines.push(palette.dim(&format!("  {elapsed}")));
            self.board.below(&lines);
        }
    }
}

/// What stands in the way of something that may yet get ready.
fn hindrance(why: &Reason) -> String {
    match why {
        Reason::NeverReady { last: Some(last) } => last.clone(),
        why => why.to_string(),
    }
}

fn describe(waiting: &Waiting) -> String {
    let Waiting { component, ready, wanted, why, .. } = waiting;
    match why {
        Some(why) => format!("{component}: {ready}/{wanted} ready ({})", hindrance(why)),
        None => format!("{component}: {ready}/{wanted} ready"),
    }
}

/// What a rollout has come to, in words.
fn reached(generation: u64, milestone: &Milestone) -> String {
    match milestone {
        Milestone::Step { component, step } => {
            format!("{component}: step {} is in force", step + 1)
        }
        Milestone::Serving => format!("generation {generation} serves, and is watched"),
    }
}
