//! Documents about what has drifted.

use schemars::JsonSchema;
use serde::Serialize;

/// What `incidents` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "incidents")]
pub(crate) struct IncidentsDocument {
    /// The incidents, the oldest first.
    pub(crate) incidents: Vec<IncidentDocument>,
}

/// Something that was found not to be what it was made as; what `incidents show` prints.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(title = "incident")]
pub(crate) struct IncidentDocument {
    /// The instance or network.
    pub(crate) id: String,
    /// The stack.
    pub(crate) stack: String,
    /// The component.
    pub(crate) component: String,
    /// When it was found, RFC 3339 in UTC; null where only the evidence tells of it.
    pub(crate) found_at: Option<String>,
    /// In what it differed.
    pub(crate) differences: Vec<DifferenceDocument>,
    /// Whether evidence of it was to be kept.
    pub(crate) quarantine: bool,
    /// The directory with the evidence; null where there is none.
    pub(crate) bundle: Option<String>,
    /// When the evidence was saved.
    pub(crate) saved_at: Option<String>,
    /// Whether it was frozen while it was saved.
    pub(crate) frozen: Option<bool>,
    /// The digest that it was made from, as the evidence says.
    pub(crate) digest: Option<String>,
    /// The generation that it was made for, as the evidence says.
    pub(crate) generation: Option<u64>,
    /// The files of the evidence.
    pub(crate) files: Vec<FileDocument>,
    /// What is not in the evidence, and why.
    pub(crate) omitted: Vec<String>,
}

/// One difference between what something was and what it was made as.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct DifferenceDocument {
    /// What differed, such as `cgroup.memory`.
    pub(crate) what: String,
    /// What it was made as.
    pub(crate) expected: String,
    /// What was measured.
    pub(crate) found: String,
}

/// One file of a bundle.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct FileDocument {
    /// Its name, below the bundle's directory.
    pub(crate) name: String,
    /// Its size, bytes.
    pub(crate) size: u64,
}
