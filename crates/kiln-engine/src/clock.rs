//! Time, handed in.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_model::quantity::Timestamp;

/// Where the engine gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// Returns once `now()` is `at` or later.
    fn sleep_until(&self, at: Timestamp) -> impl Future<Output = ()> + Send;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, at: Timestamp) {
        let span = Duration::from(at.since(self.now()));
        tokio::time::sleep(span).await;
    }
}
