//! From blocks to specs, one module for each kind of component.

pub(super) mod alarm;
mod backup;
mod certificate;
pub(super) mod database;
pub(super) mod demands;
pub(super) mod endpoint;
mod handling;
mod health;
mod image;
mod nested;
pub(super) mod network;
mod paths;
mod probe;
mod rollout;
mod scale;
mod secret;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use kiln_model::name::{ComponentId, Kind};
use kiln_model::spec::image::{Base, Recipe};
use kiln_model::spec::{Body as SpecBody, Spec};
use rustc_hash::FxHashSet;

pub use secret::SecretValue;

use super::Stack;
use super::decode::{Field, Marks};
use super::expand::Expansion;
use super::scope::Site;
use super::world::{Place, Talk, World};
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::Body;
use crate::syntax::span::Span;

/// A component that was lowered.
pub(super) struct Lowered {
    pub(super) spec: Spec,
    /// The value of a secret that is not generated.
    pub(super) secret: Option<SecretValue>,
    /// An image that no block declares and that it needs.
    pub(super) image: Option<Spec>,
}

/// The spec of one component; `None` where something is wrong with it, which has been reported.
pub(super) fn lower(world: &World<'_>, expansion: &Rc<Expansion>, place: Place) -> Option<Lowered> {
    let declaration = &world.program.components[place.0];
    let marks = Marks::default();
    let reader = Reader {
        world,
        site: Site::of_instance(world, expansion, place.1),
        body: &declaration.block.body,
        place,
        id: expansion.id(place.1),
        header: declaration.block.span,
        marks: &marks,
    };
    let (mut value, mut implied) = (None, None);
    let body = match declaration.kind {
        Kind::Image => SpecBody::Image(Box::new(image::image(&reader)?)),
        Kind::Network => SpecBody::Network(network::network(&reader)?),
        Kind::Secret => {
            let (secret, given) = secret::secret(&reader)?;
            value = given;
            SpecBody::Secret(secret)
        }
        Kind::Server => SpecBody::Server(Box::new(server::server(&reader)?)),
        Kind::Endpoint => SpecBody::Endpoint(Box::new(endpoint::endpoint(&reader)?)),
        Kind::Database => {
            let (database, image) = database::database(&reader)?;
            implied = image;
            SpecBody::Database(Box::new(database))
        }
    };
    let id = reader.id.clone();
    Some(Lowered {
        spec: Spec { id, body, sensitive: marks.into_inner() },
        secret: value,
        image: implied,
    })
}

/// Reports servers that have nothing to run: no command of their own, and an image without
/// entrypoint.
pub(super) fn check_programs(world: &World<'_>, stack: &Stack) {
    let without_entrypoint: FxHashSet<&ComponentId> = stack
        .specs
        .iter()
        .filter(|spec| spec.as_image().is_some_and(|image| lacks_program(&image.identity.recipe)))
        .map(|spec| &spec.id)
        .collect();
    for spec in &stack.specs {
        let Some(server) = spec.as_server() else { continue };
        let image = &server.identity.image.id;
        if server.identity.command.is_none() && without_entrypoint.contains(image) {
            let Some(place) = stack.places.get(&spec.id) else { continue };
            world.report(
                Diagnostic::error(*place, format!("{} has no program to run", spec.id))
                    .with_label(format!("{image} has no `entrypoint`"))
                    .with_help("give the image an `entrypoint`, or the server a `command`"),
            );
        }
    }
}

/// Whether it is known that a recipe names no program: one from elsewhere may bring its own.
fn lacks_program(recipe: &Recipe) -> bool {
    recipe.entrypoint.is_empty() && matches!(recipe.base, Base::Debian { .. } | Base::Scratch)
}

/// The mark of what is wrong and has been reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

/// Reads the attributes of one block of one component.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    world: &'r World<'r>,
    site: Site<'r>,
    body: &'r Body,
    place: Place,
    id: &'r ComponentId,
    header: Span,
    marks: &'r Marks,
}

impl<'r> Reader<'r> {
    /// What `read` makes of an attribute; `None` where it is not set, or null.
    pub(super) fn read<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&Field<'_>) -> Option<T>,
    ) -> Result<Option<T>, Reported> {
        let Some(attribute) = super::schema::attribute(self.body, name) else {
            return Ok(None);
        };
        let value = self.world.evaluate(&attribute.expr, &self.site).ok_or(Reported)?;
        if value.is_null() {
            return Ok(None);
        }
        let field = Field::new(name, &value, &attribute.expr, self.world.sink);
        read(&field.marked(self.marks)).map(Some).ok_or(Reported)
    }

    /// As [`Self::read`], with a default for what is not set.
    pub(super) fn read_or<T>(
        &self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&Field<'_>) -> Option<T>,
    ) -> Option<T> {
        Some(self.read(name, read).ok()?.unwrap_or(default))
    }

    /// As [`Self::read`], for what must be set. That it is there at all has been checked.
    pub(super) fn required<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&Field<'_>) -> Option<T>,
    ) -> Option<T> {
        let found = self.read(name, read).ok()?;
        if found.is_none()
            && let Some(attribute) = super::schema::attribute(self.body, name)
        {
            let summary = format!("`{name}` must not be null");
            self.world.report(Diagnostic::error(attribute.expr.span, summary));
        }
        found
    }

    pub(super) fn id(&self) -> &'r ComponentId {
        self.id
    }

    /// The stable address of the server that is read.
    pub(super) fn own_address(&self) -> Option<Ipv4Addr> {
        self.world.address(self.place, self.header).ok()
    }

    /// The stable address of a server that a reference led to.
    pub(super) fn address_of(&self, id: &ComponentId) -> Option<Ipv4Addr> {
        self.world.addresses(self.header).ok()?.of(id)
    }

    /// Notes that this component talks to another, so that cycles are found.
    pub(super) fn note_talk(&self, to: &ComponentId, span: Span) {
        let talk = Talk { from: self.id.clone(), to: to.clone(), span };
        self.world.talks.borrow_mut().push(talk);
    }

    /// Notes that this image stands on another, so that cycles are found.
    pub(super) fn note_base(&self, to: &ComponentId, span: Span) {
        let base = Talk { from: self.id.clone(), to: to.clone(), span };
        self.world.bases.borrow_mut().push(base);
    }

    /// Notes that an endpoint listens at an address, and reports a second one. Port 0 stands for
    /// any free port, and datagrams have ports of their own.
    pub(super) fn claim_listener(&self, address: SocketAddr, datagrams: bool, span: Span) {
        let first = self.world.listeners.borrow_mut().insert((address, datagrams), span);
        if let Some(first) = first.filter(|_| address.port() != 0) {
            let summary = format!("two endpoints listen on {address}");
            self.world.report(
                Diagnostic::error(span, summary).with_related(first, "the first one is here"),
            );
        }
    }
}
