//! What is asked of servers, and what their instances use: from the gateway and the kernel's
//! control groups.

use kiln_engine::TargetError;
use kiln_gateway::GatewayError;
use kiln_gateway::control::Traffic;
use kiln_model::name::{InstanceId, StackName};
use kiln_model::scaling::{Arrivals, Demand, Usage};

use super::create::chain;
use super::{Machine, now};

impl Machine {
    /// What the gateway counts for a stack's servers and instances, and what the kernel does.
    pub(super) fn demand(
        &self,
        stack: &StackName,
        instances: &[InstanceId],
    ) -> Result<Demand, TargetError> {
        let traffic = match self.gateway.traffic() {
            Ok(traffic) => traffic,
            Err(GatewayError::NotRunning { .. }) => {
                Traffic { servers: Vec::new(), instances: Vec::new() }
            }
            Err(error) => {
                let what = format!("measure what is asked of {stack}");
                return Err(TargetError::passing(what, chain(&error)));
            }
        };
        let mut demand = Demand { at: now(), ..Demand::default() };
        for server in traffic.servers.into_iter().filter(|server| server.stack == *stack) {
            let waiting = u32::try_from(server.waiting).unwrap_or(u32::MAX);
            let (arrived, refused) = (server.arrived, server.refused);
            demand.servers.insert(server.component, Arrivals { arrived, refused, waiting });
        }
        for id in instances {
            let group = self.cgroups.group(id.as_str());
            let (cpu_us, memory) = (group.cpu_us(), group.memory());
            demand.instances.insert(id.clone(), Usage { cpu_us, memory, ..Usage::default() });
        }
        for instance in traffic.instances {
            if let Some(usage) = demand.instances.get_mut(&instance.instance) {
                usage.in_flight = instance.requests.saturating_add(instance.connections);
                usage.latency = instance.answers.latency_us_log2;
            }
        }
        Ok(demand)
    }
}
