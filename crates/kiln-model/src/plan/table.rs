//! The gateway's table: who serves whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::certificate::{Certificate, CertificatePair, Key};
use crate::generation::Generation;
use crate::handling::Handling;
use crate::name::{ComponentId, InstanceId, Kind};
use crate::observed::{Observed, ObservedInstance};
use crate::route::{
    Backend, Client, DatabaseRoute, EndpointRoute, NetworkRoute, Protocol, RouteTable, Rule,
    Service, ServiceBackend, Split,
};
use crate::spec::endpoint::{Endpoint, Route};
use crate::spec::network::NetworkIdentity;
use crate::spec::server::Connection;

use super::fleet::{Fleet, Fleets};
use super::networks::Networks;

/// The share of one backend where nothing says otherwise.
const WEIGHT: u16 = 100;

/// An endpoint's rule: its host and path.
type RuleKey = (ComponentId, Option<String>, String);

/// Which component serves each endpoint at present.
#[derive(Debug, Default)]
pub(super) struct Serving {
    to: BTreeMap<ComponentId, ComponentId>,
    /// The same for each rule of an endpoint.
    rules: BTreeMap<RuleKey, ComponentId>,
    /// Routes of the present table that the generation does not name, and that stay until it
    /// is proved.
    kept: Vec<EndpointRoute>,
}

impl Serving {
    /// An endpoint that is pointed at another component goes over when that has all its
    /// instances ready, or when the one before has none.
    pub(super) fn decide(
        desired: &Generation,
        observed: &Observed,
        fleets: &Fleets,
        proved: bool,
    ) -> Self {
        let mut serving = Serving::default();
        let present = observed.table.iter().flat_map(|t| &t.endpoints);
        let present: BTreeMap<(&ComponentId, SocketAddr), &EndpointRoute> =
            present.map(|e| ((&e.component, e.listen), e)).collect();
        let alive: BTreeSet<&ComponentId> = observed
            .instances
            .iter()
            .filter(|i| i.is_ready() && !fleets.is_retired(&i.id))
            .map(|i| &i.component)
            .collect();
        let before: BTreeMap<&ComponentId, &ComponentId> =
            present.iter().map(|((id, _), route)| (*id, &route.to)).collect();
        let rules_before: BTreeMap<RuleKey, &ComponentId> = present
            .iter()
            .flat_map(|((id, _), route)| route.rules.iter().map(|r| (rule_key(id, r), &r.to)))
            .collect();
        let choose = |before: Option<&&ComponentId>, to: &ComponentId| {
            let whole = fleets.of(to);
            let whole = whole.is_some_and(|f| f.is_through() && (f.wanted > 0 || f.asleep));
            let stays = before.filter(|b| **b != to && !whole && alive.contains(**b));
            stays.map_or(to, |before| *before).clone()
        };
        for (id, component) in desired.content.of_kind(Kind::Endpoint) {
            let Some(endpoint) = component.spec.as_endpoint() else { continue };
            serving.to.insert(id.clone(), choose(before.get(id), &endpoint.policy.to));
            for route in &endpoint.policy.routes {
                let key = (id.clone(), route.host.clone(), route.path.clone());
                let to = choose(rules_before.get(&key), &route.to);
                serving.rules.insert(key, to);
            }
        }
        if !proved {
            let wanted = |id: &ComponentId, listen: SocketAddr| {
                let endpoint = desired.content.components.get(id)?.spec.as_endpoint()?;
                (endpoint.identity.listen == listen).then_some(())
            };
            let kept = present.iter().filter(|((id, listen), _)| wanted(id, *listen).is_none());
            serving.kept = kept.map(|(_, route)| (*route).clone()).collect();
        }
        serving
    }

    /// Whether some endpoint goes to `component`.
    pub(super) fn is_used(&self, component: &ComponentId) -> bool {
        let mut to = self.to.values().chain(self.rules.values());
        let kept = |e: &EndpointRoute| {
            e.to == *component || e.rules.iter().any(|rule| rule.to == *component)
        };
        to.any(|to| to == component) || self.kept.iter().any(kept)
    }
}

