//! From a route table to what requests read.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;

use kiln_model::handling::{Balance, Handling};
use kiln_model::name::{ComponentId, StackName};
use kiln_model::route::{Backend, EndpointRoute, NetworkRoute, RouteTable};

use crate::balance::{Choice, Choices};
use crate::control::Refusal;
use crate::gate::Server;
use crate::http::limits::Bounds;
use crate::peer::Peer;
use crate::table::router::{RouteKey, Router};
use crate::table::{
    Branch, Endpoint, EndpointId, ListenKey, Network, Registry, Service, StackView,
};
use crate::tls::{self, Kept};

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
    let networks =
        table.networks.iter().map(|route| compiler.network(&table.stack, route).map(Arc::new));
    let networks = networks.collect::<Result<_, _>>()?;
    let peers = compiler.peers;
    Ok(StackView { table, endpoints, networks, peers })
}

/// A side of TLS and its certificates.
type Secured = (Option<Arc<rustls::ServerConfig>>, Vec<Arc<Kept>>);

struct Compiler<'a> {
    registry: &'a mut Registry,
    peers: Vec<Arc<Peer>>,
}

impl Compiler<'_> {
    fn endpoint(&mut self, table: &RouteTable, route: &EndpointRoute) -> Result<Endpoint, Refusal> {
        let (tls, certificates) = self.tls(route)?;
        let id = Arc::new(EndpointId {
            key: ListenKey::new(&table.stack, route),
            stack: table.stack.clone(),
            component: route.component.clone(),
            counters: self.registry.counters(&table.stack, &route.component),
        });
        let main = self.branch(&id, route, None, (&route.to, route.sleeps), &route.backends)?;
        let mut router = Router::default();
        for rule in &route.rules {
            let key = (rule.host.clone(), rule.path.clone());
            let branch =
                self.branch(&id, route, Some(&key), (&rule.to, rule.sleeps), &rule.backends)?;
            router.add(&key, Arc::new(branch));
        }
        let sticky = match &route.handling.balance {
            Balance::Hash(key) => Some(key.clone()),
            Balance::PowerOfTwo | Balance::LeastConnections => None,
        };
        Ok(Endpoint {
            id,
            protocol: route.protocol,
            tls,
            certificates,
            bounds: Bounds::of(&route.handling.limits),
            sticky,
            proxy_protocol: route.handling.proxy_protocol,
            access_log: route.handling.access_log,
            router,
            main: Arc::new(main),
        })
    }

    fn branch(
        &mut self,
        id: &EndpointId,
        route: &EndpointRoute,
        key: Option<&RouteKey>,
        (to, sleeps): (&ComponentId, bool),
        backends: &[Backend],
    ) -> Result<Branch, Refusal> {
        let mut choices = Vec::with_capacity(backends.len());
        for backend in backends {
            let peer = self.registry.peer(&backend.instance, &backend.network, backend.address)?;
            choices.push(self.choice(peer, backend.weight));
        }
        let (counters, gate) = self.registry.route(&id.stack, &id.component, key);
        gate.lead_to(self.server(&id.stack, to));
        let Handling { balance, limits, .. } = &route.handling;
        Ok(Branch {
            key: key.cloned().map(Arc::new),
            to: to.clone(),
            backends: Choices::new(choices, balance.clone(), limits.concurrency),
            sleeps,
            gate,
            counters,
        })
    }

    /// The endpoint's side of TLS, where it has certificates. One that cannot be used is
    /// refused, unless it was used before: then the files are read again later.
    fn tls(&mut self, route: &EndpointRoute) -> Result<Secured, Refusal> {
        let files = &route.handling.tls;
        if files.is_empty() {
            return Ok((None, Vec::new()));
        }
        let refused = |certificate: &str, error: String| Refusal::Certificate {
            component: route.component.clone(),
            certificate: certificate.to_owned(),
            error,
        };
        let mut kept = Vec::with_capacity(files.len());
        for files in files {
            let found = self.registry.certificates.get(files);
            kept.push(found.map_err(|error| refused(&files.certificate, error))?);
        }
        let config = tls::server(kept.clone(), route.protocol);
        let config = config.map_err(|e| refused(&files[0].certificate, e.to_string()))?;
        Ok((Some(Arc::new(config)), kept))
    }

    fn server(&self, stack: &StackName, component: &ComponentId) -> Server {
        let (stack, component) = (stack.clone(), component.clone());
        Server { stack, component, events: self.registry.events().clone() }
    }

    fn network(&mut self, stack: &StackName, route: &NetworkRoute) -> Result<Network, Refusal> {
        let mut services = std::collections::HashMap::with_capacity(route.services.len());
        for service in &route.services {
            let mut http = std::collections::BTreeMap::new();
            for port in &service.http_ports {
                http.insert(*port, self.service_backends(service, *port)?);
            }
            let (counters, gate) = self.registry.service(stack, &service.component);
            gate.lead_to(self.server(stack, &service.component));
            let view = Service {
                component: service.component.clone(),
                clients: service.clients.iter().copied().collect(),
                http,
                bytes: self.service_backends(service, 0)?,
                sleeps: service.sleeps,
                gate,
                counters,
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
        Ok(Choices::new(choices, Balance::default(), None))
    }

    fn choice(&mut self, peer: Arc<Peer>, weight: u16) -> Choice {
        self.peers.push(Arc::clone(&peer));
        Choice { peer, weight }
    }
}
