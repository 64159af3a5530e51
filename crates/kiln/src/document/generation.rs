//! Generations: their list, and one of them in full.

use kiln_daemon::ledger::{Chapter, Fate};
use kiln_engine::journal::AbandonKind;
use kiln_model::generation::Origin;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::change::ReasonDocument;
use super::{Outputs, outputs};

/// What `history` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "history")]
pub(crate) struct HistoryDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The generation that serves.
    pub(crate) active: Option<u64>,
    /// All generations, newest first.
    pub(crate) generations: Vec<Summary>,
}

/// One generation, in short.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Summary {
    /// Its number.
    pub(crate) generation: u64,
    /// The generation that served when it was planned.
    pub(crate) parent: Option<u64>,
    /// `rolling_out`, `active`, `retired` or `abandoned`.
    pub(crate) state: String,
    /// `apply`, `follow`, `rollback` or `destroy`.
    pub(crate) origin: String,
    /// The generation whose content a rollback brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollback_to: Option<u64>,
    /// The commit that it came from.
    pub(crate) commit: Option<String>,
    /// When it was made.
    pub(crate) created_at: String,
    /// How many components it has.
    pub(crate) components: usize,
    /// `deadline`, `refused`, `cancelled` or `superseded`, of one that was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) abandoned: Option<String>,
    /// What stood in its way, of one that was given up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reasons: Vec<ReasonDocument>,
}

/// What `show` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "generation")]
pub(crate) struct GenerationDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The generation, in short.
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// The content of each component.
    pub(crate) content: Vec<ComponentDocument>,
    /// The outputs.
    pub(crate) outputs: Outputs,
}

/// A component of a generation.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ComponentDocument {
    /// Its kind.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// The digest of its identity.
    pub(crate) digest: String,
    /// The digest of what was built, of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) built: Option<String>,
    /// What it is and how it is handled; sensitive values are left out.
    pub(crate) spec: Value,
}

impl Summary {
    /// A generation in short.
    pub(crate) fn of(chapter: &Chapter) -> Self {
        let generation = &chapter.generation;
        let (origin, rollback_to) = match generation.origin {
            Origin::Apply => ("apply", None),
            Origin::Follow => ("follow", None),
            Origin::Rollback { to } => ("rollback", Some(to)),
            Origin::Destroy => ("destroy", None),
        };
        let given_up = match &chapter.fate {
            Fate::Abandoned(reason) => Some(reason),
            Fate::RollingOut | Fate::Active | Fate::Retired => None,
        };
        Self {
            generation: generation.number,
            parent: generation.parent,
            state: match &chapter.fate {
                Fate::RollingOut => "rolling_out",
                Fate::Active => "active",
                Fate::Retired => "retired",
                Fate::Abandoned(_) => "abandoned",
            }
            .to_owned(),
            origin: origin.to_owned(),
            rollback_to,
            commit: generation.commit.clone(),
            created_at: generation.created_at.to_string(),
            components: generation.content.components.len(),
            abandoned: given_up.map(|reason| abandoned(reason.kind).to_owned()),
            reasons: given_up.iter().flat_map(|r| &r.blame).map(ReasonDocument::from).collect(),
        }
    }
}

/// The word for what ended a rollout.
fn abandoned(kind: AbandonKind) -> &'static str {
    match kind {
        AbandonKind::Deadline => "deadline",
        AbandonKind::Refused => "refused",
        AbandonKind::Worse => "worse",
        AbandonKind::Cancelled => "cancelled",
        AbandonKind::Superseded => "superseded",
    }
}

impl GenerationDocument {
    /// A generation in full.
    pub(crate) fn of(chapter: &Chapter) -> Self {
        let content = &chapter.generation.content;
        let component = |(id, component): (
            &kiln_model::name::ComponentId,
            &kiln_model::generation::Component,
        )| ComponentDocument {
            kind: id.kind.to_string(),
            name: id.name.clone(),
            digest: component.digest.to_string(),
            built: content.images.get(id).map(ToString::to_string),
            spec: crate::render::spec::shown(&component.spec),
        };
        Self {
            stack: chapter.generation.stack.to_string(),
            summary: Summary::of(chapter),
            content: content.components.iter().map(component).collect(),
            outputs: outputs(&content.outputs),
        }
    }
}
