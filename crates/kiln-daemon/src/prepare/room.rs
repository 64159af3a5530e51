//! Whether there is room for a change at its height, when new instances stand beside old ones.

use std::collections::BTreeMap;

use kiln_model::address::{NoRoom, instance_room};
use kiln_model::generation::Content;
use kiln_model::name::ComponentId;
use kiln_model::quantity::Bytes;
use kiln_model::seal::Sealed;
use kiln_model::spec::{Database, Server};

use super::{Draft, PrepareError};

/// Not enough memory for what a change needs at its height.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "at its height this needs {needed} of memory more, the most of it for {first}, and {available} \
     are free"
)]
pub struct NoMemory {
    /// The server that needs the most.
    pub first: ComponentId,
    /// How much more is needed.
    pub needed: Bytes,
    /// How much there is.
    pub available: Bytes,
}

/// The data of a database cannot be carried to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCarried {
    /// Nothing leads from a newer major version to an older one.
    #[error(
        "{database} holds data of version {from}, which cannot be carried back to version {to}: keep \
         `version = \"{from}\"`, or declare a second database and move the data with `pg_dump`"
    )]
    Older {
        /// The database.
        database: ComponentId,
        /// The version that wrote its data.
        from: u32,
        /// The version that is asked for.
        to: u32,
    },
    /// The data goes to another major version under the name that it has.
    #[error(
        "{database} cannot be called `{to}` instead of `{from}` while its data goes over to another \
         major version: change `database` and `version` one after the other"
    )]
    Renamed {
        /// The database.
        database: ComponentId,
        /// What it is called in its engine.
        from: String,
        /// What it is to be called.
        to: String,
    },
}

/// Whether the data of each database that there is can be carried to what is wanted.
pub fn carried<'a>(
    before: &Content,
    after: impl Fn(&ComponentId) -> Option<&'a Database>,
) -> Result<(), NotCarried> {
    for (id, _, old) in before.databases() {
        let Some(new) = after(id) else { continue };
        let (old, new, database) = (&old.identity, &new.identity, id.clone());
        if new.version < old.version {
            return Err(NotCarried::Older { database, from: old.version, to: new.version });
        }
        if new.version > old.version && new.database != old.database {
            let (from, to) = (old.database.clone(), new.database.clone());
            return Err(NotCarried::Renamed { database, from, to });
        }
    }
    Ok(())
}

impl Draft {
    /// Refuses what a network has no addresses for. It needs no machine.
    pub fn check_addresses(&self) -> Result<(), PrepareError> {
        Ok(addresses(self.seal()?)?)
    }

    /// Refuses what this machine has no memory for, or a network no addresses, and data that cannot
    /// be carried.
    pub fn check_room(&self) -> Result<(), PrepareError> {
        self.check_addresses()?;
        let sealed = self.seal()?;
        let nothing = Content::default();
        let before = self.parent.as_ref().map_or(&nothing, |parent| &parent.content);
        carried(before, |id| sealed.get(id)?.spec.as_database())?;
        if let Some(available) = available() {
            memory(before, sealed, available)?;
        }
        Ok(())
    }
}

/// How many instances of a server there may be at a time.
fn height(server: &Server) -> u32 {
    let most = server.policy.most();
    most.saturating_add(server.policy.rollout.surplus(most))
}

/// How many instances a database has; for a change, so many stand beside them.
fn instances(database: &Database) -> u32 {
    database.policy.replicas.saturating_add(1)
}

/// Each network holds the instances of its servers and those that replace them.
fn addresses(sealed: &BTreeMap<ComponentId, Sealed>) -> Result<(), NoRoom> {
    let mut needed: BTreeMap<&ComponentId, u32> = BTreeMap::new();
    for server in sealed.values().filter_map(|s| s.spec.as_server()) {
        let count = needed.entry(&server.identity.network.id).or_default();
        *count = count.saturating_add(height(server));
    }
    for database in sealed.values().filter_map(|s| s.spec.as_database()) {
        let count = needed.entry(&database.identity.network.id).or_default();
        *count = count.saturating_add(instances(database).saturating_mul(2));
    }
    for (id, needed) in needed {
        let Some(network) = sealed.get(id).and_then(|s| s.spec.as_network()) else { continue };
        let room = instance_room(&network.identity);
        if needed > room {
            let (network, cidr) = (id.clone(), network.identity.cidr);
            return Err(NoRoom { network, cidr, what: "instances", room, needed });
        }
    }
    Ok(())
}