/// What a table is built from.
struct Builder<'a> {
    desired: &'a Generation,
    /// Instances in rotation, by component.
    rotation: BTreeMap<&'a ComponentId, Vec<&'a ObservedInstance>>,
    /// Servers of which nobody serves for a moment.
    holding: BTreeSet<&'a ComponentId>,
    /// The port of each backend in the present table.
    ports: BTreeMap<(&'a ComponentId, &'a InstanceId), u16>,
    /// The same for backends of rules.
    rule_ports: BTreeMap<(RuleKey, &'a InstanceId), u16>,
    /// Ports that speak HTTP, by component.
    http: BTreeMap<&'a ComponentId, BTreeSet<u16>>,
}

/// The table that the gateway should have once the plan's networks exist.
pub(super) fn build(
    desired: &Generation,
    observed: &Observed,
    fleets: &Fleets,
    networks: &Networks,
    doomed: &BTreeSet<InstanceId>,
    serving: &Serving,
) -> RouteTable {
    let builder = Builder::new(desired, observed, fleets);
    let mut endpoints: Vec<EndpointRoute> = desired
        .content
        .of_kind(Kind::Endpoint)
        .filter_map(|(id, c)| Some(builder.endpoint(id, c.spec.as_endpoint()?, serving)))
        .collect();
    endpoints.extend(serving.kept.iter().map(|kept| builder.kept(kept)));
    endpoints.sort_by(|a, b| (&a.component, a.listen).cmp(&(&b.component, b.listen)));
    let mut present: BTreeMap<&InstanceId, &NetworkIdentity> = observed
        .networks
        .iter()
        .filter(|n| !doomed.contains(&n.id))
        .map(|n| (&n.id, &n.identity))
        .collect();
    present.extend(networks.creations().map(|c| (&c.id, &c.identity)));
    let residents = residents(observed, fleets);
    let networks = present
        .into_iter()
        .map(|(id, identity)| {
            let residents = residents.get(id).map(Vec::as_slice).unwrap_or_default();
            builder.network(id, identity, residents)
        })
        .collect();
    let epoch = observed.table.as_ref().map_or(0, |t| t.epoch).saturating_add(1);
    let splits = builder.splits(fleets);
    RouteTable {
        stack: desired.stack.clone(),
        epoch,
        endpoints,
        networks,
        splits,
        databases: databases(observed, fleets),
    }
}

/// An address in a network and what its instance may connect to.
type Resident<'a> = (Ipv4Addr, &'a [Connection]);

/// Who is, or will be, in each network.
fn residents<'a>(
    observed: &'a Observed,
    fleets: &'a Fleets,
) -> BTreeMap<&'a InstanceId, Vec<Resident<'a>>> {
    let mut residents: BTreeMap<&InstanceId, Vec<Resident<'_>>> = BTreeMap::new();
    for instance in observed.instances.iter().filter(|i| i.is_running()) {
        let entry = (instance.address, instance.connects.as_slice());
        residents.entry(&instance.network).or_default().push(entry);
    }
    for (creation, _) in fleets.creations() {
        let entry = (creation.address, creation.server.identity.connects.as_slice());
        residents.entry(&creation.network).or_default().push(entry);
    }
    residents
}

impl<'a> Builder<'a> {
    fn new(desired: &'a Generation, observed: &'a Observed, fleets: &'a Fleets) -> Self {
        let mut rotation: BTreeMap<&ComponentId, Vec<&ObservedInstance>> = BTreeMap::new();
        for instance in &observed.instances {
            // Clients of a database are led to the one that takes writes.
            let is_server = instance.component.kind == Kind::Server;
            if is_server && instance.is_ready() && fleets.is_shown(&instance.id) {
                rotation.entry(&instance.component).or_default().push(instance);
            }
        }
        for instances in rotation.values_mut() {
            instances.sort_by_key(|i| &i.id);
        }
        let table = observed.table.as_ref();
        let ports = table
            .iter()
            .flat_map(|t| &t.endpoints)
            .flat_map(|e| e.backends.iter().map(|b| ((&e.component, &b.instance), b)))
            .map(|(key, backend)| (key, backend.address.port()))
            .collect();
        let rules = table.iter().flat_map(|t| &t.endpoints).flat_map(|e| {
            e.rules.iter().map(|rule| (rule_key(&e.component, rule), &rule.backends))
        });
        let rule_ports = rules
            .flat_map(|(key, backends)| backends.iter().map(move |b| (key.clone(), b)))
            .map(|(key, backend)| ((key, &backend.instance), backend.address.port()))
            .collect();
        let mut http: BTreeMap<&ComponentId, BTreeSet<u16>> = BTreeMap::new();
        let services = table.iter().flat_map(|t| &t.networks).flat_map(|n| &n.services);
        for service in services {
            if !desired.content.components.contains_key(&service.component) {
                http.entry(&service.component).or_default().extend(&service.http_ports);
            }
        }
        for (id, _, server) in desired.content.servers() {
            http.entry(id).or_default().extend(server.policy.health.http_ports());
        }
        for (_, component) in desired.content.of_kind(Kind::Endpoint) {
            let Some(endpoint) = component.spec.as_endpoint() else { continue };
            if endpoint.policy.protocol == Protocol::Http {
                for (to, port) in endpoint.policy.answering() {
                    http.entry(to).or_default().insert(port);
                }
            }
        }
        let holding = fleets.servers().filter(|(_, fleet)| fleet.holds).map(|(id, _)| id);
        let holding = holding.collect();
        Self { desired, rotation, holding, ports, rule_ports, http }
    }

