//! Instants and spans as people say them.

use std::time::Duration;

use kiln_model::calendar::days_from_civil;

/// A span in its two largest units: `3m 20s`, `450ms`, `2d 4h`.
pub(crate) fn span(span: Duration) -> String {
    let millis = span.as_millis();
    if (1..1000).contains(&millis) {
        return format!("{millis}ms");
    }
    let seconds = span.as_secs();
    if seconds < 60 && millis.is_multiple_of(1000) {
        return format!("{seconds}s");
    }
    if seconds < 60 {
        return format!("{seconds}.{}s", millis % 1000 / 100);
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut parts: Vec<String> = Vec::new();
    let mut rest = seconds;
    for (size, unit) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 || !parts.is_empty() {
            parts.push(format!("{count}{unit}"));
        }
    }
    parts.truncate(2);
    parts.retain(|part| !part.starts_with('0') || part.len() > 2);
    parts.join(" ")
}

/// Seconds since 1970 of an instant in RFC 3339, UTC; `None` where it is not one.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let days = days_from_civil(year, month, day);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// How long before `now` the instant `then` was, both in RFC 3339.
pub(crate) fn since(then: &str, now: &str) -> Option<String> {
    let past = seconds(now)?.checked_sub(seconds(then)?)?;
    Some(span(Duration::from_secs(u64::try_from(past.max(0)).ok()?)))
}

#[cfg(test)]
mod tests {
    use kiln_model::quantity::Timestamp;

    use super::*;

    #[test]
    fn instants_are_read_as_they_are_written() {
        for at in [0, 951_827_696_000, 1_795_478_400_000, 4_102_444_799_000] {
            let text = Timestamp(at).to_string();
            assert_eq!(seconds(&text), Some(i64::try_from(at / 1000).unwrap()), "{text}");
        }
        assert_eq!(seconds("yesterday"), None);
    }

    #[test]
    fn spans_have_two_units() {
        let of = |millis| span(Duration::from_millis(millis));
        assert_eq!(of(0), "0s");
        assert_eq!(of(450), "450ms");
        assert_eq!(of(5_000), "5s");
        assert_eq!(of(1_250), "1.2s");
        assert_eq!(of(200_000), "3m 20s");
        assert_eq!(of(3_600_000), "1h");
        assert_eq!(of(187_200_000), "2d 4h");
    }
}
