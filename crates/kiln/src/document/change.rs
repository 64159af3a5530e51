//! Plans, differences between generations, and what became of a change.

use kiln_model::change::{Action, Because, Change};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Outputs;

/// What `plan` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "plan")]
pub(crate) struct PlanDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The number that the next generation gets.
    pub(crate) generation: u64,
    /// The generation that serves now; null where none does.
    pub(crate) parent: Option<u64>,
    /// Every component's change, in the order of kind and name.
    pub(crate) changes: Vec<ChangeDocument>,
    /// The outputs that the stack would have.
    pub(crate) outputs: Outputs,
}

/// What `diff` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "diff")]
pub(crate) struct DiffDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The generation that is compared from.
    pub(crate) from: u64,
    /// The generation that is compared to.
    pub(crate) to: u64,
    /// Every component's change from the one to the other.
    pub(crate) changes: Vec<ChangeDocument>,
}

/// One component's change.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ChangeDocument {
    /// The component's kind.
    pub(crate) kind: String,
    /// The component's name.
    pub(crate) name: String,
    /// What happens to it.
    pub(crate) action: ActionDocument,
    /// Its digest so far; null where it is new.
    pub(crate) from: Option<String>,
    /// Its digest from now on; null where it is destroyed or not known before apply.
    pub(crate) to: Option<String>,
    /// Why `to` is not known before apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unknown: Option<String>,
    /// The values that differ: its own, and those of what it is built from.
    pub(crate) because: Vec<BecauseDocument>,
}

/// What happens to a component. There is no fifth thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActionDocument {
    /// Its digest stays; at most its policy is another.
    Keep,
    /// It is new.
    Create,
    /// New instances take the place of the old.
    Replace,
    /// It is not declared any more.
    Destroy,
}

/// A value that differs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct BecauseDocument {
    /// Where it stands, such as `image.web.packages`.
    pub(crate) path: String,
    /// The value so far; null where there was none.
    pub(crate) from: Value,
    /// The value from now on; null where there is none.
    pub(crate) to: Value,
    /// The references by which it reaches the component, nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) through: Vec<String>,
    /// Whether it is policy, which replaces nobody.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) policy: bool,
}

impl ChangeDocument {
    /// All changes.
    pub(crate) fn all(changes: &[Change]) -> Vec<Self> {
        changes.iter().map(Self::from).collect()
    }
}

impl From<&Change> for ChangeDocument {
    fn from(change: &Change) -> Self {
        Self {
            kind: change.kind.to_string(),
            name: change.name.clone(),
            action: match change.action {
                Action::Keep => ActionDocument::Keep,
                Action::Create => ActionDocument::Create,
                Action::Replace => ActionDocument::Replace,
                Action::Destroy => ActionDocument::Destroy,
            },
            from: change.from.map(|d| d.to_string()),
            to: change.to.map(|d| d.to_string()),
            unknown: change.unknown.as_ref().map(ToString::to_string),
            because: change.because.iter().map(BecauseDocument::from).collect(),
        }
    }
}

impl From<&Because> for BecauseDocument {
    fn from(because: &Because) -> Self {
        Self {
            path: because.path.clone(),
            from: because.from.clone(),
            to: because.to.clone(),
            through: because.through.iter().map(ToString::to_string).collect(),
            policy: because.policy,
        }
    }
}

/// What `apply`, `rollback`, `scale` and `destroy` print when it is over.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "change")]
pub(crate) struct ChangeOutcome {
    /// The stack.
    pub(crate) stack: String,
    /// The generation that it was about; null where nothing was committed.
    pub(crate) generation: Option<u64>,
    /// How it ended.
    pub(crate) outcome: Ending,
    /// The generation that serves now; null where none does.
    pub(crate) serving: Option<u64>,
    /// Why it was given up, by component.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reasons: Vec<ReasonDocument>,
    /// The outputs of what serves now.
    pub(crate) outputs: Outputs,
    /// How long it took, in milliseconds.
    pub(crate) duration_ms: u64,
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    /// What was wanted serves.
    Applied,
    /// It was there already.
    Unchanged,
    /// It was given up; what served before serves on.
    Abandoned,
    /// The person left while it goes on.
    Detached,
    /// The person said no.
    Declined,
}

/// One thing that stood in the way.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ReasonDocument {
    /// The component, where it belongs to one.
    pub(crate) component: Option<String>,
    /// What is known of the cause.
    pub(crate) cause: String,
    /// The last lines that the failed instance wrote.
    pub(crate) last_words: Vec<String>,
}

impl From<&kiln_engine::journal::Blame> for ReasonDocument {
    fn from(blame: &kiln_engine::journal::Blame) -> Self {
        Self {
            component: blame.component.as_ref().map(ToString::to_string),
            cause: blame.cause.clone(),
            last_words: blame.last_words.clone(),
        }
    }
}
