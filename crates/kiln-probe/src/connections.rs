//! The connections that are open, and how they end when the server stops.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The open connections of a server.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<Open>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    streams: HashMap<u64, TcpStream>,
    next: u64,
    stopping: bool,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a second handle of a new connection; the number is for [`Connections::remove`].
    pub(crate) fn add(&self, stream: TcpStream) -> u64 {
        let mut open = self.lock();
        open.next += 1;
        let number = open.next;
        open.streams.insert(number, stream);
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        self.lock().streams.remove(&number);
        self.closed.notify_all();
    }

    /// From now on, answers say that their connection closes.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Lets no further request in: who waits for one ends, who answers one can still do so.
    pub(crate) fn shut(&self) {
        for stream in self.lock().streams.values() {
            // One that the client has closed already is fine.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Waits until none is open, at most for `limit`; answers with how many are left.
    pub(crate) fn wait(&self, limit: Duration) -> usize {
        let open = self.lock();
        let waited = self.closed.wait_timeout_while(open, limit, |open| !open.streams.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.streams.len()
    }
}
