//! Servers: a program of an image, in so many instances.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::canonical::BuiltFrom;
use crate::name::{ComponentId, Kind};
use crate::quantity::{Bytes, MilliCpu, Millis};
use crate::spec::rollout::Rollout;
use crate::spec::scale::Scale;
use crate::text::Text;

pub use super::health::{Health, Liveness, LogLine, Probe, Startup};

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// What each of its instances is.
    pub identity: ServerIdentity,
    /// How its instances are handled.
    pub policy: ServerPolicy,
}

/// What an instance of a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// Its root filesystem.
    pub image: BuiltFrom,
    /// Where it has its address.
    pub network: BuiltFrom,
    /// Program and arguments instead of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<Text>>,
    /// Arguments behind the entrypoint (or the command).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Text>,
    /// Environment, over the image's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Text>,
    /// Working directory instead of the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// User instead of the image's: a name or `uid[:gid]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Most memory, with what its writable space holds.
    pub memory: Bytes,
    /// Most processor time; all there is where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<MilliCpu>,
    /// Most processes and threads.
    pub pids: u32,
    /// Writable space in memory: path and size. All else is read-only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub writable: BTreeMap<String, Bytes>,
    /// Which system calls it may make.
    #[serde(default, skip_serializing_if = "Seccomp::is_default")]
    pub seccomp: Seccomp,
    /// What it may connect to. All else is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connects: Vec<Connection>,
    /// How it is asked to end.
    pub stop: Stop,
}

/// Which system calls the processes of an instance may make, of those that the default profile
/// allows. All else fails.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// All of them.
    #[default]
    Default,
    /// Without those that servers seldom need and attackers like.
    Strict,
    /// Just these, by name, and what every program needs to start and to end.
    Only(BTreeSet<String>),
}

impl Seccomp {
    /// Whether it is the default profile.
    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

/// A component that a server may connect to, at any port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection {
    /// The component.
    pub to: ComponentId,
    /// Its stable address. A changed address makes another server.
    pub address: Ipv4Addr,
}

/// How an instance is asked to end before it is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The signal's number.
    pub signal: i32,
    /// How long it is waited for.
    pub grace: Millis,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: 15, grace: Millis::seconds(10) }
    }
}

/// How the instances of a server are handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPolicy {
    /// The stable address, inside the server's network.
    pub address: Ipv4Addr,
    /// How many instances are wanted; with `scale`, to begin with.
    pub replicas: u32,
    /// How the count follows what is asked of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// How it is told that an instance can serve.
    pub health: Health,
    /// How instances are replaced.
    pub rollout: Rollout,
    /// Whether evidence is kept of instances that have drifted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantine: bool,
}

impl ServerPolicy {
    /// The most instances that may be wanted, pins by hand aside.
    pub fn most(&self) -> u32 {
        self.scale.as_ref().map_or(self.replicas, |scale| scale.max.max(self.replicas))
    }

    /// Whether the server has no instance while nobody asks for it.
    pub fn sleeps(&self) -> bool {
        self.scale.as_ref().is_some_and(Scale::sleeps)
    }
}

impl Server {
    /// The secrets that it is given; one may stand more than once.
    pub fn secrets(&self) -> impl Iterator<Item = &BuiltFrom> {
        self.built_from().filter(|from| from.id.kind == Kind::Secret)
    }

    /// References to what it is built from; a secret may stand more than once.
    pub(crate) fn built_from(&self) -> impl Iterator<Item = &BuiltFrom> {
        let identity = &self.identity;
        let command = identity.command.iter().flatten();
        let texts = identity.env.values().chain(&identity.args).chain(command);
        [&identity.image, &identity.network].into_iter().chain(texts.flat_map(Text::secrets))
    }
}
