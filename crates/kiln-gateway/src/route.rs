//! Which instances the requests of a connection reach, by the table that is current when they
//! are asked for.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use hyper::HeaderMap;
use kiln_model::name::InstanceId;
use kiln_model::route::Protocol;

use crate::balance::split::Backends;
use crate::balance::{Wish, hash};
use crate::connection::Shared;
use crate::gate::Gate;
use crate::load::{InFlight, Unit};
use crate::peer::Peer;
use crate::stats::Counters;
use crate::table::router::{RouteKey, is_ambiguous};
use crate::table::{Endpoint, EndpointId, Snapshot};

/// What a connection was accepted for.
#[derive(Debug)]
pub(crate) enum Route {
    /// An endpoint, with the protocol by which the connection was accepted.
    Endpoint(Arc<EndpointId>, Protocol),
    /// A component at its stable address, seen from inside a network.
    Service { network: InstanceId, to: SocketAddrV4, http: bool },
}

/// The way of one request or connection: found once, and kept when it is tried again.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// The endpoint's route, `None` for its own.
    key: Option<Arc<RouteKey>>,
    /// The client, where instances are chosen by it.
    client: u64,
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) counters: Option<Arc<Counters>>,
    pub(crate) access_log: bool,
    pub(crate) proxy_protocol: bool,
}

impl Way {
    /// Waits once more, where the last instance has gone since the gate was passed and the next
    /// is waited for; whether there may be one now.
    pub(crate) async fn wait_again(&self) -> bool {
        match &self.gate {
            Some(gate) if gate.holds() => gate.enter().await.is_ok(),
            _ => false,
        }
    }
}

/// What a request says about its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

/// The path is one that servers understand differently, where a route depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous;

impl Route {
    /// The way of a request, or of a connection when nothing is `asked` by HTTP.
    pub(crate) fn way(
        &self,
        shared: &Shared,
        client: IpAddr,
        asked: Option<Asked<'_>>,
    ) -> Result<Way, Ambiguous> {
        let snapshot = shared.current.load();
        let Route::Endpoint(id, _) = self else {
            return Ok(self.inside(&snapshot).unwrap_or_default());
        };
        let Some(endpoint) = snapshot.endpoint(id) else { return Ok(Way::default()) };
        let mut branch = &endpoint.main;
        if let Some(asked) = asked
            && !endpoint.router.is_empty()
        {
            if is_ambiguous(asked.path) {
                return Err(Ambiguous);
            }
            branch = endpoint.router.find(asked.host, asked.path).unwrap_or(branch);
        }
        let headers = asked.map(|asked| asked.headers);
        let of_client = |key| hash::of_client(key, client, headers);
        Ok(Way {
            key: branch.key.clone(),
            client: endpoint.sticky.as_ref().map_or(0, of_client),
            gate: Some(Arc::clone(&branch.gate)),
            counters: Some(Arc::clone(&branch.counters)),
            access_log: endpoint.access_log,
            proxy_protocol: endpoint.proxy_protocol,
        })
    }

    /// The way from inside a network to a server's stable address.
    fn inside(&self, snapshot: &Snapshot) -> Option<Way> {
        let Route::Service { network, to, .. } = self else { return None };
        let service = snapshot.network(network)?.services.get(to.ip())?;
        let gate = Some(Arc::clone(&service.gate));
        Some(Way { gate, counters: Some(Arc::clone(&service.counters)), ..Way::default() })
    }

    /// An instance for the next request or connection, counted as in flight.
    pub(crate) fn pick(
        &self,
        shared: &Shared,
        way: &Way,
        avoid: Option<&Arc<Peer>>,
        unit: Unit,
    ) -> Option<(Arc<Peer>, InFlight)> {
        let wish = Wish { avoid, client: way.client };
        loop {
            let snapshot = shared.current.load();
            let peer = self.backends(&snapshot, way)?.pick(wish)?;
            // An instance starts to drain after it has left the current table, so looking
            // again finds a table without it.
            if let Some(in_flight) = peer.load().enter(unit) {
                return Some((Arc::clone(peer), in_flight));
            }
        }
    }

    /// The port for backends that have none of their own.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Route::Endpoint(..) => 0,
            Route::Service { to, .. } => to.port(),
        }
    }

    /// Whether instances are spoken to in HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Route::Endpoint(_, Protocol::H2c))
    }

    /// The endpoint, unless the connection came from inside a network.
    pub(crate) fn endpoint(&self) -> Option<&Arc<EndpointId>> {
        match self {
            Route::Endpoint(endpoint, _) => Some(endpoint),
            Route::Service { .. } => None,
        }
    }

    fn backends<'a>(&self, snapshot: &'a Snapshot, way: &Way) -> Option<&'a Backends> {
        match self {
            Route::Endpoint(id, _) => {
                let endpoint: &Endpoint = snapshot.endpoint(id)?;
                let branch = match way.key.as_deref() {
                    None => &endpoint.main,
                    key => endpoint.branch(key).unwrap_or(&endpoint.main),
                };
                Some(&branch.backends)
            }
            Route::Service { network, to, http } => {
                let service = snapshot.network(network)?.services.get(to.ip())?;
                // A connection that began as HTTP stays with backends that speak it.
                if *http { service.http.get(&to.port()) } else { Some(&service.bytes) }
            }
        }
    }
}
