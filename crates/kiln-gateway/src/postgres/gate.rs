//! The gate of one database: which instance answers, who is held, and who is done.
//!
//! It outlives tables. The control side tells it an [`Aim`] and waits, where that names another
//! instance or none, until no connection to one before is left. Sessions follow by themselves;
//! where one stands is written down under the same lock under which the aim changes, so that
//! "nothing is under way" is never said too early.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kiln_model::data::{ObservedGate, sockets};
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::quantity::Timestamp;
use tokio::sync::watch;

use super::login::Login;
use crate::control::DatabaseStatus;
use crate::events::Events;
use crate::load::Load;

/// Sessions of one database.
const MOST_SESSIONS: u32 = 1000;

/// How long sessions have to let go of an instance that is not to answer any more; after it
/// their connections are cut.
pub(super) const FENCE: Duration = Duration::from_millis(250);

/// How long it is waited for after that.
const CUT: Duration = Duration::from_millis(150);

/// Where a database's questions go.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    /// Grows with each change of what follows but the login.
    pub(super) turn: u64,
    pub(super) primary: Option<Arc<Load>>,
    pub(super) holds: bool,
    /// Whether the database is in no table any more.
    pub(super) gone: bool,
    pub(super) login: Arc<Login>,
}

impl Aim {
    /// The aim that a table tells.
    pub(crate) fn new(primary: Option<Arc<Load>>, holds: bool, login: Arc<Login>) -> Self {
        Self { turn: 0, primary, holds, gone: false, login }
    }

    /// The instance that questions go to, held or not.
    pub(crate) fn primary(&self) -> Option<&Arc<Load>> {
        self.primary.as_ref()
    }

    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    fn instance(&self) -> Option<&InstanceId> {
        self.primary.as_ref().map(|load| load.instance())
    }

    /// The instance that may be asked now.
    pub(super) fn open(&self) -> Option<&Arc<Load>> {
        self.primary.as_ref().filter(|_| !self.holds)
    }

    pub(super) fn is_at(&self, instance: &InstanceId) -> bool {
        self.instance() == Some(instance)
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// It has not heard the aim, or waits for an instance, or is busy.
    Between,
    /// It asks.
    Going,
    /// It has nothing under way and takes nothing new.
    Quiet,
}

#[derive(Debug, Default)]
struct Book {
    turn: u64,
    /// Of the table.
    epoch: u64,
    open: bool,
    sessions: u32,
    going: u32,
    quiet: u32,
    /// Connections by instance.
    links: BTreeMap<InstanceId, (u32, Option<Arc<Load>>)>,
    /// Whether it was said that the instance is lost.
    lost: bool,
    settled_since: Option<Timestamp>,
    held_since: Option<Timestamp>,
    released_at: Option<Timestamp>,
    /// Who answered before clients were held.
    before: Option<InstanceId>,
    /// What processes before this one have.
    elsewhere: Vec<DatabaseStatus>,
}

/// The gate of one database.
#[derive(Debug)]
pub(crate) struct Gate {
    stack: StackName,
    component: ComponentId,
    sockets: PathBuf,
    events: Events,
    aim: watch::Sender<Aim>,
    book: Mutex<Book>,
    changed: Condvar,
    busy: AtomicU32,
}

impl Gate {
    pub(crate) fn new(
        root: &std::path::Path,
        stack: &StackName,
        component: &ComponentId,
        events: Events,
    ) -> Self {
        let aim = Aim::new(None, false, Arc::default());
        Self {
            stack: stack.clone(),
            component: component.clone(),
            sockets: root.join(sockets(stack, component)),
            events,
            aim: watch::Sender::new(aim),
            book: Mutex::default(),
            changed: Condvar::new(),
            busy: AtomicU32::new(0),
        }
    }

    pub(crate) fn component(&self) -> &ComponentId {
        &self.component
    }

    /// The login that is known at present.
    pub(crate) fn login(&self) -> Arc<Login> {
        Arc::clone(&self.aim.borrow().login)
    }

    pub(super) fn follow(&self) -> watch::Receiver<Aim> {
        self.aim.subscribe()
    }

    /// The directory of an instance's socket.
    pub(super) fn socket_directory(&self, instance: &InstanceId) -> PathBuf {
        self.sockets.join(instance.as_str())
    }

    /// Tells all sessions where questions go from now on. When it returns no connection can be
    /// begun any more to another instance.
    pub(crate) fn aim(&self, mut aim: Aim, epoch: u64) {
        let mut book = self.book();
        let present = self.aim.borrow().clone();
        let same = present.instance() == aim.instance()
            && (present.holds, present.gone) == (aim.holds, aim.gone);
        book.epoch = epoch;
        aim.turn = if same { present.turn } else { present.turn + 1 };
        if !same {
            let was_open = book.open;
            book.turn = aim.turn;
            book.open = aim.open().is_some();
            (book.going, book.quiet, book.lost) = (0, 0, false);
            book.settled_since = None;
            if was_open || (!book.open && book.held_since.is_none()) {
                book.before = present.instance().cloned();
                book.held_since.get_or_insert(now());
            }
        }
        self.aim.send_replace(aim);
        self.look(&mut book);
    }

