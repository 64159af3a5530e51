//! Dates: as archives write them, and as messages show them.

use kiln_model::calendar::{civil_from_days, days_from_civil};

/// Reads a date in the archive's form, a subset of RFC 5322: `Sat, 11 Jul 2026 10:16:37 UTC`.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [day, month, year, time, "UTC" | "GMT" | "Z" | "+0000"] = words[..] else { return None };
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<i64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = clock[..] else { return None };
    let in_range = (1..=31).contains(&day)
        && (1970..10_000).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    in_range.then_some(seconds)
}

/// The day of an instant in seconds since 1970, as `2026-07-11`.
pub(crate) fn show_day(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dates() {
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse_date("Sat, 11 Jul 2026 10:16:37 UTC"), Some(1_783_764_997));
        assert_eq!(parse_date("Thu, 29 Feb 2024  9:05:01 UTC"), Some(1_709_197_501));
        assert_eq!(parse_date("29 Feb 2024 9:05:01 +0000"), Some(1_709_197_501));
        for wrong in [
            "",
            "Sat, 11 Jul 2026 10:16:37 CET",
            "Sat, 11 Foo 2026 1:1:1 UTC",
            "x, 40 Jul 2026 1:1:1 UTC",
        ] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shows_days() {
        assert_eq!(show_day(0), "1970-01-01");
        assert_eq!(show_day(1_709_197_501), "2024-02-29");
        assert_eq!(show_day(1_783_764_997), "2026-07-11");
        assert_eq!(show_day(-1), "1969-12-31");
    }
}
