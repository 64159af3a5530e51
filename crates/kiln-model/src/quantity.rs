//! Quantities: bytes, time spans, processor shares, instants.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::calendar::{civil_from_days, days_from_civil};

/// A text that is not a quantity of the wanted sort.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidQuantity {
    /// The text.
    pub text: String,
    /// What was expected, with an example.
    pub expected: &'static str,
}

/// Splits `text` into a decimal number and the unit behind it, scales it by the unit that
/// `factor` gives, and rounds down. `None`: malformed, negative, or beyond 64 bits.
fn scaled(text: &str, factor: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = factor(unit.trim_start())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let mut value = u128::from(whole) * u128::from(factor);
    if !fraction.is_empty() {
        let parts: u64 = fraction.parse().ok()?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        value += u128::from(parts) * u128::from(factor) / scale;
    }
    u64::try_from(value).ok()
}

/// A number of bytes, written `128MiB`, `1GiB`, `500MB` or `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `count` mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl FromStr for Bytes {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let factor = |unit: &str| match unit {
            "" | "B" => Some(1),
            "KiB" | "Ki" => Some(1 << 10),
            "MiB" | "Mi" => Some(1 << 20),
            "GiB" | "Gi" => Some(1 << 30),
            "TiB" | "Ti" => Some(1 << 40),
            "kB" | "KB" => Some(1_000),
            "MB" => Some(1_000_000),
            "GB" => Some(1_000_000_000),
            "TB" => Some(1_000_000_000_000),
            _ => None,
        };
        scaled(text, factor).map(Self).ok_or_else(|| InvalidQuantity {
            text: text.to_owned(),
            expected: "a size: a number and B, KiB, MiB, GiB or TiB, such as \"128MiB\"",
        })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A number in thousandths, written `400` or `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Amount(pub u64);

impl FromStr for Amount {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let factor = |unit: &str| unit.is_empty().then_some(1000);
        scaled(text, factor).map(Self).ok_or_else(|| InvalidQuantity {
            text: text.to_owned(),
            expected: "a number, such as 400 or 0.5",
        })
    }
}

impl TryFrom<String> for Amount {
    type Error = InvalidQuantity;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Amount> for String {
    fn from(amount: Amount) -> Self {
        amount.to_string()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{rest:03}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// A span of time in milliseconds, written `500ms`, `1s`, `2m`, `1h`, `7d`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// `count` seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(count * 1000)
    }
}

impl From<Millis> for Duration {
    fn from(span: Millis) -> Self {
        Duration::from_millis(span.0)
    }
}

impl FromStr for Millis {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let factor = |unit: &str| match unit {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            "d" => Some(86_400_000),
            _ => None,
        };
        scaled(text, factor).map(Self).ok_or_else(|| InvalidQuantity {
            text: text.to_owned(),
            expected: "a time span: a number and ms, s, m, h or d, such as \"500ms\" or \"2m\"",
        })
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        for (span, unit) in units {
            if self.0 >= span && self.0.is_multiple_of(span) {
                return write!(f, "{}{unit}", self.0 / span);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

/// A share of processors in thousandths of one: 500 is half a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MilliCpu(pub u32);

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The instant `span` later; at the end of time where that is beyond it.
    #[must_use]
    pub const fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long ago `earlier` was; zero where it is in the future.
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil_from_days(days.cast_signed());
        let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
        let (second, milli) = (millis / 1_000 % 60, millis % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl FromStr for Timestamp {
    type Err = InvalidQuantity;

    /// RFC 3339, with seconds or without; a space may stand for the `T`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        instant(text).ok_or_else(|| InvalidQuantity {
            text: text.to_owned(),
            expected: "an instant, such as \"2026-05-01T13:30:00Z\" or \"2026-05-01T13:30:00.5+02:00\"",
        })
    }
}

fn instant(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    let (time, east) = match time.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, offset) = time.split_at(time.rfind(['+', '-'])?);
            let (hours, minutes) = offset[1..].split_once(':')?;
            let minutes = digits(hours, 2)? * 60 + digits(minutes, 2)?;
            (time, if offset.starts_with('-') { -minutes } else { minutes })
        }
    };
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (digits(time.next()?, 2)?, digits(time.next()?, 2)?);
    let (second, fraction) = match time.next() {
        None => (0, ""),
        Some(second) => {
            let (whole, fraction) = second.split_once('.').unwrap_or((second, "0"));
            (digits(whole, 2)?, fraction)
        }
    };
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24;
    if !fits || minute > 59 || second > 60 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let milli = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok()?;
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - east;
    u64::try_from((minutes * 60 + second) * 1_000 + milli).ok().map(Timestamp)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let fits = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_as_they_are_written() {
        for text in ["1970-01-01T00:00:00.000Z", "2024-02-29T23:59:59.999Z", "2026-11-27T00:14:13.007Z"] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        let same = ["2026-05-01T11:30Z", "2026-05-01 13:30:00+02:00", "2026-05-01T11:30:00.0Z"];
        for text in same {
            let read: Timestamp = text.parse().unwrap();
            assert_eq!(read.to_string(), "2026-05-01T11:30:00.000Z", "{text}");
        }
        for text in ["yesterday", "2026-05-01", "2026-13-01T00:00Z", "2026-05-01T11:30:00", "2026-05-01T1:30Z"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_spans() {
        assert_eq!("128MiB".parse(), Ok(Bytes::mib(128)));
        assert_eq!("1.5 GiB".parse(), Ok(Bytes::mib(1536)));
        assert_eq!(Bytes::mib(1024).to_string(), "1GiB");
        assert_eq!("1.5s".parse(), Ok(Millis(1500)));
        assert_eq!(Millis::seconds(120).to_string(), "2m");
        for text in ["", "MiB", "-1MiB", "1 XB", "1.", "99999999999TiB", "1.1.1MiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert!("5".parse::<Millis>().is_err(), "a span needs its unit");
    }

    #[test]
    fn amounts_are_written_as_they_are_read() {
        for (text, thousandths) in [("400", 400_000), ("0.5", 500), ("12.345", 12_345)] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!((amount.0, amount.to_string()), (thousandths, text.to_owned()));
            let json = serde_json::to_string(&amount).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
        }
        assert!("-1".parse::<Amount>().is_err());
    }

    #[test]
    fn instants_print_as_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(951_827_696_789).to_string(), "2000-02-29T12:34:56.789Z");
        assert_eq!(Timestamp(1_795_478_400_000).to_string(), "2026-11-24T00:00:00.000Z");
    }
}
