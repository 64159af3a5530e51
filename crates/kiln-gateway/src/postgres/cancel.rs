//! Cancelling: a client's key leads to the instance that serves its session.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::link::connect;
use super::scram::random;
use super::wire::CancelKey;

/// How long an instance has to take a request.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where something is cancelled.
#[derive(Debug, Clone)]
struct Target {
    directory: PathBuf,
    key: CancelKey,
}

/// The keys of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Cancels {
    next: AtomicI32,
    targets: Mutex<HashMap<CancelKey, Option<Target>>>,
}

/// The key of one session; dropping it ends it.
#[derive(Debug)]
pub(super) struct Registered {
    cancels: Arc<Cancels>,
    pub(super) key: CancelKey,
}

impl Cancels {
    /// A key that no other session has.
    pub(super) fn register(self: &Arc<Self>) -> Registered {
        let mut targets = self.targets();
        loop {
            // It need not be a process, and two processes of the gateway may give the same
            // number: the secret tells them apart.
            let pid = self.next.fetch_add(1, Relaxed) & i32::MAX;
            let key = CancelKey { pid: pid.max(1), secret: i32::from_be_bytes(random()) };
            if let Entry::Vacant(free) = targets.entry(key) {
                free.insert(None);
                return Registered { cancels: Arc::clone(self), key };
            }
        }
    }

    /// Passes a request on to the instance that serves the session with this key. Whether there
    /// is one.
    pub(crate) async fn cancel(&self, key: CancelKey) -> bool {
        let Some(target) = self.targets().get(&key).cloned() else { return false };
        if let Some(target) = target {
            // Whoever asks is never told how it went.
            let _ = timeout(PATIENCE, target.request()).await;
        }
        true
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<CancelKey, Option<Target>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    async fn request(&self) -> std::io::Result<()> {
        let mut stream = connect(&self.directory).await?;
        stream.write_all(&self.key.request()).await?;
        // The instance closes when it has done so.
        stream.read(&mut [0]).await.map(drop)
    }
}

impl Registered {
    /// From now on this is the instance, and this its own key.
    pub(super) fn lead_to(&self, directory: PathBuf, key: Option<CancelKey>) {
        let target = key.map(|key| Target { directory, key });
        self.cancels.targets().insert(self.key, target);
    }

    /// No instance serves the session at present.
    pub(super) fn lead_nowhere(&self) {
        self.cancels.targets().insert(self.key, None);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancels.targets().remove(&self.key);
    }
}