    fn rotation(&self, component: &ComponentId) -> &[&'a ObservedInstance] {
        self.rotation.get(component).map(Vec::as_slice).unwrap_or_default()
    }

    /// Servers whose new instances get a share and no more.
    fn splits(&self, fleets: &Fleets) -> Vec<Split> {
        let split = |(id, fleet): (&ComponentId, &Fleet)| {
            let wanted = self.desired.content.components.get(id)?.digest;
            let all = self.rotation(id);
            let new = all.iter().filter(|i| i.digest == wanted);
            let instances: Vec<InstanceId> = new.map(|i| i.id.clone()).collect();
            let shared = !instances.is_empty() && instances.len() < all.len();
            let permille = fleet.split.filter(|_| shared)?;
            Some(Split { component: id.clone(), instances, permille })
        };
        fleets.servers().filter_map(split).collect()
    }

    /// Whether a server has no instance while nobody asks for it, or for a moment none that
    /// serves.
    fn sleeps(&self, server: &ComponentId) -> bool {
        let declared = self.desired.content.components.get(server);
        self.holding.contains(server)
            || declared.and_then(|c| c.spec.as_server()).is_some_and(|s| s.policy.sleeps())
    }

    fn endpoint(&self, id: &ComponentId, endpoint: &Endpoint, serving: &Serving) -> EndpointRoute {
        let to = serving.to.get(id).unwrap_or(&endpoint.policy.to);
        let wanted = self.desired.content.components.get(to).map(|c| c.digest);
        let port = |instance: &ObservedInstance| {
            // An instance of an older generation is reached where that one said.
            let before = self.ports.get(&(id, &instance.id)).copied();
            let fresh = wanted == Some(instance.digest) && *to == endpoint.policy.to;
            if fresh { endpoint.policy.port } else { before.unwrap_or(endpoint.policy.port) }
        };
        EndpointRoute {
            component: id.clone(),
            listen: endpoint.identity.listen,
            protocol: endpoint.policy.protocol,
            to: to.clone(),
            backends: self.rotation(to).iter().map(|i| backend(i, port(i))).collect(),
            sleeps: self.sleeps(to),
            rules: endpoint.policy.routes.iter().map(|r| self.rule(id, r, serving)).collect(),
            handling: handling(self.desired, &endpoint.policy.handling),
        }
    }

    fn rule(&self, id: &ComponentId, route: &Route, serving: &Serving) -> Rule {
        let key = (id.clone(), route.host.clone(), route.path.clone());
        let to = serving.rules.get(&key).unwrap_or(&route.to);
        let wanted = self.desired.content.components.get(to).map(|c| c.digest);
        let port = |instance: &ObservedInstance| {
            let before = self.rule_ports.get(&(key.clone(), &instance.id)).copied();
            let fresh = wanted == Some(instance.digest) && *to == route.to;
            if fresh { route.port } else { before.unwrap_or(route.port) }
        };
        Rule {
            host: route.host.clone(),
            path: route.path.clone(),
            to: to.clone(),
            backends: self.rotation(to).iter().map(|i| backend(i, port(i))).collect(),
            sleeps: self.sleeps(to),
        }
    }

    fn kept_rule(&self, id: &ComponentId, rule: &Rule) -> Rule {
        let key = rule_key(id, rule);
        let usual = rule.backends.first().map(|b| b.address.port());
        let port =
            |i: &ObservedInstance| self.rule_ports.get(&(key.clone(), &i.id)).copied().or(usual);
        let backends = self.rotation(&rule.to).iter();
        let backends = backends.filter_map(|i| Some(backend(i, port(i)?))).collect();
        Rule { backends, ..rule.clone() }
    }

