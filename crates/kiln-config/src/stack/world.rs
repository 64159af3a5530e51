//! A stack while it is evaluated: its declarations and what is already known of their values.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use ipnet::Ipv4Net;
use kiln_model::address::{self, Offsets};
use kiln_model::name::{ComponentId, Kind};
use kiln_model::spec::network::NetworkIdentity;
use rustc_hash::{FxHashMap, FxHashSet};

use super::decode::{Field, Sink};
use super::expand::Expansion;
use super::lower::{endpoint, network};
use super::memo::{Memo, Trail};
use super::program::Program;
use super::scope::Site;
use super::{Inputs, Surroundings};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::eval::{Environment, Evaluated, Evaluator};
use crate::syntax::ast::{Expr, ExprKind, Name};
use crate::syntax::span::Span;
use crate::value::Value;

/// Names are many and so may mistakes be: no more of them get a suggestion.
const MAX_SEARCHES: u32 = 200;

/// One of the components that a block makes: the block's index and its place among them.
pub(super) type Place = (usize, usize);

/// What comes from outside of the stack's files.
pub(super) struct Outside<'w> {
    pub(super) inputs: &'w Inputs,
    pub(super) surroundings: &'w dyn Surroundings,
    /// Addresses that have been given out before.
    pub(super) carried: Offsets,
    pub(super) stack_name: &'w str,
}

/// The stable addresses of a stack.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// The address of each server whose network is known.
    by_place: FxHashMap<Place, Ipv4Addr>,
    /// The same by id.
    by_id: FxHashMap<ComponentId, Ipv4Addr>,
    /// What the model carries from generation to generation.
    pub(super) offsets: Offsets,
}

impl Addresses {
    /// The address of a server.
    pub(super) fn of(&self, id: &ComponentId) -> Option<Ipv4Addr> {
        self.by_id.get(id).copied()
    }
}

/// A reference by which one component talks to another.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    pub(super) from: ComponentId,
    pub(super) to: ComponentId,
    pub(super) span: Span,
}

/// A stack while it is evaluated.
pub(super) struct World<'w> {
    pub(super) program: &'w Program,
    pub(super) outside: Outside<'w>,
    pub(super) environment: &'w Environment<'w>,
    pub(super) sink: &'w Sink,
    pub(super) variables: OnceCell<BTreeMap<Name, Option<Value>>>,
    pub(super) talks: RefCell<Vec<Talk>>,
    /// Which image stands on which.
    pub(super) bases: RefCell<Vec<Talk>>,
    /// Where a server's block names the address of another one.
    pub(super) mentions: RefCell<Vec<Talk>>,
    pub(super) listeners: RefCell<FxHashMap<(SocketAddr, bool), Span>>,
    /// How often the nearest name may still be searched for.
    searches: Cell<u32>,
    trail: Trail,
    locals: Memo<usize, Value>,
    expansions: Memo<usize, Rc<Expansion>>,
    ranges: Memo<Place, Ipv4Net>,
    listens: Memo<Place, SocketAddr>,
    addresses: Memo<(), Rc<Addresses>>,
}

