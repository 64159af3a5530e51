//! Handing the gateway its table, and the networks the rules that go with it.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use kiln_engine::TargetError;
use kiln_gateway::control::{Keys, Refusal};
use kiln_gateway::{GatewayError, ensure_running};
use kiln_model::certificate::Certificate;
use kiln_model::name::InstanceId;
use kiln_model::route::{NetworkRoute, RouteTable, SERVICE_PORT};

use kiln_netns::Namespace;

use super::Machine;
use super::create::chain;
use crate::network::{self, Service};

impl Machine {
    /// The gateway first, so that it listens when the rules send connections to it.
    pub(super) fn route(&self, table: RouteTable) -> Result<(), TargetError> {
        let what = format!("route {}", table.stack);
        let own = {
            let mut all = self.routing.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(table.stack.clone()).or_default().clone()
        };
        let _alone = own.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.table_of(&table.stack)?;
        if table.is_empty() && before.is_none() {
            return Ok(());
        }
        self.promote_all(&table)?;
        let gateway = ensure_running(&self.root, &self.exe)
            .map_err(|error| TargetError::passing(&what, chain(&error)))?;
        let networks = table.networks.clone();
        let keys = self.keys(&table).map_err(|cause| TargetError::passing(&what, cause))?;
        self.changes.routes(&table.stack, table.epoch);
        gateway.set_table_with(table, keys).map_err(|error| refused(what, &error))?;
        if let Some(issuer) = self.issuer.get() {
            issuer.look();
        }
        let before: BTreeMap<&InstanceId, Vec<Service>> = before
            .iter()
            .flat_map(|t| &t.networks)
            .map(|network| (&network.network, rules(network)))
            .collect();
        for network in &networks {
            let wanted = rules(network);
            // Whatever the table was: a daemon may have been killed before it came to the rules.
            let opened = Namespace::open(self.networks.path(network.network.as_str()))
                .map_err(|error| chain(&error))
                .and_then(|it| network::set_services(&it, &wanted).map_err(|e| chain(&e)));
            // A network that is broken must not stand in the way of the one that replaces it.
            let as_before = before.get(&network.network) == Some(&wanted);
            if let Err(cause) = opened
                && !as_before
            {
                return Err(TargetError::passing(format!("open {}", network.network), cause));
            }
        }
        Ok(())
    }

    /// The values of secrets that are keys of certificates or passwords, beside the table.
    fn keys(&self, table: &RouteTable) -> Result<Keys, String> {
        let certificates = table.endpoints.iter().flat_map(|endpoint| &endpoint.handling.tls);
        let mut keys = BTreeMap::new();
        let passwords = table.databases.iter().flat_map(|database| &database.passwords);
        for key in certificates.filter_map(Certificate::secret).chain(passwords) {
            let Some(version) = &key.version else {
                return Err(format!("no version of {} is known", key.secret));
            };
            let value = self.secrets.reveal_version(&table.stack, &key.secret, version)?;
            keys.insert(version.clone(), value);
        }
        Ok(keys.into_iter().collect())
    }

    /// What the gateway routes for a stack; `None` where none runs or it has nothing.
    fn table_of(
        &self,
        stack: &kiln_model::name::StackName,
    ) -> Result<Option<RouteTable>, TargetError> {
        match self.gateway.status() {
            Ok(status) => Ok(status.tables.into_iter().find(|t| t.stack == *stack)),
            Err(GatewayError::NotRunning { .. }) => Ok(None),
            Err(error) => Err(TargetError::passing("ask the gateway", chain(&error))),
        }
    }
}

/// Has a gateway of another build hand over to one of this program's, with traffic running. It
/// takes its time on a thread; until it has, and where it cannot, the old one serves on.
pub(super) fn renew_gateway(machine: &Machine) {
    let (root, exe) = (machine.root.clone(), machine.exe.clone());
    let renew = move || {
        if let Err(error) = kiln_gateway::renew(&root, &exe) {
            eprintln!("kiln: the gateway is not renewed: {}", chain(&error));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("renew-gateway".to_owned()).spawn(renew) {
        eprintln!("kiln: the gateway is not renewed: {error}");
    }
}

/// The network's rules that go with its part of the table.
pub(super) fn rules(network: &NetworkRoute) -> Vec<Service> {
    let service = |service: &kiln_model::route::Service| Service {
        address: service.address,
        clients: service.clients.clone(),
        port: SERVICE_PORT,
    };
    network.services.iter().map(service).collect()
}

fn refused(what: String, error: &GatewayError) -> TargetError {
    let permanent = matches!(
        error,
        GatewayError::Refused(
            Refusal::PortTaken { .. }
                | Refusal::AddressNotAvailable { .. }
                | Refusal::CannotListen { .. }
                | Refusal::Certificate { .. }
        )
    );
    TargetError { what, cause: chain(error), hint: None, permanent }
}
