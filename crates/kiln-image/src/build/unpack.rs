//! Unpacking the packages of an image, several at once.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::BuildError;
use crate::deb::{Deb, DebError};
use crate::lock::LockEntry;
use crate::progress::{Event, Progress};

/// Unpacks the files at `paths`, which are the packages of `entry`, into `workspace`. The result
/// has the order of the entry, with `base-files` first: it makes the system's directories.
pub(super) fn unpack(
    entry: &LockEntry,
    paths: &[PathBuf],
    workspace: &Path,
    progress: &dyn Progress,
) -> Result<Vec<(String, Deb)>, BuildError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(paths.len());
    let (next, done, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let results: Mutex<Vec<(usize, Result<Deb, DebError>)>> = Mutex::default();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(at) else { break };
            let result = Deb::read(path, &workspace.join(format!("{at}.tar")));
            stop.fetch_or(result.is_err(), Ordering::Relaxed);
            progress.event(Event::Unpack {
                package: &entry.packages[at].name,
                done: done.fetch_add(1, Ordering::Relaxed) + 1,
                total: paths.len(),
            });
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            results.push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(at, _)| (entry.packages[*at].name != "base-files", *at));
    let name = |at: usize| entry.packages[at].name.clone();
    let named = |(at, result): (usize, Result<Deb, DebError>)| match result {
        Ok(deb) => Ok((name(at), deb)),
        Err(source) => Err(BuildError::Unpack { package: name(at), source }),
    };
    results.into_iter().map(named).collect()
}
