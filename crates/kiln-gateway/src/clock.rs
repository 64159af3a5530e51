//! Time since the gateway started, in milliseconds: small enough for one atomic word.

use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the first call, plus one: never 0, so that 0 can mean "not set".
pub(crate) fn now_ms() -> u64 {
    at_ms(Instant::now())
}

/// The same for an instant that was already read.
pub(crate) fn at_ms(instant: Instant) -> u64 {
    let elapsed = instant.saturating_duration_since(*START);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1) + 1
}
