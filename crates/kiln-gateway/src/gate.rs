//! How many requests a route has going at a time, and who waits for a place.
//!
//! With a bound on concurrency a route has so many places as its instances together. A request
//! without a place waits in a bounded queue, in the order of arrival and for a bounded time, or
//! is refused at once. Without a bound the gate stands open and costs one load. Health checks
//! go to instances directly, never through here.
//!
//! While a server has no instance, what comes for it is held where that is asked for, or where
//! the server sleeps until somebody asks: then the first to wait wakes it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_model::handling::Limits;
use kiln_model::name::{ComponentId, StackName};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::events::Events;

/// Requests that may wait for a first instance where no queue is given.
const HELD: u32 = 1024;

/// How long requests wait for the first instance of a server that sleeps, where nothing is said.
const HOLD: Duration = Duration::from_secs(30);

/// How long requests wait for a place where nothing is said.
const WAIT: Duration = Duration::from_secs(1);

/// The gate of one route, over all tables that have it.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Whether places are counted at present.
    counted: AtomicBool,
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    taken: usize,
    places: usize,
    queue: usize,
    wait: Duration,
    /// There is no instance, and what comes waits for the first.
    holds: bool,
    /// Who is waited for, and where that is told.
    server: Option<Server>,
    line: VecDeque<oneshot::Sender<Place>>,
}

/// The server behind a gate.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) stack: StackName,
    pub(crate) component: ComponentId,
    pub(crate) events: Events,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Option<Arc<Gate>>);

/// All places are taken, and so is the queue, or its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Default for Gate {
    fn default() -> Self {
        let state = State {
            taken: 0,
            places: usize::MAX,
            queue: 0,
            wait: WAIT,
            holds: false,
            server: None,
            line: VecDeque::new(),
        };
        Self {
            counted: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }
}

impl Gate {
    /// Leads to a server.
    pub(crate) fn lead_to(&self, server: Server) {
        self.state().server = Some(server);
    }

    /// Follows a new table: so many instances, these limits, and whether the server sleeps while
    /// nobody asks for it.
    pub(crate) fn set(self: &Arc<Self>, instances: usize, limits: &Limits, sleeps: bool) {
        let usual = if sleeps { HOLD } else { Duration::ZERO };
        let hold = limits.hold.map_or(usual, Duration::from);
        let holds = instances == 0 && !hold.is_zero();
        let mut state = self.state();
        state.places = match (instances, limits.concurrency) {
            (0, _) if holds => 0,
            // Nobody is there to wait for: the request is told so at once.
            (0, _) | (_, None) => usize::MAX,
            (_, Some(each)) => instances.saturating_mul(each as usize),
        };
        let queue = if holds { limits.queue.unwrap_or(HELD) } else { limits.queue.unwrap_or(0) };
        state.queue = queue as usize;
        state.holds = holds;
        state.wait = if holds { hold } else { limits.wait.map_or(WAIT, Duration::from) };
        self.counted.store(limits.concurrency.is_some() || holds, Relaxed);
        drop(state);
        self.admit();
    }

