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

/// A text that is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time: write it as in 2026-03-14T15:09:26Z, in UTC")]
pub struct NoTime(pub String);

impl FromStr for Timestamp {
    type Err = NoTime;

    /// RFC 3339 in UTC, with a `Z`, to the millisecond at most. From 1970 on.
    fn from_str(text: &str) -> Result<Self, NoTime> {
        let wrong = || NoTime(text.to_owned());
        let body = text.strip_suffix('Z').ok_or_else(wrong)?;
        let (date, time) = body.split_once('T').ok_or_else(wrong)?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let number = |text: &str, digits: usize| {
            let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<u64>().ok()).flatten().ok_or_else(wrong)
        };
        let three = |text: &str, separator: char| {
            let mut parts = text.split(separator).map(str::to_owned);
            let all = (parts.next(), parts.next(), parts.next());
            if parts.next().is_some() { None } else { Some((all.0?, all.1?, all.2?)) }
        };
        let (year, month, day) = three(date, '-').ok_or_else(wrong)?;
        let (hour, minute, second) = three(time, ':').ok_or_else(wrong)?;
        let (year, month, day) = (number(&year, 4)?, number(&month, 2)?, number(&day, 2)?);
        let (hour, minute, second) = (number(&hour, 2)?, number(&minute, 2)?, number(&second, 2)?);
        if fraction.is_empty() || fraction.len() > 3 {
            return Err(wrong());
        }
        let millis = number(&format!("{fraction:0<3}"), 3)?;
        let days = days_before(year, month, day).ok_or_else(wrong)?;
        if hour > 23 || minute > 59 || second > 59 {
            return Err(wrong());
        }
        let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
        Ok(Self(seconds * 1000 + millis))
    }
}

/// Days from 1970-01-01 to a date; none where there is no such date.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let date = (year.cast_signed(), month.cast_signed(), day.cast_signed());
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_from_civil(date.0, date.1, date.2);
    // A day that its month does not have is one of another.
    (civil_from_days(days) == date).then(|| days.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_time_is_read_as_it_is_shown() {
        for millis in
            [0, 1, 951_782_400_000, 1_709_164_800_123, 1_773_500_966_000, 4_102_444_799_999]
        {
            assert_eq!(Timestamp(millis).to_string().parse(), Ok(Timestamp(millis)));
        }
        assert_eq!("2026-03-14T15:09:26Z".parse(), Ok(Timestamp(1_773_500_966_000)));
        for wrong in [
            "",
            "2026-03-14",
            "2026-03-14T15:09:26",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-03-14T24:00:00Z",
            "2026-03-14T15:09:26.Z",
            "+026-03-14T15:09:26Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }
}
