//! What throw-away instances of a database do for its backups.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_database::{DatabaseEngine, Instance, engine};
use kiln_engine::backup::Wanted;
use kiln_model::data::Role;
use kiln_model::digest::Digest;
use kiln_model::name::InstanceId;
use kiln_model::spec::database::DatabaseIdentity;

use crate::launcher::protocol::{LaunchSpec, VolumeMount};
use crate::local::Machine;
use crate::local::create::chain;
use crate::local::database::place::Place;
use crate::local::database::program::{Run, STALLED, throw_away};

/// The names of throw-away instances, before what tells databases apart.
const NAMES: [&str; 3] = ["copy", "restore", "check"];
/// Digits that tell databases apart.
const DIGITS: usize = 12;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// What is stored is not as it should be; each with the name of what it is.
    Damaged(Vec<String>),
    /// It could not be found out.
    Failed(String),
}

impl Trouble {
    pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Self {
        Self::Failed(format!("{what}: {}", chain(error)))
    }

    /// In words.
    pub(super) fn text(self) -> String {
        match self {
            Self::Damaged(faults) => faults.join("; "),
            Self::Failed(why) => why,
        }
    }
}

/// What works on the backups of one database.
pub(super) struct Trade<'a> {
    pub(super) machine: &'a Arc<Machine>,
    pub(super) place: &'a Place,
    /// A directory of its own.
    pub(super) work: &'a Path,
    pub(super) engine: &'static dyn DatabaseEngine,
    identity: DatabaseIdentity,
    spec: LaunchSpec,
    tag: String,
    called_off: &'a dyn Fn() -> bool,
}

/// A throw-away instance that is to be.
pub(super) struct Own {
    pub(super) id: InstanceId,
    pub(super) identity: DatabaseIdentity,
}

impl Own {
    pub(super) fn of(&self, line: Option<String>) -> Instance<'_> {
        let at_least = std::collections::BTreeMap::new();
        Instance { id: &self.id, identity: &self.identity, at_least, beside: None, line }
    }
}

impl<'a> Trade<'a> {
    /// Verifies the image, and ends what an earlier daemon has left. `own` tells what is done at the same
    /// time apart.
    pub(super) fn new(
        machine: &'a Arc<Machine>,
        wanted: &Wanted,
        place: &'a Place,
        work: &'a Path,
        own: &str,
        called_off: &'a dyn Fn() -> bool,
    ) -> Result<Self, String> {
        let data = wanted.creation.data.as_ref().ok_or("it has no data")?;
        let spec = machine.prepared(&wanted.creation).map_err(|error| error.to_string())?;
        let tag = format!("{}.{} {own}", wanted.creation.stack, wanted.creation.component);
        let tag = Digest::of(tag.as_bytes()).hex()[..DIGITS].to_owned();
        for name in NAMES {
            throw_away(machine, &format!("{name}-{tag}")).map_err(|error| chain(&error))?;
        }
        let (engine, identity) = (engine(data.identity.engine), data.identity.clone());
        Ok(Self { machine, place, work, engine, identity, spec, tag, called_off })
    }

    pub(super) fn is_called_off(&self) -> bool {
        (self.called_off)()
    }

    /// A throw-away instance; `what` is in its name.
    pub(super) fn instance(&self, what: &str) -> Result<Own, String> {
        let name = format!("{}-{}", what.to_lowercase(), self.tag);
        let id = name.parse().map_err(|error| format!("{name}: {error}"))?;
        Ok(Own { id, identity: self.identity.clone() })
    }

    pub(super) fn run(&self, name: &str, grows: &'a Path, volumes: Vec<VolumeMount>) -> Run<'_> {
        Run {
            machine: self.machine,
            spec: &self.spec,
            user: self.engine.layout().user,
            name: format!("{name}-{}", self.tag),
            of: format!("backups, {name}"),
            volumes,
            grows,
            patience: STALLED,
            called_off: self.called_off,
        }
    }

    /// Whether an instance took writes when it was last asked.
    pub(super) fn takes_writes(&self, id: &InstanceId) -> bool {
        self.machine.databases.last_role(id) == Some(Role::Primary)
    }
}

/// A place of its own for a database's backups, below the root.
pub(super) fn work(root: &Path, wanted: &Wanted) -> PathBuf {
    let (stack, component) = (&wanted.creation.stack, &wanted.creation.component);
    root.join("run/backups").join(format!("{stack}.{}", component.host_name()))
}