    /// The database is in no table any more.
    pub(crate) fn close(&self, epoch: u64) {
        let login = self.login();
        self.aim(Aim { turn: 0, primary: None, holds: true, gone: true, login }, epoch);
    }

    /// Waits until all connections to instances that do not answer any more are closed, and cuts
    /// those that are not in time. Whether that succeeded.
    pub(crate) fn clear(&self) -> bool {
        let begun = Instant::now();
        if self.wait_until_clear(begun + FENCE) {
            return true;
        }
        let others: Vec<Arc<Load>> = {
            let (book, aim) = (self.book(), self.aim.borrow());
            let others = book.links.iter().filter(|(instance, _)| !aim.is_at(instance));
            others.filter_map(|(_, (_, load))| load.clone()).collect()
        };
        others.iter().for_each(|load| load.sever());
        self.wait_until_clear(begun + FENCE + CUT)
    }

    fn wait_until_clear(&self, deadline: Instant) -> bool {
        let mut book = self.book();
        loop {
            let aim = self.aim.borrow().clone();
            if book.links.keys().all(|instance| aim.is_at(instance)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            book = match self.changed.wait_timeout(book, left) {
                Ok((book, _)) => book,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Takes one more session in; `None` when there are too many.
    pub(super) fn join(self: &Arc<Self>) -> Option<Member> {
        let mut book = self.book();
        if book.sessions >= MOST_SESSIONS {
            return None;
        }
        book.sessions += 1;
        let stand = if book.open { Stand::Between } else { Stand::Quiet };
        if stand == Stand::Quiet {
            book.quiet += 1;
        }
        Some(Member { gate: Arc::clone(self), turn: book.turn, stand, busy: false })
    }

    /// Counts a connection to the instance that `aim` named; `None` when it is not the aim any
    /// more.
    pub(super) fn link(self: &Arc<Self>, aim: &Aim) -> Option<Linked> {
        let load = aim.open()?;
        let mut book = self.book();
        if book.turn != aim.turn {
            return None;
        }
        let instance = load.instance().clone();
        let entry = book.links.entry(instance.clone()).or_default();
        entry.0 += 1;
        entry.1 = Some(Arc::clone(load));
        Some(Linked { gate: Arc::clone(self), instance })
    }

    /// What processes before this one say of their sessions.
    pub(crate) fn elsewhere(&self, statuses: Vec<DatabaseStatus>) {
        let mut book = self.book();
        book.elsewhere = statuses;
        self.look(&mut book);
    }

    /// How it is, processes before this one included.
    pub(crate) fn status(&self) -> DatabaseStatus {
        let book = self.book();
        let gate = ObservedGate {
            component: self.component.clone(),
            primary: self.aim.borrow().instance().cloned(),
            settled_since: book.settled_since,
            held_since: book.held_since,
            released_at: book.released_at,
            sessions: book.sessions + book.elsewhere.iter().map(|s| s.gate.sessions).sum::<u32>(),
            busy: self.busy.load(Relaxed)
                + book.elsewhere.iter().map(|status| status.gate.busy).sum::<u32>(),
        };
        DatabaseStatus { stack: self.stack.clone(), epoch: book.epoch, gate }
    }

    /// Whether it is the gate of this status.
    pub(crate) fn is_of(&self, status: &DatabaseStatus) -> bool {
        (&status.stack, &status.gate.component) == (&self.stack, &self.component)
    }

    /// Says what has come true.
    fn look(&self, book: &mut Book) {
        let quiet_elsewhere = book
            .elsewhere
            .iter()
            .all(|status| status.epoch == book.epoch && status.gate.settled_since.is_some());
        let settled = !book.open && book.quiet == book.sessions && quiet_elsewhere;
        if !settled {
            book.settled_since = None;
        } else if book.settled_since.is_none() {
            book.settled_since = Some(now());
            self.events.settled(&self.stack, &self.component);
        }
        if book.open && book.going == book.sessions && book.held_since.take().is_some() {
            let aim = self.aim.borrow();
            let Some(instance) = aim.instance() else { return };
            if book.before.as_ref() == Some(instance) {
                book.released_at = Some(now());
            }
            book.lost = false;
            self.events.released(&self.stack, &self.component, instance);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A connection to an instance; dropping it says that it is closed.
#[derive(Debug)]
pub(super) struct Linked {
    gate: Arc<Gate>,
    pub(super) instance: InstanceId,
}

impl Drop for Linked {
    fn drop(&mut self) {
        let mut book = self.gate.book();
        if let Some((count, _)) = book.links.get_mut(&self.instance) {
            *count -= 1;
            if *count == 0 {
                book.links.remove(&self.instance);
            }
        }
        drop(book);
        self.gate.changed.notify_all();
    }
}

/// One session among those of its database.
#[derive(Debug)]
pub(super) struct Member {
    gate: Arc<Gate>,
    turn: u64,
    stand: Stand,
    busy: bool,
}

impl Member {
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Writes down where the session stands towards the aim of this turn.
    pub(super) fn stand(&mut self, turn: u64, stand: Stand) {
        if (self.turn, self.stand) == (turn, stand) {
            return;
        }
        let gate = Arc::clone(&self.gate);
        let mut book = gate.book();
        self.leave(&mut book);
        if book.turn == turn {
            (self.turn, self.stand) = (turn, stand);
            match stand {
                Stand::Between => {}
                Stand::Going => book.going += 1,
                Stand::Quiet => book.quiet += 1,
            }
        }
        gate.look(&mut book);
    }

    /// The session has lost its instance, which nobody had told.
    pub(super) fn lost(&mut self, turn: u64, instance: &InstanceId) {
        self.stand(turn, Stand::Between);
        let mut book = self.gate.book();
        if book.turn == turn && !book.lost {
            book.lost = true;
            book.before = Some(instance.clone());
            book.held_since.get_or_insert(now());
            self.gate.events.lost(&self.gate.stack, &self.gate.component, instance);
        }
    }

    /// Notes whether something is under way.
    pub(super) fn busy(&mut self, busy: bool) {
        if self.busy != busy {
            self.busy = busy;
            if busy {
                self.gate.busy.fetch_add(1, Relaxed);
            } else {
                self.gate.busy.fetch_sub(1, Relaxed);
            }
        }
    }

    fn leave(&mut self, book: &mut Book) {
        if book.turn == self.turn {
            match self.stand {
                Stand::Between => {}
                Stand::Going => book.going -= 1,
                Stand::Quiet => book.quiet -= 1,
            }
        }
        self.stand = Stand::Between;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.busy(false);
        let gate = Arc::clone(&self.gate);
        let mut book = gate.book();
        self.leave(&mut book);
        book.sessions -= 1;
        gate.look(&mut book);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Event;

    fn load(name: &str, events: &Events) -> Arc<Load> {
        Arc::new(Load::new(name.parse().unwrap(), events.clone()))
    }

    #[test]
    fn a_gate_is_settled_when_the_last_session_is_quiet() {
        let events = Events::new();
        let mut told = events.subscribe();
        let (stack, component) = ("shop".parse().unwrap(), "database.orders".parse().unwrap());
        let root = std::path::Path::new("/nowhere");
        let gate = Arc::new(Gate::new(root, &stack, &component, events.clone()));
        let (one, two) = (load("orders-1", &events), load("orders-2", &events));
        let aim = |load: &Arc<Load>, holds| Aim::new(Some(Arc::clone(load)), holds, Arc::default());
        gate.aim(aim(&one, false), 1);
        let released = |instance: &str| Event::Released {
            stack: stack.clone(),
            component: component.clone(),
            instance: instance.parse().unwrap(),
        };
        let settled = Event::Settled { stack: stack.clone(), component: component.clone() };
        assert!(told.try_recv().is_err(), "nobody was held");
        let (mut a, mut b) = (gate.join().unwrap(), gate.join().unwrap());
        let open = gate.follow().borrow().clone();
        let linked = gate.link(&open).unwrap();
        a.stand(open.turn, Stand::Going);
        b.busy(true);
        gate.aim(aim(&one, true), 2);
        let held = gate.follow().borrow().clone();
        assert!(gate.link(&open).is_none() && gate.link(&held).is_none());
        a.stand(open.turn, Stand::Quiet);
        b.stand(held.turn, Stand::Quiet);
        assert!(gate.status().gate.settled_since.is_none() && told.try_recv().is_err());
        a.stand(held.turn, Stand::Quiet);
        assert_eq!(told.try_recv(), Ok(settled.clone()));
        assert!(gate.join().is_some() && told.try_recv().is_err(), "a new one is held as well");
        gate.aim(Aim::new(None, false, Arc::default()), 3);
        assert!(!gate.clear(), "a connection is left");
        drop(linked);
        assert!(gate.clear());
        gate.aim(aim(&two, false), 4);
        let open = gate.follow().borrow().clone();
        a.stand(open.turn, Stand::Going);
        assert!(told.try_recv().is_err());
        drop(b);
        assert_eq!(told.try_recv(), Ok(released("orders-2")));
        let status = gate.status().gate;
        assert_eq!((status.sessions, status.busy, status.held_since), (1, 0, None));
        assert_eq!(status.released_at, None, "another instance answers");
    }
}
