//! The bounds of an instance, as its control groups have them.

use std::io;
use std::path::PathBuf;

use kiln_model::drift::{Aspect, Drift};

use crate::cgroup::Group;
use crate::launcher::protocol::Limits;

/// A file of a control group and what it is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    path: PathBuf,
    expected: String,
    aspect: Aspect,
}

impl Bound {
    /// All that are measured of a group with these limits.
    pub(super) fn all(group: &Group, limits: &Limits) -> Vec<Self> {
        let bounds = group.bounds(limits).into_iter();
        bounds.map(|(path, expected, aspect)| Self { path, expected, aspect }).collect()
    }

    /// The difference, where there is one. A file that this kernel does not have says nothing.
    pub(super) fn difference(&self) -> io::Result<Option<Drift>> {
        let found = std::fs::read_to_string(&self.path)?;
        let found = found.trim_end();
        let differs = found != self.expected;
        Ok(differs.then(|| Drift::new(self.aspect, self.expected.clone(), found)))
    }
}