/// What comes beside the present instances must fit into free memory.
fn memory(
    before: &Content,
    sealed: &BTreeMap<ComponentId, Sealed>,
    available: Bytes,
) -> Result<(), NoMemory> {
    let mut needs: Vec<(u64, &ComponentId)> = Vec::new();
    for (id, after) in sealed {
        let present = before.components.get(id);
        let kept = present.is_some_and(|p| after.digest.as_ref() == Ok(&p.digest));
        if let Some(database) = after.spec.as_database() {
            let count = present.and_then(|p| p.spec.as_database()).filter(|_| kept);
            let more = instances(database).saturating_sub(count.map_or(0, instances));
            needs.push((database.identity.memory.0.saturating_mul(u64::from(more)), id));
        }
        let Some(server) = after.spec.as_server() else { continue };
        let count = present.and_then(|p| p.spec.as_server()).map_or(0, |s| s.policy.most());
        let more = if present.is_none() || kept {
            server.policy.most().saturating_sub(count)
        } else {
            height(server).saturating_sub(count)
        };
        needs.push((server.identity.memory.0.saturating_mul(u64::from(more)), id));
    }
    let needed = needs.iter().fold(0_u64, |sum, (bytes, _)| sum.saturating_add(*bytes));
    match needs.iter().max() {
        Some((_, first)) if needed > available.0 => {
            let mib = |bytes: u64| Bytes::mib(bytes >> 20);
            Err(NoMemory {
                first: (*first).clone(),
                needed: mib(needed),
                available: mib(available.0),
            })
        }
        _ => Ok(()),
    }
}

/// Memory that could be given out without swapping: `MemAvailable` of `/proc/meminfo`.
fn available() -> Option<Bytes> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Bytes(kib << 10))
}

#[cfg(test)]
mod tests {
    use kiln_model::fixture::{generation, image, network, server};
    use kiln_model::quantity::{Amount, Millis};
    use kiln_model::seal::seal;
    use kiln_model::spec::scale::{Scale, Targets};

    use super::*;

    fn stack(cidr: &str, replicas: u32, release: &str) -> Vec<kiln_model::spec::Spec> {
        let web = server("web").replicas(replicas).spec();
        vec![image("web", release), network("front", cidr), web]
    }

    #[test]
    fn a_range_must_hold_the_surge() {
        let of = |replicas| addresses(&seal(stack("10.0.0.0/28", replicas, "v1")).unwrap());
        assert_eq!(of(6), Ok(()));
        let error = of(7).unwrap_err();
        assert_eq!((error.room, error.needed), (7, 8), "seven, and one to replace them");
    }

    #[test]
    fn data_goes_to_newer_versions_alone() {
        use kiln_model::fixture::{database, secret};
        let of = |version, name: &str| {
            let mut db = database("orders").version(version).spec();
            if let kiln_model::spec::Body::Database(it) = &mut db.body {
                name.clone_into(&mut it.identity.database);
            }
            vec![image("pg", "v1"), network("back", "10.0.0.0/24"), secret("orders"), db]
        };
        let before = generation(1, of(15, "orders")).content;
        let to = |version, name| {
            let after = seal(of(version, name)).unwrap();
            carried(&before, |id| after.get(id)?.spec.as_database())
        };
        assert_eq!(to(15, "orders"), Ok(()));
        assert_eq!(to(15, "others"), Ok(()));
        assert_eq!(to(17, "orders"), Ok(()));
        let database: ComponentId = "database.orders".parse().unwrap();
        let older = NotCarried::Older { database: database.clone(), from: 15, to: 13 };
        assert_eq!(to(13, "orders"), Err(older));
        assert!(matches!(to(17, "others"), Err(NotCarried::Renamed { .. })));
    }

    #[test]
    fn the_most_that_demand_may_want_has_room() {
        let following = |max| {
            let requests = Some(Amount(400_000));
            let target = Targets { requests_per_second: requests, ..Targets::default() };
            let down_after = Millis::seconds(60);
            let scale = Scale { min: 0, max, target, down_after, tolerance: 10 };
            let web = server("web").replicas(1).scale(scale).spec();
            vec![image("web", "v1"), network("front", "10.0.0.0/28"), web]
        };
        let of = |max| addresses(&seal(following(max)).unwrap());
        assert_eq!(of(6), Ok(()));
        assert_eq!(of(7).unwrap_err().needed, 8, "seven, and one to replace them");
        let sealed = seal(following(6)).unwrap();
        let error = memory(&Content::default(), &sealed, Bytes::mib(383)).unwrap_err();
        assert_eq!(error.needed, Bytes::mib(6 * 64));
        let before = generation(1, following(6)).content;
        assert_eq!(memory(&before, &sealed, Bytes(0)), Ok(()), "it had room before");
    }

    #[test]
    fn only_what_comes_besides_needs_memory() {
        let before = generation(1, stack("10.0.0.0/24", 10, "v1")).content;
        let of = |replicas, release: &str, mib| {
            let after = seal(stack("10.0.0.0/24", replicas, release)).unwrap();
            memory(&before, &after, Bytes::mib(mib))
        };
        assert_eq!(of(10, "v1", 0), Ok(()), "nothing comes");
        assert_eq!(of(10, "v2", 64), Ok(()), "one at a time");
        assert_eq!(of(12, "v1", 128), Ok(()), "two more");
        let error = of(12, "v1", 127).unwrap_err();
        assert_eq!((error.needed, error.available), (Bytes::mib(128), Bytes::mib(127)));
    }
}
