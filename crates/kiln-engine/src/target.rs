//! The seam to a place that can hold components.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use crate::alarm::Raised;
use crate::backup::{Answer, Ask, Wanted};
use crate::guard::GuardReport;
use crate::metrics::Family;
use kiln_model::alarm::Alarm;
use kiln_model::data::{ObservedGate, ObservedVolume};
use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::{Observed, ObservedInstance, ObservedNetwork};
use kiln_model::plan::{Creation, Doomed};
use kiln_model::quantity::Timestamp;
use kiln_model::route::RouteTable;
use kiln_model::scaling::Demand;
use kiln_model::spec::rollout::Check;
use kiln_model::spec::scale::NumberTarget;
use kiln_model::spec::server::Health;

/// How the instances of each digest are probed: what the newest generation that names the
/// digest says.
pub type Probes = Arc<BTreeMap<Digest, Health>>;

/// A place that can hold components: this machine, and later a cluster or a cloud.
///
/// There is no method that changes something that exists. What a target made can be looked
/// at, routed to, drained and destroyed.
pub trait Target: Send + Sync + 'static {
    /// Measures what there is of `stack`, in the order of ids. What is half made is shown as
    /// not whole.
    ///
    /// An instance that is in rotation when it is first seen counts as ready until its probes
    /// say otherwise: it was proved before.
    fn observe(
        &self,
        stack: &StackName,
        probes: &Probes,
    ) -> impl Future<Output = Result<Measured, TargetError>> + Send;

    /// Makes something new. When it fails nothing of it is left, or what is left is shown by
    /// [`observe`](Self::observe) as not whole.
    fn create(&self, creation: &Creation) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Replaces the gateway's table of a stack, whole or not at all. When it returns, no new
    /// request goes to an instance that the table does not name.
    fn route(&self, table: &RouteTable) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Marks an instance that is out of rotation as draining, durably.
    fn drain(&self, instance: &InstanceId) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Ends something and removes all that is left of it. Succeeds where there is nothing. Where
    /// evidence is to be kept and can't be, it is ended all the same.
    fn destroy(&self, doomed: &Doomed) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Returns when something of `stack` may have changed since the last call returned. It may
    /// return without a reason, and may miss an event: the engine sweeps besides.
    fn changed(&self, stack: &StackName) -> impl Future<Output = ()> + Send;

    /// Measures everything of `stack` anew, so that the next [`observe`](Self::observe) tells of it:
    /// that may rest on what was measured a moment before.
    fn inspect(&self, stack: &StackName) -> impl Future<Output = ()> + Send {
        let _ = stack;
        std::future::ready(())
    }

    /// What the target's guard says of itself, where it has one.
    fn guard(&self) -> Option<GuardReport> {
        None
    }

    /// What is to be backed up of a stack from now on, and nothing else. Returns at once.
    fn back_up(&self, stack: &StackName, wanted: Vec<Wanted>) {
        let _ = (stack, wanted);
    }

    /// Asks about the backups of a database. It may take long.
    fn backups(
        &self,
        stack: &StackName,
        database: &ComponentId,
        ask: Ask,
    ) -> impl Future<Output = Result<Answer, TargetError>> + Send {
        let _ = (stack, ask);
        let what = format!("ask for the backups of {database}");
        std::future::ready(Err(TargetError::passing(what, "nothing is backed up here")))
    }

    /// What it raises alarms for itself: all since it was last asked.
    fn alarms(&self, stack: &StackName) -> Vec<Alarm> {
        let _ = stack;
        Vec::new()
    }

    /// Tells whom an alarm names of it. Returns at once; who can't be told is tried a few times, and
    /// given up.
    fn alarm(&self, raised: Raised) {
        drop(raised);
    }

    /// Asks a check of a rollout; why it does not pass. Whoever calls bounds its time.
    fn examine(&self, examination: &Examination)
    -> impl Future<Output = Result<(), String>> + Send;
    /// Measures what is asked of `stack`'s servers and what `instances` use. It is asked for
    /// several times a second, so it is cheap; what can't be measured is left out.
    fn demand(
        &self,
        stack: &StackName,
        instances: &[InstanceId],
    ) -> impl Future<Output = Result<Demand, TargetError>> + Send;

    /// The number that a program prints, in thousandths, or why there is none. The program is
    /// ended when the future is dropped.
    fn number(&self, asked: &NumberTarget) -> impl Future<Output = Result<u64, String>> + Send;

    /// The last lines that an instance wrote, also after its end.
    fn last_words(
        &self,
        instance: &InstanceId,
        lines: usize,
    ) -> impl Future<Output = Vec<String>> + Send;

    /// What is measured of everything that it holds, for monitoring.
    fn metrics(&self) -> impl Future<Output = Result<Vec<Family>, TargetError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }
}

/// A check of a rollout that is to be asked.
#[derive(Debug, Clone)]
pub struct Examination {
    /// The stack.
    pub stack: StackName,
    /// The server that is replaced.
    pub component: ComponentId,
    /// The generation that is being rolled out.
    pub generation: u64,
    /// The new instances that are ready; at least one.
    pub instances: Vec<InstanceId>,
    /// The check.
    pub check: Check,
}

/// What a target sees of a stack.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// When.
    pub at: Timestamp,
    /// The network instances.
    pub networks: Vec<ObservedNetwork>,
    /// The server instances.
    pub instances: Vec<ObservedInstance>,
    /// What the gateway routes for the stack; `None` where no gateway runs.
    pub table: Option<RouteTable>,
    /// The databases' data.
    pub volumes: Vec<ObservedVolume>,
    /// What the gateway does for databases.
    pub gates: Vec<ObservedGate>,
    /// What is wrong with endpoints that serve all the same, in words.
    pub troubles: BTreeMap<ComponentId, String>,
}

impl Measured {
    /// As the planner wants it, with nothing of the journal yet.
    pub fn into_observed(self) -> Observed {
        let Self { at, networks, instances, table, volumes, gates, troubles } = self;
        let nothing = Observed::default();
        Observed { at, networks, instances, table, volumes, gates, troubles, ..nothing }
    }
}

/// Why a target could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {cause}{}", .hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
pub struct TargetError {
    /// What was attempted, with the thing's name.
    pub what: String,
    /// Why it failed.
    pub cause: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
    /// Whether trying again is of no use: a rollout that meets it is given up at once.
    pub permanent: bool,
}

impl TargetError {
    /// A failure that may pass.
    pub fn passing(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self { what: what.into(), cause: cause.to_string(), hint: None, permanent: false }
    }

    /// A failure that stays until somebody acts on `hint`.
    pub fn permanent(
        what: impl Into<String>,
        cause: impl std::fmt::Display,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            cause: cause.to_string(),
            hint: Some(hint.into()),
            permanent: true,
        }
    }
}
