//! Work that goes on, on threads, while a test changes something below it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How often the work was done, or what failed first.
pub(crate) type Load = JoinHandle<Result<u64, String>>;

/// Repeats `work` on a thread until `stop`; an error says `what` failed and after how many.
pub(crate) fn repeat(
    stop: &Arc<AtomicBool>,
    what: &'static str,
    mut work: impl FnMut() -> std::io::Result<()> + Send + 'static,
) -> Load {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::SeqCst) {
            work().map_err(|error| format!("{what} after {count}: {error}"))?;
            count += 1;
        }
        Ok(count)
    })
}
