//! Several downloads at once.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use super::{Download, FetchError, Fetcher};
use crate::progress::{Event, Progress};

/// How many files are fetched at a time: enough to hide a mirror's latency, few enough to be
/// polite.
const PARALLEL: usize = 4;

impl Fetcher {
    /// Fetches all files into the cache and gives their paths in the same order. The first failure
    /// ends the batch; files that are here by then stay in the cache.
    pub fn download_all(
        &self,
        downloads: &[Download],
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>, FetchError> {
        let total_bytes: u64 = downloads.iter().map(|download| download.size_bytes).sum();
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (arrived, stop) = (AtomicI64::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::with_capacity(downloads.len()));
        let report = |more: i64| {
            let bytes = arrived.fetch_add(more, Ordering::Relaxed) + more;
            progress.event(Event::Download {
                done_bytes: u64::try_from(bytes).unwrap_or(0),
                total_bytes,
                done: done.load(Ordering::Relaxed),
                total: downloads.len(),
            });
        };
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(download) = downloads.get(at) else { break };
                let result = self.download(download, &report);
                done.fetch_add(1, Ordering::Relaxed);
                stop.fetch_or(result.is_err(), Ordering::Relaxed);
                report(0);
                let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                results.push((at, result));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..PARALLEL.min(downloads.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, result)| result).collect()
    }
}
