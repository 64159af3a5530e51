//! The engine: keepers that hold stacks to their generations.

mod alarm;
mod execute;
mod keeper;
mod rollout;
mod scale;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::digest::Digest;
use kiln_model::generation::{Content, Generation, Origin};
use kiln_model::name::{ComponentId, StackName};
use kiln_model::observed::Observed;
use kiln_model::plan::{self, Plan, Report};
use kiln_model::quantity::Millis;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::actor::Actor;
use crate::clock::Clock;
use crate::journal::{Illegal, State};
use crate::progress::Progress;
use crate::store::{Store, StoreError};
use crate::target::Target;

pub use keeper::Keeper;
pub use scale::{Scaling, wanted};

/// What decides: [`kiln_model::plan::plan`], or what a test puts in its place.
pub type Planner = fn(&Generation, &Observed) -> (Plan, Report);

/// What keepers work with.
pub struct Engine<T, C, S> {
    /// Where the stacks run.
    pub target: Arc<T>,
    /// What time it is.
    pub clock: Arc<C>,
    /// Where decisions are kept.
    pub store: Arc<S>,
    /// What decides on steps.
    pub planner: Planner,
    /// Bounds.
    pub bounds: Bounds,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From one full look to the next when nothing is heard of.
    pub sweep: Millis,
    /// For one step but the end of an instance.
    pub step: Millis,
    /// For the end of an instance: more than the longest `stop` that a server may have.
    pub end: Millis,
    /// For one look.
    pub observe: Millis,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            sweep: Millis::seconds(5),
            step: Millis::seconds(60),
            end: Millis::seconds(3_660),
            observe: Millis::seconds(30),
        }
    }
}

impl<T: Target, C: Clock, S: Store> Engine<T, C, S> {
    /// An engine with the planner of the model.
    pub fn new(target: Arc<T>, clock: Arc<C>, store: Arc<S>) -> Self {
        Self { target, clock, store, planner: plan::plan, bounds: Bounds::default() }
    }
}

/// A content that somebody wants a stack to have.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// What is wanted.
    pub content: Content,
    /// The active generation that it was planned against, and was confirmed with.
    pub parent: Option<u64>,
    /// Where it comes from.
    pub origin: Origin,
    /// The commit that the stack's directory was at.
    pub commit: Option<String>,
    /// Who proposes it.
    pub by: Actor,
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is this generation, and is being rolled out.
    Started(u64),
    /// A rollout of the same content was under way: this generation's.
    Joined(u64),
    /// The stack has this content already: this generation.
    Unchanged(u64),
}

impl Committed {
    /// The generation's number.
    pub fn generation(self) -> u64 {
        match self {
            Self::Started(number) | Self::Joined(number) | Self::Unchanged(number) => number,
        }
    }
}

/// Why a proposal, or another request, was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The stack has changed since the proposal was planned.
    #[error(
        "{stack} is at {} now, and this was planned against {}: plan again and confirm anew",
        generation_name(*.found), generation_name(*.planned)
    )]
    ParentChanged {
        /// The stack.
        stack: StackName,
        /// What it was planned against.
        planned: Option<u64>,
        /// What is active.
        found: Option<u64>,
    },
    /// The stack is pinned, and this came from a branch that is followed.
    #[error("{stack} is pinned to generation {generation}: what follows a branch leaves it alone")]
    Pinned {
        /// The stack.
        stack: StackName,
        /// The generation that it is pinned to.
        generation: u64,
    },
    /// There is no such server.
    #[error("{stack} has no {component} that could be scaled")]
    NoSuchServer {
        /// The stack.
        stack: StackName,
        /// What was named.
        component: ComponentId,
    },
    /// There is no rollout to cancel.
    #[error("no rollout of {0} is under way")]
    NoRollout(StackName),
    /// The rollout can't be given up any more.
    #[error(
        "the rollout of {0} goes on: data has gone over to a newer major version, which the generation \
         before cannot take back, or that cannot be seen at present"
    )]
    PastReturn(StackName),
    /// The content has no canonical form.
    #[error("the proposal cannot be given a digest")]
    Encode(#[from] kiln_model::canonical::EncodeError),
    /// The store can't be used.
    #[error("the decision could not be stored; nothing was changed")]
    Store(#[from] StoreError),
    /// The journal does not make sense.
    #[error("the journal of the stack is damaged")]
    Journal(#[from] Illegal),
    /// The keeper has ended.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

fn generation_name(number: Option<u64>) -> String {
    number.map_or_else(|| "no generation".to_owned(), |n| format!("generation {n}"))
}

/// What a keeper can be asked.
pub(crate) enum Request {
    Commit(Box<Proposal>, oneshot::Sender<Result<Committed, Refusal>>),
    Scale(ComponentId, Option<u32>, Actor, oneshot::Sender<Result<(), Refusal>>),
    Pin(Option<u64>, Actor, oneshot::Sender<Result<(), Refusal>>),
    Cancel(Actor, oneshot::Sender<Result<u64, Refusal>>),
    Measure(oneshot::Sender<Arc<Snapshot>>),
}

/// What a keeper knew after its last look.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The generation that it aims at.
    pub desired: Arc<Generation>,
    /// What it saw.
    pub observed: Observed,
    /// What is being waited for.
    pub report: Report,
    /// What the journal says.
    pub state: State,
    /// The last error of a look or a step, until one succeeds.
    pub trouble: Option<String>,
    /// The servers whose counts follow demand.
    pub scaling: BTreeMap<ComponentId, Scaling>,
}

/// A handle on a keeper.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    progress: broadcast::Sender<Progress>,
}

impl Handle {
    /// Proposes a content. Returns once it is committed (durably, before any effect) or
    /// refused; where another rollout is under way, after its end.
    pub async fn commit(&self, proposal: Proposal) -> Result<Committed, Refusal> {
        self.ask(|reply| Request::Commit(Box::new(proposal), reply)).await?
    }

    /// Pins a server's count, or gives it back.
    pub async fn scale(
        &self,
        server: ComponentId,
        count: Option<u32>,
        by: Actor,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Request::Scale(server, count, by, reply)).await?
    }

    /// Pins the stack to a generation, or takes the pin out.
    pub async fn pin(&self, generation: Option<u64>, by: Actor) -> Result<(), Refusal> {
        self.ask(|reply| Request::Pin(generation, by, reply)).await?
    }

    /// Gives the rollout up that is under way; its number.
    pub async fn cancel(&self, by: Actor) -> Result<u64, Refusal> {
        self.ask(|reply| Request::Cancel(by, reply)).await?
    }

    /// Looks now.
    pub async fn measure(&self) -> Result<Arc<Snapshot>, Refusal> {
        self.ask(Request::Measure).await
    }

    /// What was seen last; `None` before the first look.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.borrow().clone()
    }

    /// What happens from now on.
    pub fn watch(&self) -> broadcast::Receiver<Progress> {
        self.progress.subscribe()
    }

    async fn ask<R>(
        &self,
        request: impl FnOnce(oneshot::Sender<R>) -> Request,
    ) -> Result<R, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Refusal::ShuttingDown)?;
        answer.await.map_err(|_| Refusal::ShuttingDown)
    }
}

/// How each digest's instances are probed, by the newest generation that names it.
fn probes<'a>(
    generations: impl Iterator<Item = &'a Arc<Generation>>,
) -> BTreeMap<Digest, kiln_model::spec::server::Health> {
    let mut probes = BTreeMap::new();
    for generation in generations {
        for (_, component, server) in generation.content.servers() {
            probes.insert(component.digest, server.policy.health.clone());
        }
    }
    probes
}
