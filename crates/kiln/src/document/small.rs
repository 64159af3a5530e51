//! Documents of a few fields.

use kiln_daemon::api::follows::Following;
use schemars::JsonSchema;
use serde::Serialize;

use super::failure::Message;

/// What `init` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "init")]
pub(crate) struct InitDocument {
    /// The files that were written.
    pub(crate) created: Vec<String>,
}

/// What `validate` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "validate")]
pub(crate) struct ValidateDocument {
    /// The stack.
    pub(crate) stack: String,
    /// Whether it can be planned; always true: errors are a failure.
    pub(crate) valid: bool,
    /// How many components it declares.
    pub(crate) components: usize,
    /// What probably means something else than it says.
    pub(crate) warnings: Vec<Message>,
}

/// What `fmt` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "fmt")]
pub(crate) struct FmtDocument {
    /// The files that are not (with `--check`) or were not in canonical form.
    pub(crate) changed: Vec<String>,
}

/// What `resume` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "resume")]
pub(crate) struct ResumeDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The generation that it was pinned to; null where it was not.
    pub(crate) was_pinned: Option<u64>,
}

/// What `follow` prints without a URL; with one, it prints one of the list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "follows")]
pub(crate) struct FollowsDocument {
    /// The branches that are followed.
    pub(crate) follows: Vec<Following>,
}

/// What `version` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "version")]
pub(crate) struct VersionDocument {
    /// The program's version.
    pub(crate) version: String,
    /// The system that it was built for.
    pub(crate) target: String,
}
