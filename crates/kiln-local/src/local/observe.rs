//! Looking at what there is, from the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use kiln_engine::TargetError;
use kiln_engine::target::Measured;
use kiln_gateway::GatewayError;
use kiln_gateway::control::{InstanceTraffic, Status};
use kiln_model::data::ObservedGate;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::{Ending, ObservedInstance, ObservedNetwork, Phase, Verdict};
use kiln_model::quantity::Timestamp;

use super::create::chain;
use super::labels::{InstanceLabels, NetworkLabels, draining_since};
use super::route::rules;
use super::{Machine, now};
use crate::instance::{self, Observed, Presence, StopPolicy, observe_instances, record};
use crate::launcher::protocol::Exit;
use crate::network::{self, Difference, Service};

/// How often, and how long apart, it is looked for the record of an end.
const EXIT_LOOKS: u32 = 10;
const EXIT_PAUSE: Duration = Duration::from_millis(5);

/// How long something is let be that has no record: what is being made gets its own in a moment,
/// and keepers of other stacks look meanwhile, as often as they like.
const STRAY: Duration = Duration::from_secs(5);

impl Machine {
    /// Everything of `stack`, and the networks whose rules do not lead where the gateway's table
    /// says. What has no record is not of any stack, and is removed.
    pub(super) fn look(
        &self,
        stack: &StackName,
    ) -> Result<(Measured, BTreeSet<InstanceId>), TargetError> {
        let what = format!("look at {stack}");
        let at = now();
        // First, so that what is made meanwhile is seen at least once.
        let makings =
            self.databases.makings(stack).map_err(|error| TargetError::passing(&what, error))?;
        let instances = observe_instances(&self.root, &self.cgroups)
            .map_err(|error| TargetError::passing(&what, error))?;
        let networks =
            self.networks.observe().map_err(|error| TargetError::passing(&what, chain(&error)))?;
        let labelled =
            NetworkLabels::list(&self.root).map_err(|error| TargetError::passing(&what, error))?;
        self.remove_strays(&instances, &networks, &labelled);
        let status = match self.gateway.status() {
            Ok(status) => Some(status),
            Err(GatewayError::NotRunning { .. }) => None,
            Err(error) => return Err(TargetError::passing(&what, chain(&error))),
        };
        let traffic = status.as_ref().map(traffic).unwrap_or_default();
        let mut measured = Measured {
            at,
            volumes: self
                .databases
                .volumes(stack)
                .map_err(|error| TargetError::passing(&what, error))?,
            gates: status.as_ref().map(|status| gates(stack, status)).unwrap_or_default(),
            networks: networks_of(stack, &labelled, &networks),
            instances: instances
                .iter()
                .filter_map(|seen| self.instance(stack, seen, &traffic))
                .collect(),
            troubles: status.as_ref().map(|s| self.troubles(stack, s)).unwrap_or_default(),
            table: status.and_then(|s| s.tables.into_iter().find(|t| t.stack == *stack)),
        };
        let made = |id: &InstanceId| measured.instances.iter().any(|it| it.id == *id);
        let makings: Vec<ObservedInstance> =
            makings.into_iter().filter(|making| !made(&making.id)).collect();
        measured.instances.extend(makings);
        measured.instances.sort_by(|a, b| a.id.cmp(&b.id));
        let misled = misled(&measured, &networks);
        Ok((measured, misled))
    }

    /// What is wrong with certificates of the stack's endpoints.
    fn troubles(&self, stack: &StackName, status: &Status) -> BTreeMap<ComponentId, String> {
        let mut troubles = BTreeMap::new();
        for endpoint in status.endpoints.iter().filter(|endpoint| endpoint.stack == *stack) {
            let told = endpoint.certificates.iter().filter_map(|certificate| {
                let issuer = self.issuer.get();
                let refused = issuer.and_then(|issuer| issuer.trouble(stack, &certificate.title));
                let trouble = refused.or_else(|| certificate.trouble.clone())?;
                let serves = if certificate.awaited { "not served" } else { "not renewed" };
                Some(format!("certificate {} is {serves}: {trouble}", certificate.title))
            });
            let told: Vec<String> = told.collect();
            if !told.is_empty() {
                troubles.insert(endpoint.bound.component.clone(), told.join("; "));
            }
        }
        troubles
    }

    fn instance(
        &self,
        stack: &StackName,
        seen: &Observed,
        traffic: &BTreeMap<InstanceId, &InstanceTraffic>,
    ) -> Option<ObservedInstance> {
        let record = seen.record.as_ref()?;
        let labels = InstanceLabels::from_labels(&record.labels)?;
        if labels.stack != *stack {
            return None;
        }
        let id: InstanceId = seen.instance.parse().ok()?;
        let phase = match seen.presence {
            Presence::Running => Phase::Running,
            Presence::Ended | Presence::Orphaned => {
                let exit = seen.exit.clone().or_else(|| self.exit_of(&seen.instance));
                Phase::Ended { cause: ending(exit.as_ref()) }
            }
        };
        let drift = match phase {
            Phase::Running => {
                self.databases.watch(&id, &labels);
                let started = record.started_at_ms;
                let mut drift = self.seals.differences(&record.image, record.pid, started);
                drift.extend(self.guard.drift(record, stack));
                drift
            }
            Phase::Ended { .. } => Vec::new(),
        };
        Some(ObservedInstance {
            in_flight: traffic.get(&id).map_or(0, |t| t.requests + t.connections),
            answers: traffic.get(&id).map(|t| t.answers.clone()).unwrap_or_default(),
            component: labels.component,
            digest: labels.digest,
            generation: labels.generation,
            network: labels.network,
            address: record.network.as_ref()?.address,
            connects: labels.connects,
            created_at: Timestamp(record.started_at_ms),
            pid: seen.main.as_ref().and_then(|p| u32::try_from(p.pid).ok()),
            phase,
            health: Verdict::Starting { last: None },
            draining_since: draining_since(&self.root, &seen.instance),
            integrity: Some(record.image.seal.integrity()),
            drift,
            id,
            // Also where it has ended: what it held is its own until it is gone.
            data: labels.data.map(super::database::DataLabels::observed),
        })
    }

