//! What the evaluation of a stack asks of its directory, its lock and the root's keys.

use std::path::Path;

use kiln_config::stack::Surroundings;
use kiln_engine::secret::Secrets;
use kiln_image::debian::suite::native_architecture;
use kiln_image::lock::Lock;
use kiln_model::address::Offsets;
use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::spec::image::Recipe;

use crate::ledger::Ledger;

/// A stack's directory, lock and root.
pub(super) struct Around<'a> {
    directory: &'a Path,
    lock: &'a Lock,
    ledger: Option<&'a Ledger>,
}

impl<'a> Around<'a> {
    pub(super) fn new(directory: &'a Path, lock: &'a Lock, ledger: Option<&'a Ledger>) -> Self {
        Self { directory, lock, ledger }
    }
}

impl Surroundings for Around<'_> {
    fn copied(&self, from: &str) -> Result<Digest, String> {
        kiln_image::copy::digest(self.directory, from).map_err(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            text
        })
    }

    fn locked_inputs(&self, _: &ComponentId, recipe: &Recipe) -> Option<Digest> {
        self.lock.inputs(recipe, native_architecture()).ok()
    }

    /// Addresses stay from a generation to its child. Where the store can't be read, that is
    /// found when the parent is looked for.
    fn carried(&self, stack: &StackName) -> Offsets {
        let active = self.ledger.and_then(|ledger| ledger.active(stack).ok().flatten());
        active.map(|generation| generation.content.offsets.clone()).unwrap_or_default()
    }

    /// The version of a given value needs the root's key; that of a generated one stands in the
    /// parent generation.
    fn secret_version(&self, _: &ComponentId, value: Option<&[u8]>) -> Option<String> {
        let ledger = self.ledger?;
        value.map(|value| Secrets::version_of(ledger.key(), value))
    }
}