impl<'w> World<'w> {
    pub(super) fn new(
        program: &'w Program,
        outside: Outside<'w>,
        environment: &'w Environment<'w>,
        sink: &'w Sink,
    ) -> Self {
        Self {
            program,
            outside,
            environment,
            sink,
            variables: OnceCell::new(),
            talks: RefCell::default(),
            bases: RefCell::default(),
            mentions: RefCell::default(),
            listeners: RefCell::default(),
            searches: Cell::new(MAX_SEARCHES),
            trail: Trail::default(),
            locals: Memo::default(),
            expansions: Memo::default(),
            ranges: Memo::default(),
            listens: Memo::default(),
            addresses: Memo::default(),
        }
    }

    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.sink.borrow_mut().push(diagnostic);
    }

    /// The name nearest to `name`, as long as not too many have been searched for.
    pub(super) fn nearest<'n>(
        &self,
        name: &str,
        known: impl Iterator<Item = &'n str>,
    ) -> Option<&'n str> {
        self.searches.set(self.searches.get().checked_sub(1)?);
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        nearest(name, known)
    }

    /// The value of an expression; `None` where it has none and that has been reported.
    pub(super) fn evaluate(&self, expr: &Expr, site: &Site<'_>) -> Option<Value> {
        self.try_evaluate(expr, site).map_err(|errors| self.sink.borrow_mut().extend(errors)).ok()
    }

    fn try_evaluate(&self, expr: &Expr, site: &Site<'_>) -> Evaluated {
        if matches!(expr.kind, ExprKind::Error) {
            return Err(Diagnostics::new());
        }
        Evaluator::new(self.environment, site).evaluate(expr)
    }

    /// The local with this index.
    pub(super) fn local(&self, index: usize, asked_at: Span) -> Evaluated {
        let local = &self.program.locals[index];
        let what = || format!("local.{}", local.name.name);
        self.locals.get(&index, &self.trail, self.sink, asked_at, what, || {
            self.try_evaluate(&local.expr, &Site::of_stack(self))
        })
    }

    /// The components that the block with this index makes.
    pub(super) fn expansion(&self, block: usize, asked_at: Span) -> Evaluated<Rc<Expansion>> {
        let declaration = &self.program.components[block];
        let what = || {
            let how = if declaration.expr("count").is_some() { "count" } else { "for_each" };
            format!("{}.{} ({how})", declaration.kind, declaration.name.name)
        };
        self.expansions.get(&block, &self.trail, self.sink, asked_at, what, || {
            Expansion::new(self, declaration).map(Rc::new).ok_or_else(Diagnostics::new)
        })
    }

    /// The range of a network.
    pub(super) fn range(&self, place: Place, asked_at: Span) -> Evaluated<Ipv4Net> {
        let what = || self.describe(place, "cidr");
        self.ranges.get(&place, &self.trail, self.sink, asked_at, what, || {
            self.setting(place, "cidr", asked_at, network::cidr)
        })
    }

    /// Where an endpoint listens.
    pub(super) fn listen(&self, place: Place, asked_at: Span) -> Evaluated<SocketAddr> {
        let what = || self.describe(place, "listen");
        self.listens.get(&place, &self.trail, self.sink, asked_at, what, || {
            self.setting(place, "listen", asked_at, endpoint::listen)
        })
    }

    /// The stable addresses of all servers. They depend on the ranges of the networks and on
    /// which server is in which, and on nothing else.
    pub(super) fn addresses(&self, asked_at: Span) -> Evaluated<Rc<Addresses>> {
        let what = || "server.*.address".to_owned();
        self.addresses
            .get(&(), &self.trail, self.sink, asked_at, what, || Ok(Rc::new(self.allocate())))
    }

    /// The stable address of a server; an error without diagnostics where its network or that
    /// network's range is wrong.
    pub(super) fn address(&self, place: Place, asked_at: Span) -> Evaluated<Ipv4Addr> {
        let addresses = self.addresses(asked_at)?;
        addresses.by_place.get(&place).copied().ok_or_else(Diagnostics::new)
    }

    fn describe(&self, (block, index): Place, attribute: &str) -> String {
        let declaration = &self.program.components[block];
        let name = self
            .expansion(block, declaration.name.span)
            .map_or_else(|_| declaration.name.name.to_string(), |e| e.id(index).name.clone());
        format!("{}.{name}.{attribute}", declaration.kind)
    }

    /// What `read` makes of one attribute of a component.
    pub(super) fn setting<T>(
        &self,
        (block, index): Place,
        name: &'static str,
        asked_at: Span,
        read: impl FnOnce(&Field<'_>) -> Option<T>,
    ) -> Evaluated<T> {
        let expansion = self.expansion(block, asked_at)?;
        let expr = self.program.components[block].expr(name).ok_or_else(Diagnostics::new)?;
        let value = self.try_evaluate(expr, &Site::of_instance(self, &expansion, index))?;
        read(&Field::new(name, &value, expr, self.sink)).ok_or_else(Diagnostics::new)
    }

    /// As [`Self::setting`]; `None` where the attribute is not set.
    pub(super) fn setting_or<T>(
        &self,
        place: Place,
        name: &'static str,
        asked_at: Span,
        read: impl FnOnce(&Field<'_>) -> Option<T>,
    ) -> Evaluated<Option<T>> {
        match self.program.components[place.0].expr(name) {
            Some(_) => self.setting(place, name, asked_at, read).map(Some),
            None => Ok(None),
        }
    }

    fn allocate(&self) -> Addresses {
        let mut members: BTreeMap<ComponentId, Vec<(ComponentId, Place)>> = BTreeMap::new();
        let servers = self.components(Kind::Server).into_iter();
        for (place, id) in servers.chain(self.components(Kind::Database)) {
            let span = self.program.components[place.0].name.span;
            let network = self.setting(place, "network", span, |field| {
                field.component(&[Kind::Network], "network.front")
            });
            match network {
                Ok(network) => members.entry(network).or_default().push((id, place)),
                Err(errors) => self.sink.borrow_mut().extend(errors),
            }
        }
        let mut addresses = Addresses::default();
        for (place, id) in self.components(Kind::Network) {
            let inside = members.remove(&id).unwrap_or_default();
            self.allocate_network(place, id, &inside, &mut addresses);
        }
        addresses
    }

    fn allocate_network(
        &self,
        place: Place,
        id: ComponentId,
        inside: &[(ComponentId, Place)],
        addresses: &mut Addresses,
    ) {
        let header = self.program.components[place.0].block.span;
        let Ok(cidr) = self.range(place, header) else { return };
        let network = NetworkIdentity { cidr, egress: Vec::new() };
        let nothing = BTreeMap::new();
        let carried = self.outside.carried.get(&id).unwrap_or(&nothing);
        let ids = inside.iter().map(|(id, _)| id);
        match address::allocate(&id, &network, ids, carried) {
            Ok(offsets) => {
                for (server, place) in inside {
                    if let Some(offset) = offsets.get(server) {
                        let address = network.host(*offset);
                        addresses.by_place.insert(*place, address);
                        addresses.by_id.insert(server.clone(), address);
                    }
                }
                addresses.offsets.insert(id, offsets);
            }
            Err(no_room) => {
                let declaration = &self.program.components[place.0];
                let span = declaration.expr("cidr").map_or(header, |expr| expr.span);
                self.report(Diagnostic::error(span, no_room.to_string()));
            }
        }
    }

    /// All components of a kind, in the order of the files.
    pub(super) fn components(&self, kind: Kind) -> Vec<(Place, ComponentId)> {
        let mut found = Vec::new();
        for (block, declaration) in self.program.components.iter().enumerate() {
            if declaration.kind != kind {
                continue;
            }
            if let Ok(expansion) = self.expansion(block, declaration.name.span) {
                let ids = expansion.ids().cloned().enumerate();
                found.extend(ids.map(|(index, id)| ((block, index), id)));
            }
        }
        found
    }

    /// Reports components whose host names are equal: they could not be told apart by name.
    pub(super) fn check_host_names(&self) {
        let mut seen: FxHashSet<String> = FxHashSet::default();
        for (place, id) in self.components(Kind::Server) {
            let host = id.host_name();
            if seen.contains(&host) {
                let span = self.program.components[place.0].name.span;
                let summary = format!("two servers have the host name `{host}`");
                self.report(
                    Diagnostic::error(span, summary)
                        .with_label(format!("{id} is one of them"))
                        .with_help("names differ by more than case and punctuation"),
                );
            }
            seen.insert(host);
        }
    }
}
