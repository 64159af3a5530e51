//! Draining and ending, completely.

use std::time::{Duration, Instant};

use kiln_engine::TargetError;
use kiln_gateway::GatewayError;
use kiln_model::name::InstanceId;
use kiln_model::plan::Evidence;
use kiln_netns::Namespace;

use super::create::chain;
use super::labels::{InstanceLabels, NetworkLabels, mark_draining};
use super::{Machine, now};
use crate::instance::client::Client;
use crate::instance::{self, StopPolicy, record};
use crate::launcher::protocol::NetworkAttachment;
use crate::logs;
use crate::network::{self, AttachSpec};

/// How long the launcher may take to end.
const LAUNCHER_END: Duration = Duration::from_secs(1);

/// Logs of ended instances that are kept for each component.
const ENDED_LOGS: usize = 3;

impl Machine {
    pub(super) fn mark_draining(&self, instance: &InstanceId) -> Result<(), TargetError> {
        let fail = |error| TargetError::passing(format!("drain {instance}"), error);
        if self.databases.mark_draining(instance).map_err(fail)? {
            return Ok(());
        }
        mark_draining(&self.root, instance.as_str(), now()).map_err(fail)
    }

    pub(super) fn destroy_instance(
        &self,
        id: &InstanceId,
        evidence: Evidence,
    ) -> Result<(), TargetError> {
        let fail = |cause: String| TargetError::passing(format!("end {id}"), cause);
        self.prober.forget(id);
        self.databases.forget(id);
        self.databases.call_off(self, id).map_err(|error| fail(error.to_string()))?;
        let stopped = self.guard.is_stopped(id.as_str());
        let drift = self.guard.found(id.as_str());
        self.guard.forget(id.as_str());
        let record = record::read(&self.root, id.as_str()).unwrap_or_default();
        let labels = record.as_ref().and_then(|r| InstanceLabels::from_labels(&r.labels));
        // What its drain has left at the bound must not meet a closed door half way.
        match self.gateway.sever(id.clone()) {
            Ok(_) | Err(GatewayError::NotRunning { .. }) => {}
            Err(error) => return Err(fail(chain(&error))),
        }
        let attached = record.as_ref().and_then(|r| r.network.as_ref());
        let kept = match (&record, &labels) {
            (Some(record), Some(labels)) if evidence == Evidence::Kept => {
                detach(id, attached).map_err(|error| fail(chain(&error)))?;
                self.keep_evidence(id, record, labels, drift);
                true
            }
            _ => false,
        };
        let policy = labels.as_ref().map_or_else(StopPolicy::default, |labels| StopPolicy {
            signal: labels.stop.signal,
            // One that is kept from running does not even hear that it should end.
            grace: if stopped || kept { Duration::ZERO } else { labels.stop.grace.into() },
        });
        instance::destroy(&self.root, &self.cgroups, id.as_str(), policy)
            .map_err(|error| fail(chain(&error)))?;
        detach(id, attached).map_err(|error| fail(chain(&error)))?;
        self.databases.leave(self, id).map_err(|error| fail(error.to_string()))?;
        self.prune_logs(id);
        self.dismiss_launcher();
        Ok(())
    }

    /// Ends the launcher once there is no instance left; the next one starts it again. It
    /// refuses while it has any.
    fn dismiss_launcher(&self) {
        if record::list(&self.root).is_ok_and(|left| left.is_empty())
            && let Ok(mut launcher) = Client::connect(&self.root)
        {
            // One that is needed after all refuses, and stays.
            let ends = launcher.shutdown().is_ok();
            let deadline = Instant::now() + LAUNCHER_END;
            // One that is ending must not be met by those who need one.
            while ends && Client::connect(&self.root).is_ok() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub(super) fn destroy_network(&self, id: &InstanceId) -> Result<(), TargetError> {
        let fail = |cause: String| TargetError::passing(format!("end {id}"), cause);
        self.guard.forget_network(id.as_str());
        self.networks.destroy(id.as_str()).map_err(|error| fail(chain(&error)))?;
        NetworkLabels::remove(&self.root, id).map_err(|error| fail(error.to_string()))
    }

    /// Keeps the logs of the last few ended instances of a component; of none, once the
    /// component has no instance left.
    fn prune_logs(&self, ended: &InstanceId) {
        let name = |id: &str| id.rsplit_once('-').map(|(name, _)| name.to_owned());
        let Some(component) = name(ended.as_str()) else { return };
        let alive = record::list(&self.root).unwrap_or_default();
        let keep = if alive.iter().any(|id| name(id).as_ref() == Some(&component)) {
            ENDED_LOGS
        } else {
            0
        };
        let Ok(entries) = std::fs::read_dir(self.root.join("logs")) else { return };
        let mut dead: Vec<_> = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| {
                let id = e.file_name().into_string().ok()?;
                let ended = name(&id).as_ref() == Some(&component) && !alive.contains(&id);
                let modified = e.metadata().and_then(|m| m.modified()).ok()?;
                ended.then_some((modified, id))
            })
            .collect();
        dead.sort();
        let surplus = dead.len().saturating_sub(keep);
        for (_, id) in &dead[..surplus] {
            // A log that stays is met again at the next end.
            let _ = logs::remove(&self.root, id);
        }
    }
}

/// Takes what is left of an instance off its network, where that still exists.
fn detach(id: &InstanceId, attached: Option<&NetworkAttachment>) -> Result<(), network::Error> {
    let Some(attached) = attached else { return Ok(()) };
    let Ok(namespace) = Namespace::open(&attached.namespace) else { return Ok(()) };
    let spec = AttachSpec {
        instance: id.to_string(),
        address: attached.address,
        prefix_bits: attached.prefix_bits,
        gateway: attached.gateway,
    };
    network::detach(&namespace, &spec)
}
