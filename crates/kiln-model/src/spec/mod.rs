//! A component after evaluation: every expression a value.
//!
//! A spec has two halves. Its *identity* is what an instance is; it has a digest, and any
//! change of it makes another component. Its *policy* is how the component is handled; a
//! change of it replaces nobody.

pub mod backup;
pub mod database;
pub mod endpoint;
pub mod health;
pub mod image;
pub mod network;
pub mod postgres;
pub mod rollout;
pub mod scale;
pub mod secret;
pub mod server;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, BuiltFrom, EncodeError};
use crate::digest::Digest;
use crate::name::{ComponentId, Kind};

pub use backup::Backup;
pub use database::Database;
pub use endpoint::Endpoint;
pub use image::Image;
pub use network::Network;
pub use rollout::Rollout;
pub use secret::Secret;
pub use server::Server;

/// One component of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Kind and name.
    pub id: ComponentId,
    /// What it is and how it is handled.
    pub body: Body,
    /// Where in it values stand that are not to be shown, such as `env.TOKEN`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sensitive: BTreeSet<String>,
}

/// The halves of a spec, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// A root filesystem.
    Image(Box<Image>),
    /// A set of addresses.
    Network(Network),
    /// A value that is never shown.
    Secret(Secret),
    /// A process with replicas.
    Server(Box<Server>),
    /// A process with data that outlives it.
    Database(Box<Database>),
    /// A listener of the gateway.
    Endpoint(Box<Endpoint>),
}

impl Spec {
    /// The digest of the identity, given the digests of what it is built from.
    pub fn digest(
        &self,
        digest_of: &dyn Fn(&ComponentId) -> Option<Digest>,
    ) -> Result<Digest, EncodeError> {
        match &self.body {
            Body::Image(image) => canonical::digest("kiln.image.v1", &image.identity, digest_of),
            Body::Network(network) => {
                canonical::digest("kiln.network.v1", &network.identity, digest_of)
            }
            Body::Secret(secret) => {
                canonical::digest("kiln.secret.v1", &secret.identity, digest_of)
            }
            Body::Server(server) => {
                canonical::digest("kiln.server.v1", &server.identity, digest_of)
            }
            Body::Database(database) => {
                canonical::digest("kiln.database.v1", &database.identity, digest_of)
            }
            Body::Endpoint(endpoint) => {
                canonical::digest("kiln.endpoint.v1", &endpoint.identity, digest_of)
            }
        }
    }

    /// The components whose digests enter this one's: image, base image, network, secrets; of an
    /// endpoint, the secrets that are its keys, of a database its password and what its backups need.
    /// Each once, in order.
    pub fn built_from(&self) -> Vec<&ComponentId> {
        let mut ids: Vec<&ComponentId> = match &self.body {
            Body::Server(server) => server.built_from().map(|r: &BuiltFrom| &r.id).collect(),
            Body::Image(image) => image.built_from().map(|r| &r.id).collect(),
            Body::Database(database) => {
                let identity = &database.identity;
                let own = [&identity.image.id, &identity.network.id, &database.policy.password];
                let backup = database.policy.backup.iter().flat_map(Backup::secrets);
                own.into_iter().chain(backup).collect()
            }
            Body::Endpoint(endpoint) => endpoint.policy.secrets().collect(),
            Body::Network(_) | Body::Secret(_) => Vec::new(),
        };
        ids.sort();
        ids.dedup();
        ids
    }

    /// The components whose stable addresses this one uses. Each once, in order.
    pub fn talks_to(&self) -> Vec<&ComponentId> {
        let mut ids: Vec<&ComponentId> = match &self.body {
            Body::Server(server) => server.identity.connects.iter().map(|c| &c.to).collect(),
            Body::Endpoint(endpoint) => endpoint.policy.answering().map(|(to, _)| to).collect(),
            Body::Image(_) | Body::Network(_) | Body::Secret(_) | Body::Database(_) => Vec::new(),
        };
        ids.sort();
        ids.dedup();
        ids
    }

    /// The server, if it is one.
    pub fn as_server(&self) -> Option<&Server> {
        match &self.body {
            Body::Server(server) => Some(server),
            _ => None,
        }
    }

    /// How its instances are replaced, where it has any.
    pub fn rollout(&self) -> Option<&Rollout> {
        match &self.body {
            Body::Server(server) => Some(&server.policy.rollout),
            Body::Database(database) => Some(&database.policy.rollout),
            _ => None,
        }
    }

    /// Whether both are handled in the same way; only said of what has instances.
    pub(crate) fn has_policy_of(&self, other: &Spec) -> bool {
        match (&self.body, &other.body) {
            (Body::Server(one), Body::Server(two)) => one.policy == two.policy,
            (Body::Database(one), Body::Database(two)) => one.policy == two.policy,
            _ => false,
        }
    }

    /// The database, if it is one.
    pub fn as_database(&self) -> Option<&Database> {
        match &self.body {
            Body::Database(database) => Some(database),
            _ => None,
        }
    }

    /// The network, if it is one.
    pub fn as_network(&self) -> Option<&Network> {
        match &self.body {
            Body::Network(network) => Some(network),
            _ => None,
        }
    }

    /// The endpoint, if it is one.
    pub fn as_endpoint(&self) -> Option<&Endpoint> {
        match &self.body {
            Body::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// The secret, if it is one.
    pub fn as_secret(&self) -> Option<&Secret> {
        match &self.body {
            Body::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// The image, if it is one.
    pub fn as_image(&self) -> Option<&Image> {
        match &self.body {
            Body::Image(image) => Some(image),
            _ => None,
        }
    }

    /// Whether the body is of the kind that the id names.
    pub fn is_consistent(&self) -> bool {
        let kind = match &self.body {
            Body::Image(_) => Kind::Image,
            Body::Network(_) => Kind::Network,
            Body::Secret(_) => Kind::Secret,
            Body::Server(_) => Kind::Server,
            Body::Database(_) => Kind::Database,
            Body::Endpoint(_) => Kind::Endpoint,
        };
        kind == self.id.kind
    }
}
