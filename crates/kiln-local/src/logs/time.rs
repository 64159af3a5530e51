//! Timestamps of log records: UTC, to the nanosecond, as RFC 3339 writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_model::calendar::civil_from_days;

/// `time` as `2026-01-31T12:00:00.123456789Z`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days.cast_signed());
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000005Z"),
            (951_782_399, "2000-02-28T23:59:59.000000005Z"),
            (951_782_400, "2000-02-29T00:00:00.000000005Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000005Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000005Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, 5)), expected);
        }
    }
}
