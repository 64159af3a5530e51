//! Who has all that was acknowledged, once the one that took writes is gone.
//!
//! While a primary answers, it says which standbys its writes wait for. A write counts when one of
//! these has it, whichever that is. So after the primary's end the one that goes furthest has
//! everything, as long as all of them are there to be compared; when one of them is gone too, nothing
//! is known of the others any more.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::data::Role;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::ObservedInstance;

/// For each database, the standbys that its primary waited for when it last answered.
#[derive(Debug, Default)]
pub(super) struct Quorums(BTreeMap<(StackName, ComponentId), BTreeSet<InstanceId>>);

impl Quorums {
    /// Takes up what primaries say, and puts into what standbys say whether they have all that one
    /// of them has that is gone.
    pub(super) fn judge(&mut self, stack: &StackName, instances: &mut [ObservedInstance]) {
        let mut waited: BTreeMap<ComponentId, BTreeSet<InstanceId>> = BTreeMap::new();
        let mut answering: BTreeSet<InstanceId> = BTreeSet::new();
        for instance in instances.iter().filter(|i| i.is_ready()) {
            let Some(said) = instance.data.as_ref().and_then(|data| data.said.as_ref()) else {
                continue;
            };
            answering.insert(instance.id.clone());
            match said.role {
                Role::Primary => drop(waited.entry(instance.component.clone()).or_default()),
                Role::Standby if said.follows.is_some() && said.synchronous => {
                    waited
                        .entry(instance.component.clone())
                        .or_default()
                        .insert(instance.id.clone());
                }
                Role::Standby => {}
            }
        }
        for (component, quorum) in waited {
            self.0.insert((stack.clone(), component), quorum);
        }
        for ((of, _), quorum) in &mut self.0 {
            if of == stack && !quorum.is_subset(&answering) {
                quorum.clear();
            }
        }
        for instance in instances.iter_mut().filter(|i| i.is_ready()) {
            let key = (stack.clone(), instance.component.clone());
            let member = self.0.get(&key).is_some_and(|quorum| quorum.contains(&instance.id));
            if let Some(said) = instance.data.as_mut().and_then(|data| data.said.as_mut()) {
                said.synchronous = member;
            }
        }
    }
}