    /// A route of the present table, with those in rotation now.
    fn kept(&self, route: &EndpointRoute) -> EndpointRoute {
        let usual = route.backends.first().map(|b| b.address.port());
        let port =
            |i: &ObservedInstance| self.ports.get(&(&route.component, &i.id)).copied().or(usual);
        let backends = self.rotation(&route.to).iter();
        let backends = backends.filter_map(|i| Some(backend(i, port(i)?))).collect();
        let rules = route.rules.iter().map(|rule| self.kept_rule(&route.component, rule));
        EndpointRoute { backends, rules: rules.collect(), ..route.clone() }
    }

    fn network(
        &self,
        id: &InstanceId,
        identity: &NetworkIdentity,
        residents: &[Resident<'_>],
    ) -> NetworkRoute {
        let mut reached: BTreeMap<&Connection, Vec<Ipv4Addr>> = BTreeMap::new();
        let mut clients: BTreeMap<Ipv4Addr, Client> = BTreeMap::new();
        for (address, connects) in residents {
            let client = clients.entry(*address).or_default();
            for connection in *connects {
                reached.entry(connection).or_default().push(*address);
                for name in names(&connection.to) {
                    client.names.entry(name).or_insert(connection.address);
                }
            }
        }
        let services = reached.into_iter().map(|(connection, mut clients)| {
            clients.sort_unstable();
            clients.dedup();
            self.service(connection, clients)
        });
        NetworkRoute {
            network: id.clone(),
            resolver: identity.resolver(),
            services: services.collect(),
            clients,
            forward_names: !identity.egress.is_empty(),
        }
    }

    fn service(&self, connection: &Connection, clients: Vec<Ipv4Addr>) -> Service {
        let backends = self.rotation(&connection.to).iter().map(|i| ServiceBackend {
            instance: i.id.clone(),
            network: i.network.clone(),
            address: i.address,
        });
        let http = self.http.get(&connection.to);
        Service {
            component: connection.to.clone(),
            address: connection.address,
            clients,
            http_ports: http.into_iter().flatten().copied().collect(),
            backends: backends.collect(),
            sleeps: self.sleeps(&connection.to),
        }
    }
}

/// Who answers for each database. Of one that is not declared any more, who did, while it is there.
fn databases(observed: &Observed, fleets: &Fleets) -> Vec<DatabaseRoute> {
    let present = observed.table.iter().flat_map(|table| &table.databases);
    let declared: BTreeSet<&ComponentId> = fleets.routes.iter().map(|r| &r.component).collect();
    let stays = |route: &&DatabaseRoute| {
        let primary = route.primary.as_ref().filter(|id| fleets.is_shown(id));
        let there = observed.instances.iter().any(|i| Some(&i.id) == primary && i.is_ready());
        there && !declared.contains(&route.component)
    };
    let mut all: Vec<DatabaseRoute> = present.filter(stays).cloned().collect();
    all.extend(fleets.routes.iter().cloned());
    all.sort_by(|a, b| a.component.cmp(&b.component));
    all
}

/// An endpoint's handling with the versions of the secrets in it.
fn handling(desired: &Generation, handling: &Handling) -> Handling {
    let mut handling = handling.clone();
    for certificate in &mut handling.tls {
        if let Certificate::Pair(CertificatePair { key: Key::Secret(key), .. }) = certificate {
            let secret = desired.content.components.get(&key.secret);
            key.version = secret.and_then(|secret| secret.spec.as_secret()?.identity.known());
        }
    }
    handling
}

fn rule_key(endpoint: &ComponentId, rule: &Rule) -> RuleKey {
    (endpoint.clone(), rule.host.clone(), rule.path.clone())
}

fn backend(instance: &ObservedInstance, port: u16) -> Backend {
    Backend {
        instance: instance.id.clone(),
        network: instance.network.clone(),
        address: SocketAddrV4::new(instance.address, port),
        weight: WEIGHT,
    }
}

/// The names by which a component is known to those that may reach it.
fn names(component: &ComponentId) -> Vec<String> {
    let host = component.host_name();
    let plain = component.name.to_ascii_lowercase();
    let mut names = vec![host.clone(), format!("{host}.{}.kiln", component.kind)];
    if plain != host && plain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
        names.push(format!("{plain}.{}.kiln", component.kind));
        names.push(plain);
    }
    names
}
