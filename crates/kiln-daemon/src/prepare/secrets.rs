//! Versions of secrets: carried from the parent where they are generated, kept before a commit.

use std::cell::OnceCell;

use kiln_engine::secret::Secrets;
use kiln_model::spec::Body;
use kiln_model::spec::secret::{SecretSource, SecretVersion};

use crate::ledger::{Ledger, LedgerError};

use super::{Draft, PrepareError};

impl Draft {
    /// A generated secret has the version that the parent has, unless it is generated in
    /// another way.
    pub(super) fn carry_generated_secrets(&mut self) {
        let Some(parent) = &self.parent else { return };
        for spec in &mut self.specs {
            let Body::Secret(secret) = &mut spec.body else { continue };
            let before = parent.content.components.get(&spec.id);
            if let Some(Body::Secret(before)) = before.map(|c| &c.spec.body)
                && matches!(secret.source, SecretSource::Generate(_))
                && before.source == secret.source
            {
                secret.identity = before.identity.clone();
            }
        }
    }

    /// Keeps the values of given secrets, encrypted, and generates those that are to be: from
    /// then on every version is known.
    pub fn keep_secrets(&mut self, ledger: &Ledger) -> Result<(), PrepareError> {
        self.sealed = OnceCell::new();
        let keeper = Secrets::new(ledger.store(), ledger.key());
        for spec in &mut self.specs {
            let Body::Secret(secret) = &mut spec.body else { continue };
            let given = self.secrets.get(&spec.id);
            let version = match (&secret.source, &secret.identity.version, given) {
                (SecretSource::Given, _, Some(value)) => {
                    keeper.keep(&self.stack, &spec.id, value.expose().as_bytes())
                }
                (SecretSource::Generate(bytes), SecretVersion::ToBeGenerated, _) => {
                    keeper.generate(&self.stack, &spec.id, *bytes)
                }
                _ => continue,
            };
            secret.identity.version = SecretVersion::Known(version.map_err(LedgerError::from)?);
        }
        Ok(())
    }
}