    /// A place for one request, waited for as the limits say.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Place, Full> {
        if !self.counted.load(Relaxed) {
            return Ok(Place(None));
        }
        let (waiter, wait) = {
            let mut state = self.state();
            if state.taken < state.places && state.line.is_empty() {
                state.taken += 1;
                return Ok(Place(Some(Arc::clone(self))));
            }
            // Those that have given up are still in the line, but take no place in it.
            if self.waiting.load(Relaxed) >= state.queue {
                return Err(Full);
            }
            let (place, waiter) = oneshot::channel();
            if state.line.len() > state.queue {
                state.line.retain(|place| !place.is_closed());
            }
            state.line.push_back(place);
            // The first one tells; the daemon looks at the others by itself.
            if state.holds && self.waiting.load(Relaxed) == 0 {
                state.tell();
            }
            (waiter, state.wait)
        };
        let _waiting = Waiting::begin(&self.waiting);
        timeout(wait, waiter).await.ok().and_then(Result::ok).ok_or(Full)
    }

    /// Whether there is no instance and what comes is held.
    pub(crate) fn holds(&self) -> bool {
        self.counted.load(Relaxed) && self.state().holds
    }

    /// Tells that the server is asked for by something that cannot be held.
    pub(crate) fn ask(&self) {
        if self.counted.load(Relaxed) {
            let state = self.state();
            if state.holds {
                state.tell();
            }
        }
    }

    /// Requests that wait at present.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Gives free places to those that wait.
    fn admit(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                if state.taken >= state.places {
                    return;
                }
                let Some(next) = state.line.pop_front() else { return };
                state.taken += 1;
                next
            };
            // Outside of the lock: whoever has given up gives the place back at once.
            if let Err(mut place) = next.send(Place(Some(Arc::clone(self)))) {
                place.0 = None;
                self.state().taken -= 1;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&self) {
        if let Some(Server { stack, component, events }) = &self.server {
            events.asked(stack, component);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            let mut state = gate.state();
            state.taken = state.taken.saturating_sub(1);
            let somebody_waits = !state.line.is_empty();
            drop(state);
            if somebody_waits {
                gate.admit();
            }
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::quantity::Millis;

    use super::*;

    fn limits(concurrency: u32, queue: u32, wait: u64) -> Limits {
        Limits {
            concurrency: Some(concurrency),
            queue: Some(queue),
            wait: Some(Millis(wait)),
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn places_are_handed_on_in_order_and_the_rest_is_refused() {
        let gate = Arc::new(Gate::default());
        gate.set(2, &limits(1, 1, 1000), false);
        let first = gate.enter().await.unwrap();
        let _second = gate.enter().await.unwrap();
        let third = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(gate.waiting(), 1);
        assert_eq!(gate.enter().await.err(), Some(Full));
        drop(first);
        let third = third.await.unwrap().unwrap();
        assert_eq!((gate.waiting(), gate.state().taken), (0, 2));
        drop(third);
        assert_eq!(gate.state().taken, 1);
    }

    #[tokio::test]
    async fn who_has_waited_too_long_leaves_no_place_taken() {
        let gate = Arc::new(Gate::default());
        gate.set(1, &limits(1, 5, 5), false);
        let first = gate.enter().await.unwrap();
        assert_eq!(gate.enter().await.err(), Some(Full));
        drop(first);
        assert_eq!(gate.state().taken, 0);
        assert!(gate.enter().await.is_ok());
    }

    #[tokio::test]
    async fn requests_wait_for_a_first_instance_where_that_is_asked_for() {
        let gate = Arc::new(Gate::default());
        let held = Limits { hold: Some(Millis(5000)), ..Limits::default() };
        gate.set(0, &held, false);
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(gate.waiting(), 1);
        gate.set(1, &held, false);
        assert!(waiting.await.unwrap().is_ok());
        gate.set(0, &Limits::default(), false);
        assert!(gate.enter().await.is_ok());
    }

    #[tokio::test]
    async fn the_first_that_waits_for_a_server_that_sleeps_wakes_it() {
        let (gate, events) = (Arc::new(Gate::default()), Events::new());
        let mut heard = events.subscribe();
        let (stack, component): (StackName, ComponentId) =
            ("shop".parse().unwrap(), "server.web".parse().unwrap());
        gate.lead_to(Server { stack: stack.clone(), component: component.clone(), events });
        gate.set(0, &Limits::default(), true);
        let enter = || {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.enter().await })
        };
        let both = [enter(), enter()];
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(gate.waiting(), 2);
        let asked = crate::control::Event::Asked { stack, component };
        assert_eq!(heard.try_recv(), Ok(asked));
        assert!(heard.try_recv().is_err(), "once");
        gate.set(1, &Limits::default(), true);
        for entered in both {
            assert!(entered.await.unwrap().is_ok());
        }
    }
}
