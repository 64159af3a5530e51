//! Databases: a server with data that outlives its instances.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::canonical::BuiltFrom;
use crate::name::ComponentId;
use crate::quantity::{Bytes, MilliCpu, Millis};
use crate::spec::backup::Backup;
use crate::spec::image::Recipe;
use crate::spec::postgres;
use crate::spec::rollout::Rollout;
use crate::spec::server::{Health, Probe, Seccomp, Server, ServerIdentity, ServerPolicy, Stop};

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// What each of its instances is. The data is no part of it.
    pub identity: DatabaseIdentity,
    /// How its instances are handled.
    pub policy: DatabasePolicy,
}

/// Which program keeps the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
}

impl Engine {
    /// The word that stands in configuration and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Engine::Postgres => "postgres",
        }
    }

    /// The port at which clients reach a database of this engine.
    pub const fn port(self) -> u16 {
        match self {
            Engine::Postgres => 5432,
        }
    }
}

/// What an instance of a database is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseIdentity {
    /// The engine.
    pub engine: Engine,
    /// Its major version, which decides the format of the data.
    pub version: u32,
    /// Its root filesystem, which holds the engine's programs.
    pub image: BuiltFrom,
    /// Where it has its address.
    pub network: BuiltFrom,
    /// Most memory.
    pub memory: Bytes,
    /// Most processor time; all there is where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<MilliCpu>,
    /// Most processes and threads.
    pub pids: u32,
    /// Most space that the data may take.
    pub size: Bytes,
    /// The engine's settings, over those that Kiln chooses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The name of the one database in it.
    pub database: String,
    /// The user whom that belongs to, and as whom clients log in.
    pub user: String,
    /// The extensions that it has.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub extensions: BTreeSet<String>,
    /// Whether a write counts only when a standby has it as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synchronous: bool,
    /// Whether its log of changes is kept until it is backed up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
}

/// How the instances of a database are handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePolicy {
    /// The stable address, inside the database's network.
    pub address: Ipv4Addr,
    /// The secret by which clients prove that they are its user.
    pub password: ComponentId,
    /// How many standbys there are beside the one that takes writes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replicas: u32,
    /// How long clients may be held at a time while writes go over to another instance. A
    /// change over that takes longer is put off, and tried again.
    pub hold: Millis,
    /// How instances are replaced; of it, the deadline counts.
    pub rollout: Rollout,
    /// How it is backed up, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Database {
    /// An instance of it as one of a server: all but what the engine needs besides.
    pub fn server(&self) -> Server {
        let DatabaseIdentity { image, network, memory, cpu, pids, .. } = self.identity.clone();
        let identity = ServerIdentity {
            image,
            network,
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            workdir: None,
            user: None,
            memory,
            cpu,
            pids,
            writable: BTreeMap::new(),
            seccomp: Seccomp::Default,
            connects: Vec::new(),
            stop: Stop { signal: SIGINT, grace: STOP_GRACE },
        };
        let health = Health {
            probe: Probe::Tcp { port: self.identity.engine.port() },
            every: Millis::seconds(1),
            timeout: Millis::seconds(1),
            failures: 3,
            successes: 1,
            startup: None,
            liveness: None,
            replace_after: None,
        };
        let policy = ServerPolicy {
            address: self.policy.address,
            replicas: self.policy.replicas.saturating_add(1),
            scale: None,
            health,
            rollout: self.policy.rollout.clone(),
            quarantine: false,
        };
        Server { identity, policy }
    }
}

/// Asks PostgreSQL to end its sessions and itself, in order ("fast shutdown").
const SIGINT: i32 = 2;
/// How long an engine may take to end in order.
const STOP_GRACE: Millis = Millis::seconds(10);

/// The image of an engine's major version from Debian's packages, where there are any.
pub fn recipe(engine: Engine, version: u32) -> Option<Recipe> {
    match engine {
        Engine::Postgres => postgres::recipe(version),
    }
}

/// Whether an engine's setting may be declared, or why not.
pub fn check_setting(name: &str, value: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.';
    if name.is_empty() || !name.bytes().all(fits) {
        return Err("it is no name of a setting".to_owned());
    }
    if value.chars().any(char::is_control) {
        return Err("a value is one line of text".to_owned());
    }
    let own = OWN_SETTINGS.iter().any(|own| match own.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => *own == name,
    });
    if own { Err("Kiln sets it itself".to_owned()) } else { Ok(()) }
}

/// Settings that decide where an instance's data is, who reaches it and whom it follows; a `*`
/// stands for any end.
const OWN_SETTINGS: &[&str] = &[
    "allow_alter_system",
    "allow_system_table_mods",
    "archive_*",
    "bonjour*",
    "cluster_name",
    "config_file",
    "data_directory",
    "dynamic_shared_memory_type",
    "event_source",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "huge_pages",
    "ident_file",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "include*",
    "krb_*",
    "listen_addresses",
    "log_destination",
    "log_directory",
    "logging_collector",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_*",
    "restart_after_crash",
    "restore_command",
    "shared_memory_type",
    "ssl*",
    "stats_temp_directory",
    "superuser_reserved_connections",
    "synchronous_standby_names",
    "syslog_*",
    "unix_socket_*",
    "wal_level",
    "wal_log_hints",
    "zero_damaged_pages",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_hold_the_data_together_are_refused() {
        assert_eq!(check_setting("work_mem", "8MB"), Ok(()));
        assert_eq!(check_setting("auto_explain.log_min_duration", "1s"), Ok(()));
        for name in ["listen_addresses", "archive_mode", "recovery_target_time", "fsync"] {
            assert!(check_setting(name, "x").is_err(), "{name}");
        }
        for name in ["", "Work_Mem", "a b", "a=b", "a'"] {
            assert!(check_setting(name, "x").is_err(), "{name}");
        }
        assert!(check_setting("work_mem", "8MB'\nfsync=off").is_err());
    }
}
