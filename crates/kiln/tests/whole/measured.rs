//! Tests whose long form `bench/run` runs, with optimised programs, for their figures.

use std::time::Duration;

/// Whether the long form is wanted: `KILN_FULL` is set.
pub fn full() -> bool {
    std::env::var_os("KILN_FULL").is_some_and(|value| !value.is_empty())
}

/// The median of some times, with the least and the greatest.
pub fn middle(times: &mut [Duration]) -> String {
    times.sort();
    let milliseconds = |time: &Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    match times {
        [] => "–".to_owned(),
        [only] => format!("{} ms (one run)", milliseconds(only)),
        [least, .., greatest] => {
            let (least, greatest) = (milliseconds(least), milliseconds(greatest));
            format!("{} ms ({least}–{greatest})", milliseconds(&times[times.len() / 2]))
        }
    }
}
