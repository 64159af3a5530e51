//! From a route table to what requests read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::Arc;

use kiln_model::certificate::{Certificate, issued_file};
use kiln_model::handling::{Balance, Handling};
use kiln_model::name::{ComponentId, StackName};
use kiln_model::route::{Backend, DatabaseRoute, EndpointRoute, NetworkRoute, RouteTable, Split};

use crate::balance::Choice;
use crate::balance::split::Backends;
use crate::control::{Keys, Refusal};
use crate::gate::Server;
use crate::http::limits::Bounds;
use crate::peer::Peer;
use crate::postgres::{Aim, Gate, Login};
use crate::table::router::{RouteKey, Router};
use crate::table::{
    Branch, Database, Endpoint, EndpointId, ListenKey, Network, Registry, Service, StackView,
};
use crate::tls::{self, Kept, Source};

/// Turns a table into a view, taking from the registry what exists already. Opens namespaces;
/// changes nothing that serves. Without `keys` nothing of it is made that only connections need
/// which are still to come.
pub(crate) fn compile(
    table: RouteTable,
    registry: &mut Registry,
    keys: Option<&Keys>,
) -> Result<StackView, Refusal> {
    let splits = table.splits.iter().map(|s| (s.component.clone(), s.clone())).collect();
    let mut compiler =
        Compiler { registry, keys, peers: Vec::new(), splits, databases: Vec::new() };
    for route in &table.databases {
        let database = compiler.database(&table.stack, route)?;
        compiler.databases.push(database);
    }
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
    let Compiler { peers, databases, .. } = compiler;
    Ok(StackView { table, endpoints, networks, peers, databases })
}

/// A side of TLS and its certificates.
type Secured = (Option<tls::Side>, Vec<Arc<Kept>>);

struct Compiler<'a> {
    registry: &'a mut Registry,
    /// Private keys that no file holds.
    keys: Option<&'a Keys>,
    peers: Vec<Arc<Peer>>,
    splits: BTreeMap<ComponentId, Split>,
    databases: Vec<Database>,
}

impl Compiler<'_> {
    fn database(&mut self, stack: &StackName, route: &DatabaseRoute) -> Result<Database, Refusal> {
        let gate = self.registry.database(stack, &route.component);
        let before = gate.login();
        let mut login = Login::new(&route.user, &route.database, &before);
        for password in &route.passwords {
            let value = self.keys.and_then(|keys| keys.of(password));
            let version = password.version.as_deref().unwrap_or_default();
            // Who only follows the tables of another process lets nobody new in.
            if !login.accept(version, value, &before) && self.keys.is_some() {
                let (component, secret) = (route.component.clone(), password.secret.clone());
                return Err(Refusal::Password { component, secret });
            }
        }
        let primary = route.primary.as_ref().map(|instance| self.registry.load(instance));
        let aim = Aim::new(primary, route.holds, Arc::new(login));
        Ok(Database { gate, aim })
    }

    /// The gate of a component, where that is a database.
    fn gate_of(&self, component: &ComponentId) -> Option<Arc<Gate>> {
        let mut gates = self.databases.iter().map(|database| &database.gate);
        gates.find(|gate| gate.component() == component).cloned()
    }

    fn endpoint(&mut self, table: &RouteTable, route: &EndpointRoute) -> Result<Endpoint, Refusal> {
        let (tls, certificates) = self.tls(&table.stack, route)?;
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
            database: self.gate_of(&route.to),
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
            backends: Backends::new(choices, self.splits.get(to), balance, limits.concurrency),
            sleeps,
            gate,
            counters,
        })
    }

    /// The endpoint's side of TLS, where it has certificates. One that cannot be used is
    /// refused, unless it was used before: then the files are read again later. One that is to
    /// be issued may be awaited.
    fn tls(&mut self, stack: &StackName, route: &EndpointRoute) -> Result<Secured, Refusal> {
        let refused = |certificate: &str, error: String| Refusal::Certificate {
            component: route.component.clone(),
            certificate: certificate.to_owned(),
            error,
        };
        let sources: Vec<Source> =
            route.handling.tls.iter().flat_map(|one| self.sources(stack, one)).collect();
        let (Some(keys), Some(first)) = (self.keys, sources.first()) else {
            return Ok((None, Vec::new()));
        };
        let mut kept = Vec::with_capacity(sources.len());
        for source in &sources {
            let found = self.registry.certificates.get(source, keys);
            kept.push(found.map_err(|error| refused(source.title(), error))?);
        }
        let config = tls::server(kept.clone(), route.protocol);
        let config = config.map_err(|e| refused(first.title(), e.to_string()))?;
        let proves = kept.iter().any(|kept| kept.is_issued());
        Ok((Some(tls::Side { config: Arc::new(config), proves }), kept))
    }

    fn sources(&self, stack: &StackName, certificate: &Certificate) -> Vec<Source> {
        match certificate {
            Certificate::Pair(pair) => vec![Source::Pair(pair.clone())],
            Certificate::Acme { acme } => {
                let issued = |name: &String| Source::Issued {
                    issued: self.registry.root().join(issued_file(stack, name)),
                    name: name.clone(),
                };
                acme.names.iter().map(issued).collect()
            }
        }
    }

    fn server(&self, stack: &StackName, component: &ComponentId) -> Server {
        let (stack, component) = (stack.clone(), component.clone());
        Server { stack, component, events: self.registry.events().clone() }
    }

    fn network(&mut self, stack: &StackName, route: &NetworkRoute) -> Result<Network, Refusal> {
        let mut services = std::collections::HashMap::with_capacity(route.services.len());
        for service in &route.services {
            let mut http = BTreeMap::new();
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
                database: self.gate_of(&service.component),
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
    ) -> Result<Backends, Refusal> {
        let mut choices = Vec::with_capacity(service.backends.len());
        for backend in &service.backends {
            let address = SocketAddrV4::new(backend.address, port);
            let peer = self.registry.peer(&backend.instance, &backend.network, address)?;
            choices.push(self.choice(peer, 1));
        }
        let split = self.splits.get(&service.component);
        Ok(Backends::new(choices, split, &Balance::default(), None))
    }

    fn choice(&mut self, peer: Arc<Peer>, weight: u16) -> Choice {
        self.peers.push(Arc::clone(&peer));
        Choice { peer, weight }
    }
}
