//! The side that takes over, and what it asks of its predecessor afterwards.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_model::name::InstanceId;
use kiln_model::route::RouteTable;
use serde::de::DeserializeOwned;

use crate::control::{DatabaseStatus, Envelope, PROTOCOL, Reply, Request, socket_path};
use crate::handover::successor::{Left, Question};
use crate::handover::{
    Estate, Inherited, PATIENCE, READY, TAKEN, VERSION, descriptors, receive, send,
};
use crate::load::InFlight;
use crate::postgres::CancelKey;
use crate::table::Registry;

/// How often a predecessor is asked what it has left.
pub(crate) const ASKED: Duration = Duration::from_millis(25);

/// How long it may take for an answer; then it counts as gone, with all that it had.
const ANSWER: Duration = Duration::from_secs(2);

/// A predecessor that has handed its estate out and waits for it to be taken.
#[derive(Debug)]
pub(crate) struct Offer {
    stream: UnixStream,
    pub(crate) estate: Estate,
    pub(crate) sockets: Inherited,
}

impl Offer {
    /// Asks the gateway of `root` to hand over.
    pub(crate) fn ask(root: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket_path(root))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let message = Request::HandOver { version: VERSION };
        send(&stream, &Envelope { protocol: PROTOCOL, message })?;
        let reply: Envelope<Reply> = receive(&stream)?;
        let estate = match reply.message {
            Reply::Estate(estate) => *estate,
            Reply::Refused { refusal } => return Err(io::Error::other(refusal)),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        send(&stream, &READY)?;
        let received = descriptors::receive(&stream, estate.sockets.len())?;
        let sockets = Inherited::new(estate.sockets.clone(), received);
        Ok(Self { stream, estate, sockets })
    }

    /// Says that everything is taken over. When this returns the predecessor accepts nothing
    /// any more, and what it has in flight is counted here.
    pub(crate) fn taken(self, registry: &mut Registry) -> io::Result<Predecessor> {
        send(&self.stream, &TAKEN)?;
        let left: Left = receive(&self.stream)?;
        self.stream.set_read_timeout(Some(ANSWER))?;
        self.stream.set_write_timeout(Some(ANSWER))?;
        let tells_gates = self.estate.tells_gates;
        let mut predecessor =
            Predecessor { stream: self.stream, tells_gates, held: BTreeMap::new() };
        predecessor.hold(left, registry);
        Ok(predecessor)
    }
}

/// A process that finishes what it had accepted.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    /// Whether it can be asked how its gates are.
    tells_gates: bool,
    /// Counts what it has in flight, once for each instance.
    held: BTreeMap<InstanceId, InFlight>,
}

impl Predecessor {
    fn ask(&mut self, question: &Question) -> io::Result<Left> {
        self.converse(question)
    }

    fn converse<T: DeserializeOwned>(&mut self, question: &Question) -> io::Result<T> {
        send(&self.stream, question)?;
        receive(&self.stream)
    }

    fn hold(&mut self, left: Left, registry: &mut Registry) {
        self.held.retain(|instance, _| left.get(instance).is_some_and(|count| *count > 0));
        for (instance, count) in left {
            if count > 0 && !self.held.contains_key(&instance) {
                let counted = registry.count_elsewhere(&instance);
                self.held.insert(instance, counted);
            }
        }
    }
}

/// All processes before this one that have something left.
#[derive(Debug, Clone, Default)]
pub(crate) struct Predecessors(Arc<Mutex<Vec<Predecessor>>>);

impl Predecessors {
    pub(crate) fn add(&self, predecessor: Predecessor) {
        self.list().push(predecessor);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    /// Asks each what it has left. Who does not answer is gone.
    pub(crate) fn look(&self, registry: &mut Registry) {
        self.ask(&Question::Left, registry);
    }

    /// Tells each a table that is in force now; when this returns they have taken it up.
    pub(crate) fn follow(&self, table: &RouteTable, registry: &mut Registry) {
        if !self.is_empty() {
            self.ask(&Question::Table(Box::new(table.clone())), registry);
        }
    }

    /// Has each end what is in flight to an instance.
    pub(crate) fn sever(&self, instance: &InstanceId, registry: &mut Registry) {
        self.ask(&Question::Sever(instance.clone()), registry);
    }

    /// How the gates of each are. Who does not answer is gone.
    pub(crate) fn gates(&self) -> Vec<DatabaseStatus> {
        let mut all = Vec::new();
        self.list().retain_mut(|predecessor| {
            let told = match predecessor.tells_gates {
                true => predecessor.converse::<Vec<DatabaseStatus>>(&Question::Gates),
                false => return true,
            };
            let is_there = told.is_ok();
            all.extend(told.unwrap_or_default());
            is_there
        });
        all
    }

    /// Has whoever knows the key cancel what its session has asked.
    pub(crate) fn cancel(&self, key: CancelKey) {
        for predecessor in self.list().iter_mut().filter(|one| one.tells_gates) {
            // One that is gone is found out by whoever counts on its answer.
            let _ = predecessor.ask(&Question::Cancel(key));
        }
    }

    fn ask(&self, question: &Question, registry: &mut Registry) {
        self.list().retain_mut(|predecessor| match predecessor.ask(question) {
            Ok(left) => {
                predecessor.hold(left, registry);
                true
            }
            Err(_gone) => false,
        });
    }

    fn list(&self) -> MutexGuard<'_, Vec<Predecessor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
