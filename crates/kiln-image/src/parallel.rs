//! Doing the same to several things at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Does `act` to each item by at most `workers` threads, and gives the results in the order of the
/// items. After the first failure nothing further is begun.
pub(crate) fn each<T: Sync, R: Send, E: Send>(
    items: &[T],
    workers: usize,
    act: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            let result = act(item);
            stop.fetch_or(result.is_err(), Ordering::Relaxed);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn results_have_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        let doubled: Result<Vec<usize>, ()> = each(&items, 7, |item| Ok(2 * item));
        assert_eq!(doubled.unwrap()[99], 198);
        assert_eq!(each(&items, 7, |item| if *item == 3 { Err(3) } else { Ok(()) }), Err(3));
        assert_eq!(each(&[0; 0], 7, |_| Ok::<(), ()>(())), Ok(Vec::new()));
    }
}
