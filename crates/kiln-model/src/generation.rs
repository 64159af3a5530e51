//! Generations: immutable, numbered sets of components.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::address::Offsets;
use crate::alarm::Hooks;
use crate::canonical;
use crate::data::Branch;
use crate::digest::Digest;
use crate::name::{ComponentId, Kind, StackName};
use crate::quantity::{Millis, Timestamp};
use crate::spec::{Database, Server, Spec};
use crate::trust::Demands;

/// A component of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// The digest of its identity.
    pub digest: Digest,
    /// Identity and policy.
    pub spec: Arc<Spec>,
}

/// What a generation holds: all that a rollback brings back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Every component.
    pub components: BTreeMap<ComponentId, Component>,
    /// For each image, the digest of what was built: its OCI manifest's.
    pub images: BTreeMap<ComponentId, Digest>,
    /// The stable addresses, as offsets.
    pub offsets: Offsets,
    /// The outputs by name.
    pub outputs: BTreeMap<String, Output>,
    /// What it demands of images before they are started.
    #[serde(default, skip_serializing_if = "Demands::is_default")]
    pub demands: Demands,
    /// Whom it tells of alarms.
    #[serde(default, skip_serializing_if = "Hooks::is_default")]
    pub hooks: Hooks,
    /// The branch that each database's data goes on in, where it is not the first. It outlives the
    /// component, as the data does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<ComponentId, Branch>,
}

/// A value that the stack gives to its reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The value; `null` where it is sensitive.
    pub value: serde_json::Value,
    /// Whether it is not to be shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
}

/// Where a generation came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A person applied a stack.
    Apply,
    /// It came with a commit of a branch that is followed.
    Follow,
    /// The content of an older generation, by `rollback`.
    Rollback {
        /// The generation whose content it is.
        to: u64,
    },
    /// The stack was retired: the content is empty.
    Destroy,
}

/// One immutable state of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The stack.
    pub stack: StackName,
    /// Its number: 1 for the first, and one more than any before it.
    pub number: u64,
    /// The generation that was the newest active one when this was planned.
    pub parent: Option<u64>,
    /// Why it was made.
    pub origin: Origin,
    /// The commit that the stack's directory was at.
    pub commit: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it holds.
    pub content: Content,
}

impl Generation {
    /// The generation before the first: nothing.
    pub fn none(stack: StackName) -> Self {
        Self {
            stack,
            number: 0,
            parent: None,
            origin: Origin::Destroy,
            commit: None,
            created_at: Timestamp(0),
            content: Content::default(),
        }
    }
}

impl Content {
    /// The components of one kind, in the order of their names.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ComponentId, &Component)> {
        // The kind is the first key of the order, so its components stand side by side.
        self.components
            .range(ComponentId::new(kind, "")..)
            .take_while(move |(id, _)| id.kind == kind)
    }

    /// The servers, in the order of their names.
    pub fn servers(&self) -> impl Iterator<Item = (&ComponentId, &Component, &Server)> {
        self.of_kind(Kind::Server)
            .filter_map(|(id, component)| Some((id, component, component.spec.as_server()?)))
    }

    /// The databases, in the order of their names.
    pub fn databases(&self) -> impl Iterator<Item = (&ComponentId, &Component, &Database)> {
        self.of_kind(Kind::Database)
            .filter_map(|(id, component)| Some((id, component, component.spec.as_database()?)))
    }

    /// A digest of all that it holds, policies and outputs too: equal contents are one change.
    pub fn digest(&self) -> Result<Digest, canonical::EncodeError> {
        let own = |id: &ComponentId| self.components.get(id).map(|c| c.digest);
        let outputs = serde_json::to_string(&self.outputs)
            .map_err(|e| canonical::EncodeError::NotJson(e.to_string()))?;
        let parts = (&self.components, &self.images, &self.offsets, outputs, &self.demands);
        // What is not there leaves the digest as it was before there was such a thing.
        match (self.hooks.is_default(), self.data.is_empty()) {
            (true, true) => canonical::digest("kiln.content.v1", &parts, &own),
            (false, true) => canonical::digest("kiln.content.v1", &(parts, &self.hooks), &own),
            (_, false) => {
                let parts = (parts, &self.hooks, &self.data);
                canonical::digest("kiln.content.v1", &parts, &own)
            }
        }
    }

    /// The branch that a database's data goes on in.
    pub fn branch(&self, database: &ComponentId) -> Branch {
        self.data.get(database).cloned().unwrap_or(Branch::first())
    }

    /// The content as the next one after `before`, to be numbered `number`: data stays where it is
    /// unless this says otherwise, and a new branch gets its number.
    #[must_use]
    pub fn following(mut self, before: &Content, number: u64) -> Self {
        for branch in self.data.values_mut().filter(|branch| branch.is_unnumbered()) {
            branch.number = number;
        }
        for (database, branch) in &before.data {
            self.data.entry(database.clone()).or_insert_with(|| branch.clone());
        }
        self
    }

    /// How long a change from `parent` to this may take: the longest chain, along references,
    /// of the deadlines of the servers and databases that change.
    pub fn rollout_deadline(&self, parent: &Content) -> Millis {
        let mut longest: BTreeMap<&ComponentId, Millis> = BTreeMap::new();
        for id in self.in_order() {
            let Some(component) = self.components.get(id) else { continue };
            let Some(rollout) = component.spec.rollout() else { continue };
            let before = parent.components.get(id);
            let unchanged = before.is_some_and(|b| {
                b.digest == component.digest && b.spec.has_policy_of(&component.spec)
            });
            let unchanged = unchanged && parent.branch(id) == self.branch(id);
            let own = rollout.deadline.0.saturating_add(rollout.watch.0);
            let own = if unchanged { Millis(0) } else { Millis(own) };
            let upstream = component.spec.talks_to().into_iter();
            let upstream = upstream.filter_map(|to| longest.get(to)).max();
            let chain = Millis(own.0.saturating_add(upstream.map_or(0, |m| m.0)));
            longest.insert(id, chain);
        }
        longest.into_values().max().filter(|m| m.0 > 0).unwrap_or(Millis::seconds(120))
    }

    /// The servers and databases so that each comes after those that it talks to. Total: what stands in a
    /// cycle (which sealing refuses) comes last.
    fn in_order(&self) -> Vec<&ComponentId> {
        let mut waiting: BTreeMap<&ComponentId, usize> = BTreeMap::new();
        let mut clients: BTreeMap<&ComponentId, Vec<&ComponentId>> = BTreeMap::new();
        let servers = self.servers().map(|(id, component, _)| (id, component));
        let databases = self.databases().map(|(id, component, _)| (id, component));
        for (id, component) in servers.chain(databases) {
            let upstream = component.spec.talks_to();
            waiting.insert(id, upstream.len());
            for to in upstream {
                if let Some((to, _)) = self.components.get_key_value(to) {
                    clients.entry(to).or_default().push(id);
                }
            }
        }
        let mut order: Vec<&ComponentId> =
            waiting.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        let mut next = 0;
        while let Some(&id) = order.get(next) {
            next += 1;
            for client in clients.get(id).into_iter().flatten() {
                if let Some(count) = waiting.get_mut(client) {
                    *count -= 1;
                    if *count == 0 {
                        order.push(client);
                    }
                }
            }
        }
        order
    }
}
