//! How much each instance has to do at present, and when it has nothing left.
//!
//! A request takes an instance in three steps: it reads the current table, enters the
//! instance's [`Load`], and looks whether the instance has begun to drain. The control side
//! swaps the table first, marks the instance as draining second, and looks whether anything is
//! in flight third. All four accesses are sequentially consistent, so one of the two sees the
//! other: nothing is ever sent to an instance that was reported as drained.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_model::name::InstanceId;
use rustix::net::Shutdown;
use tokio::sync::watch;

use crate::events::Events;
use crate::stats::Counters;

/// What is counted: a request, or a connection that is passed on as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// One HTTP request, until its response has been read to the end.
    Request,
    /// One TCP connection or upgraded HTTP connection.
    Connection,
}

impl Unit {
    /// Requests are counted in the lower half of one word and connections in the upper, so
    /// that "nothing in flight" is one comparison.
    const fn one(self) -> u64 {
        match self {
            Unit::Request => 1,
            Unit::Connection => 1 << 32,
        }
    }
}

/// The traffic of one instance, over all of its ports and everyone who reaches it.
#[derive(Debug)]
pub(crate) struct Load {
    instance: InstanceId,
    in_flight: AtomicU64,
    draining: AtomicBool,
    reported: AtomicBool,
    severed: watch::Sender<bool>,
    /// Sockets that are shut down when the instance is severed; each is open for as long as it
    /// is listed.
    sockets: Mutex<HashSet<RawFd>>,
    counters: Counters,
    events: Events,
}

impl Load {
    pub(crate) fn new(instance: InstanceId, events: Events) -> Self {
        Self {
            instance,
            in_flight: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            severed: watch::Sender::new(false),
            sockets: Mutex::default(),
            counters: Counters::default(),
            events,
        }
    }

    pub(crate) fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Counts one more, or returns `None` when the instance drains and must get nothing new.
    pub(crate) fn enter(self: &Arc<Self>, unit: Unit) -> Option<InFlight> {
        self.in_flight.fetch_add(unit.one(), SeqCst);
        let guard = InFlight { load: Arc::clone(self), unit };
        (!self.draining.load(SeqCst)).then_some(guard)
    }

    /// Counts one more even while draining: for what continues something already in flight.
    pub(crate) fn carry_on(self: &Arc<Self>, unit: Unit) -> InFlight {
        self.in_flight.fetch_add(unit.one(), SeqCst);
        InFlight { load: Arc::clone(self), unit }
    }

    /// Requests and connections in flight.
    pub(crate) fn in_flight(&self) -> (u32, u32) {
        let word = self.in_flight.load(SeqCst);
        ((word & 0xffff_ffff) as u32, (word >> 32) as u32)
    }

    /// Requests and connections together: what balancing compares.
    pub(crate) fn total(&self) -> u32 {
        let (requests, connections) = self.in_flight();
        requests.saturating_add(connections)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Called after the table without this instance has become the current one.
    pub(crate) fn drain(&self) {
        self.draining.store(true, SeqCst);
        self.report_if_drained();
    }

    /// Called before a table with this instance becomes the current one.
    pub(crate) fn restore(&self) {
        self.draining.store(false, SeqCst);
        self.reported.store(false, SeqCst);
        self.severed.send_if_modified(std::mem::take);
    }

    /// Ends all that is in flight, now.
    pub(crate) fn sever(&self) {
        self.severed.send_replace(true);
        for socket in &*self.sockets() {
            // SAFETY: it is open: it leaves the list, under this lock, before it is closed.
            let socket = unsafe { BorrowedFd::borrow_raw(*socket) };
            // One that the instance has closed already is as good.
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
    }

    /// Has a socket shut down when the instance is severed, which ends whoever waits for it. That
    /// costs a request nothing, other than to wait for [`severed`] beside it.
    pub(crate) fn enlist(self: &Arc<Self>, socket: &impl AsRawFd) -> io::Result<Enlisted> {
        let socket = socket.as_raw_fd();
        self.sockets().insert(socket);
        let enlisted = Enlisted { load: Arc::clone(self), socket };
        // Looked at after it was listed: either this or `sever` sees the other.
        if enlisted.is_severed() {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(enlisted)
        }
    }

    fn sockets(&self) -> MutexGuard<'_, HashSet<RawFd>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver for [`severed`].
    pub(crate) fn severance(&self) -> watch::Receiver<bool> {
        self.severed.subscribe()
    }

    /// Tells the daemon that a connection to the instance could not be made.
    pub(crate) fn connect_failed(&self, address: SocketAddrV4, error: &std::io::Error) {
        self.events.connect_failed(&self.instance, address, error);
    }

    /// Tells the daemon that the instance fails requests.
    pub(crate) fn faulty(&self, address: SocketAddrV4, pause_ms: u64) {
        self.events.faulty(&self.instance, address, pause_ms);
    }

    /// What the instance has answered.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    fn report_if_drained(&self) {
        if self.in_flight.load(SeqCst) == 0
            && self.draining.load(SeqCst)
            && !self.reported.swap(true, SeqCst)
        {
            self.events.drained(&self.instance);
        }
    }
}

/// A socket that is shut down when its instance is severed. It has to be dropped before the
/// socket is.
#[derive(Debug)]
pub(crate) struct Enlisted {
    load: Arc<Load>,
    socket: RawFd,
}

impl Enlisted {
    /// Whether what ends was ended.
    pub(crate) fn is_severed(&self) -> bool {
        *self.load.severed.borrow()
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.load.sockets().remove(&self.socket);
    }
}

/// Waits until the instance is severed; never returns otherwise.
pub(crate) async fn severed(receiver: &mut watch::Receiver<bool>) {
    if receiver.wait_for(|severed| *severed).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One request or connection in flight; dropping it ends it.
#[derive(Debug)]
pub(crate) struct InFlight {
    load: Arc<Load>,
    unit: Unit,
}

impl InFlight {
    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(self.unit.one(), SeqCst);
        self.load.report_if_drained();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Event;

    fn load() -> (Arc<Load>, tokio::sync::broadcast::Receiver<Event>) {
        let events = Events::new();
        let receiver = events.subscribe();
        (Arc::new(Load::new("web-1".parse().unwrap(), events)), receiver)
    }

    #[test]
    fn drained_is_reported_once_when_the_last_one_ends() {
        let (load, mut events) = load();
        let first = load.enter(Unit::Request).unwrap();
        let second = load.enter(Unit::Connection).unwrap();
        assert_eq!(load.in_flight(), (1, 1));
        load.drain();
        assert!(events.try_recv().is_err());
        assert!(load.enter(Unit::Request).is_none());
        drop(first);
        assert!(events.try_recv().is_err());
        drop(second);
        assert_eq!(events.try_recv(), Ok(Event::Drained { instance: "web-1".parse().unwrap() }));
        assert!(load.enter(Unit::Request).is_none());
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn an_idle_instance_is_drained_at_once_and_can_come_back() {
        let (load, mut events) = load();
        load.drain();
        assert!(events.try_recv().is_ok());
        load.restore();
        assert!(load.enter(Unit::Request).is_some());
        load.drain();
        assert!(events.try_recv().is_ok());
    }
}
