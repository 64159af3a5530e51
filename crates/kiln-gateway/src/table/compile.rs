//! From a route table to what requests read.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;

use kiln_model::route::{EndpointRoute, NetworkRoute, RouteTable};

use crate::balance::{Choice, Choices};
use crate::control::Refusal;
use crate::peer::Peer;
use crate::table::{Endpoint, EndpointId, ListenKey, Network, Registry, Service, StackView};

/// Turns a table into a view, taking from the registry what exists already. Opens namespaces;
/// changes nothing that serves.
pub(crate) fn compile(table: RouteTable, registry: &mut Registry) -> Result<StackView, Refusal> {
    let mut compiler = Compiler { registry, peers: Vec::new() };
    let mut endpoints = Vec::with_capacity(table.endpoints.len());
    let mut taken = BTreeSet::new();
    for route in &table.endpoints {
        let endpoint = compiler.endpoint(&table, route)?;
        if !taken.insert(endpoint.id.key.clone()) {
            return Err(Refusal::PortTaken {
                component: route.component.clone(),
                listen: route.listen,
                holder: Some("another endpoint of the same stack".to_owned()),
            });
        }
        endpoints.push(Arc::new(endpoint));
    }
    let networks = table.networks.iter().map(|route| compiler.network(route).map(Arc::new));
    let networks = networks.collect::<Result<_, _>>()?;
    let peers = compiler.peers;
    Ok(StackView { table, endpoints, networks, peers })
}

struct Compiler<'a> {
    registry: &'a mut Registry,
    peers: Vec<Arc<Peer>>,
}

impl Compiler<'_> {
    fn endpoint(&mut self, table: &RouteTable, route: &EndpointRoute) -> Result<Endpoint, Refusal> {
        let mut choices = Vec::with_capacity(route.backends.len());
        for backend in &route.backends {
            let peer = self.registry.peer(&backend.instance, &backend.network, backend.address)?;
            choices.push(self.choice(peer, backend.weight));
        }
        let id = Arc::new(EndpointId {
            key: ListenKey::new(&table.stack, &route.component, route.listen),
            stack: table.stack.clone(),
            component: route.component.clone(),
            stats: self.registry.stats(&table.stack, &route.component),
        });
        Ok(Endpoint { id, protocol: route.protocol, backends: Choices::new(choices) })
    }

    fn network(&mut self, route: &NetworkRoute) -> Result<Network, Refusal> {
        let mut services = std::collections::HashMap::with_capacity(route.services.len());
        for service in &route.services {
            let mut http = std::collections::BTreeMap::new();
            for port in &service.http_ports {
                http.insert(*port, self.service_backends(service, *port)?);
            }
            let view = Service {
                clients: service.clients.iter().copied().collect(),
                http,
                bytes: self.service_backends(service, 0)?,
            };
            services.insert(service.address, view);
        }
        Ok(Network {
            id: route.network.clone(),
            resolver: route.resolver,
            clients: route.clients.clone(),
            forward_names: route.forward_names,
            services,
        })
    }

    /// The backends of a service at one port; port 0 is whichever the client names.
    fn service_backends(
        &mut self,
        service: &kiln_model::route::Service,
        port: u16,
    ) -> Result<Choices, Refusal> {
        let mut choices = Vec::with_capacity(service.backends.len());
        for backend in &service.backends {
            let address = SocketAddrV4::new(backend.address, port);
            let peer = self.registry.peer(&backend.instance, &backend.network, address)?;
            choices.push(self.choice(peer, 1));
        }
        Ok(Choices::new(choices))
    }

    fn choice(&mut self, peer: Arc<Peer>, weight: u16) -> Choice {
        self.peers.push(Arc::clone(&peer));
        Choice { peer, weight }
    }
}