    /// How an instance ended whose process is gone: the launcher is about to write it down, and
    /// where it is not there to do so, nobody knows.
    fn exit_of(&self, instance: &str) -> Option<Exit> {
        (0..EXIT_LOOKS).find_map(|_| {
            std::thread::sleep(EXIT_PAUSE);
            record::read_exit(&self.root, instance).unwrap_or_default()
        })
    }

    /// Removes what has had no record for long.
    fn remove_strays(
        &self,
        instances: &[Observed],
        networks: &[network::ObservedNetwork],
        labelled: &[NetworkLabels],
    ) {
        let known: BTreeSet<&str> = labelled.iter().map(|l| l.id.as_str()).collect();
        let orphans = instances.iter().filter(|i| i.presence == Presence::Orphaned);
        let orphans: BTreeSet<&str> = orphans.map(|i| i.instance.as_str()).collect();
        let strange = networks.iter().map(|n| n.id.as_str());
        let strange: BTreeSet<&str> = strange.filter(|id| !known.contains(id)).collect();
        let old: BTreeSet<String> = {
            let mut strays = self.strays.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            strays.retain(|id, _| orphans.contains(&**id) || strange.contains(&**id));
            for id in orphans.union(&strange) {
                strays.entry((*id).to_owned()).or_insert_with(Instant::now);
            }
            let old = strays.iter().filter(|(_, since)| since.elapsed() >= STRAY);
            old.map(|(id, _)| id.clone()).collect()
        };
        // What can't be removed now is met again at the next look.
        for id in orphans.into_iter().filter(|id| old.contains(*id)) {
            let _ = instance::destroy(&self.root, &self.cgroups, id, StopPolicy::default());
        }
        for id in strange.into_iter().filter(|id| old.contains(*id)) {
            let _ = self.networks.destroy(id);
        }
    }
}

/// The networks whose rules are not those of the table. One that is broken besides is replaced.
fn misled(measured: &Measured, networks: &[network::ObservedNetwork]) -> BTreeSet<InstanceId> {
    let whole = measured.networks.iter().filter(|n| n.drift.is_empty());
    let whole: BTreeSet<&str> = whole.map(|n| n.id.as_str()).collect();
    let led = networks.iter().filter(|n| whole.contains(n.id.as_str()));
    let led: BTreeMap<&str, _> = led.map(|n| (n.id.as_str(), leads(&n.services))).collect();
    let routes = measured.table.iter().flat_map(|table| &table.networks);
    routes
        .filter(|r| led.get(r.network.as_str()).is_some_and(|led| *led != leads(&rules(r))))
        .map(|route| route.network.clone())
        .collect()
}

/// Who is led to which address, and by which port.
fn leads(services: &[Service]) -> BTreeSet<(Ipv4Addr, Ipv4Addr, u16)> {
    let leads = services.iter().flat_map(|s| s.clients.iter().map(|c| (*c, s.address, s.port)));
    leads.collect()
}

fn networks_of(
    stack: &StackName,
    labelled: &[NetworkLabels],
    seen: &[network::ObservedNetwork],
) -> Vec<ObservedNetwork> {
    let by_id: BTreeMap<&str, &network::ObservedNetwork> =
        seen.iter().map(|n| (n.id.as_str(), n)).collect();
    labelled
        .iter()
        .filter(|labels| labels.stack == *stack)
        .map(|labels| ObservedNetwork {
            id: labels.id.clone(),
            component: labels.component.clone(),
            digest: labels.digest,
            identity: labels.identity.clone(),
            drift: match by_id.get(labels.id.as_str()) {
                Some(network) => {
                    network.differences(&labels.spec()).iter().map(Difference::drift).collect()
                }
                None => vec![Difference::NotPinned.drift()],
            },
        })
        .collect()
}

/// What the gateway does for a stack's databases.
fn gates(stack: &StackName, status: &Status) -> Vec<ObservedGate> {
    let own = status.databases.iter().filter(|database| database.stack == *stack);
    own.map(|database| database.gate.clone()).collect()
}

fn traffic(status: &Status) -> BTreeMap<InstanceId, &InstanceTraffic> {
    status.instances.iter().map(|i| (i.instance.clone(), i)).collect()
}

fn ending(exit: Option<&Exit>) -> Ending {
    match exit {
        Some(exit) if exit.out_of_memory => Ending::OutOfMemory,
        Some(Exit { code: Some(code), .. }) => Ending::Exited(*code),
        Some(Exit { signal: Some(signal), .. }) => Ending::Killed(*signal),
        _ => Ending::Incomplete,
    }
}
