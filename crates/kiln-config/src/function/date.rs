//! Dates and times without a clock: what is computed follows from what is handed in.
//!
//! Times are written as in RFC 3339, durations as in Go (`1h30m`, `-1.5s`).

use kiln_model::calendar::{civil_from_days, days_from_civil};

use super::{Failure, Function, Param, Shape};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new(
        "formatdate",
        &[Param::new("format", Shape::String), Param::new("time", Shape::String)],
        Shape::String,
        |args| formatted(args.text(0)?, &Timestamp::parse(args.text(1)?, 1)?).map(Value::from),
    ),
    Function::new(
        "timeadd",
        &[Param::new("timestamp", Shape::String), Param::new("duration", Shape::String)],
        Shape::String,
        |args| {
            let time = Timestamp::parse(args.text(0)?, 0)?;
            let nanos = duration(args.text(1)?)?;
            let sum = time.plus(nanos).ok_or_else(|| {
                Failure::new("the result does not lie between the years 0 and 9999")
            })?;
            Ok(sum.rfc3339().into())
        },
    ),
    Function::new(
        "timecmp",
        &[Param::new("timestamp_a", Shape::String), Param::new("timestamp_b", Shape::String)],
        Shape::Number,
        |args| {
            let (a, b) = (Timestamp::parse(args.text(0)?, 0)?, Timestamp::parse(args.text(1)?, 1)?);
            let order = a.instant().cmp(&b.instant());
            Ok(Value::from(i64::from(order as i8)))
        },
    ),
];

const SECOND: i128 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// A time as written: the local date and time of day, and the offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timestamp {
    year: i64,
    month: i64,
    day: i64,
    /// Seconds of the local day.
    second: i64,
    nanos: i64,
    /// Minutes by which local time is ahead of UTC.
    offset: i64,
}

impl Timestamp {
    fn parse(text: &str, index: usize) -> Result<Self, Failure> {
        Self::read(text).ok_or_else(|| {
            Failure::of(index, format!("\"{text}\" is not a time as RFC 3339 writes it"))
                .with_help("write it like 2026-01-31T13:45:00Z")
        })
    }

    fn read(text: &str) -> Option<Self> {
        let mut rest = Reader(text);
        let (year, month, day) =
            (rest.digits(4)?, rest.after("-")?.digits(2)?, rest.after("-")?.digits(2)?);
        let (hour, minute, second) =
            (rest.after("T")?.digits(2)?, rest.after(":")?.digits(2)?, rest.after(":")?.digits(2)?);
        let nanos = rest.fraction()?;
        let offset = rest.offset()?;
        let valid = (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60
            && rest.0.is_empty();
        let second = hour * 3_600 + minute * 60 + second;
        valid.then_some(Self { year, month, day, second, nanos, offset })
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    fn instant(&self) -> i128 {
        let days = days_from_civil(self.year, self.month, self.day);
        let seconds = days * DAY_SECONDS + self.second - self.offset * 60;
        i128::from(seconds) * SECOND + i128::from(self.nanos)
    }

    fn plus(&self, nanos: i128) -> Option<Self> {
        let local = self.instant() + i128::from(self.offset * 60) * SECOND + nanos;
        let seconds = i64::try_from(local.div_euclid(SECOND)).ok()?;
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
        let nanos = i64::try_from(local.rem_euclid(SECOND)).ok()?;
        let second = seconds.rem_euclid(DAY_SECONDS);
        (0..=9_999).contains(&year).then_some(Self {
            year,
            month,
            day,
            second,
            nanos,
            offset: self.offset,
        })
    }

    fn hour(&self) -> i64 {
        self.second / 3_600
    }

    fn minute(&self) -> i64 {
        self.second / 60 % 60
    }

    /// 0 is Sunday.
    fn weekday(&self) -> usize {
        let days = days_from_civil(self.year, self.month, self.day);
        // 1970-01-01 was a Thursday.
        usize::try_from((days + 4).rem_euclid(7)).unwrap_or_default()
    }

    fn zone(&self, colon: &str) -> String {
        let sign = if self.offset < 0 { '-' } else { '+' };
        let minutes = self.offset.abs();
        format!("{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
    }

    /// Whole seconds only, as Terraform has it.
    fn rfc3339(&self) -> String {
        let Self { year, month, day, second, offset, .. } = *self;
        let (hour, minute, second) = (self.hour(), self.minute(), second % 60);
        let zone = if offset == 0 { "Z".into() } else { self.zone(":") };
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{zone}")
    }
}

/// Takes a text apart from its start.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn after(&mut self, separator: &str) -> Option<&mut Self> {
        self.0 = self.0.strip_prefix(separator)?;
        Some(self)
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        self.0 = rest;
        digits.parse().ok()
    }

    /// An optional `.` and digits, as nanoseconds.
    fn fraction(&mut self) -> Option<i64> {
        if self.after(".").is_none() {
            return Some(0);
        }
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let nine: String = digits.chars().chain("000000000".chars()).take(9).collect();
        if digits.is_empty() { None } else { nine.parse().ok() }
    }

    /// `Z` or `+hh:mm` or `-hh:mm`, in minutes.
    fn offset(&mut self) -> Option<i64> {
        if self.after("Z").is_some() {
            return Some(0);
        }
        let sign = if self.after("-").is_some() { -1 } else { self.after("+").map(|_| 1)? };
        let (hours, minutes) = (self.digits(2)?, self.after(":")?.digits(2)?);
        (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A duration in nanoseconds.
fn duration(text: &str) -> Result<i128, Failure> {
    let malformed = || {
        Failure::of(1, format!("\"{text}\" is not a duration"))
            .with_help("write numbers with units h, m, s, ms, us or ns, such as 1h30m")
    };
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    let mut total = 0_i128;
    loop {
        let number = rest.find(|char: char| !char.is_ascii_digit() && char != '.');
        let (number, behind) = rest.split_at(number.ok_or_else(malformed)?);
        let end = behind.find(|char: char| char.is_ascii_digit() || char == '.');
        let (unit, behind) = behind.split_at(end.unwrap_or(behind.len()));
        let nanos = unit_nanos(unit).and_then(|unit| scaled(number, unit));
        total = nanos.and_then(|nanos| total.checked_add(nanos)).ok_or_else(malformed)?;
        if total > i128::from(i64::MAX) {
            return Err(Failure::of(1, format!("\"{text}\" is longer than 292 years")));
        }
        rest = behind;
        if rest.is_empty() {
            return Ok(if negative { -total } else { total });
        }
    }
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        _ => return None,
    })
}

/// A decimal number of units; what is below a nanosecond is cut off.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() > 19 || (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits: String = fraction.chars().take(15).collect();
    let power = 10_i128.pow(u32::try_from(digits.len()).ok()?);
    let fraction: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some(whole * unit + fraction * unit / power)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Runs of one letter are verbs; text in single quotes and what is no letter stands for itself.
fn formatted(format: &str, time: &Timestamp) -> Result<String, Failure> {
    let mut out = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            rest = quoted(&rest[1..], &mut out)?;
            continue;
        }
        let end = if first.is_ascii_alphabetic() {
            rest.find(|char| char != first).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (verb, behind) = rest.split_at(end);
        if first.is_ascii_alphabetic() {
            out.push_str(&verb_text(verb, time)?);
        } else {
            out.push_str(verb);
        }
        rest = behind;
    }
    Ok(out)
}

/// Copies up to the closing quote; two quotes stand for one. Yields what is behind it.
fn quoted<'a>(mut rest: &'a str, out: &mut String) -> Result<&'a str, Failure> {
    loop {
        let end = rest
            .find('\'')
            .ok_or_else(|| Failure::of(0, "the format has a quote that is never closed"))?;
        out.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(behind) => {
                out.push('\'');
                rest = behind;
            }
            None => return Ok(rest),
        }
    }
}

fn verb_text(verb: &str, time: &Timestamp) -> Result<String, Failure> {
    let month = usize::try_from(time.month - 1).ok().and_then(|index| MONTHS.get(index));
    let (month, weekday) = (month.copied().unwrap_or_default(), WEEKDAYS[time.weekday()]);
    let half = (time.hour() + 11) % 12 + 1;
    let afternoon = time.hour() >= 12;
    Ok(match verb {
        "YY" => format!("{:02}", time.year % 100),
        "YYYY" => format!("{:04}", time.year),
        "M" => time.month.to_string(),
        "MM" => format!("{:02}", time.month),
        "MMM" => month[..3].to_owned(),
        "MMMM" => month.to_owned(),
        "D" => time.day.to_string(),
        "DD" => format!("{:02}", time.day),
        "EEE" => weekday[..3].to_owned(),
        "EEEE" => weekday.to_owned(),
        "h" => time.hour().to_string(),
        "hh" => format!("{:02}", time.hour()),
        "H" => half.to_string(),
        "HH" => format!("{half:02}"),
        "AA" => if afternoon { "PM" } else { "AM" }.to_owned(),
        "aa" => if afternoon { "pm" } else { "am" }.to_owned(),
        "m" => time.minute().to_string(),
        "mm" => format!("{:02}", time.minute()),
        "s" => (time.second % 60).to_string(),
        "ss" => format!("{:02}", time.second % 60),
        "Z" if time.offset == 0 => "Z".to_owned(),
        "ZZZ" if time.offset == 0 => "UTC".to_owned(),
        "Z" | "ZZZZZ" => time.zone(":"),
        "ZZZ" | "ZZZZ" => time.zone(""),
        _ => {
            return Err(Failure::of(0, format!("\"{verb}\" is not part of a date format"))
                .with_help(
                    "verbs are YYYY YY MMMM MMM MM M DD D EEEE EEE hh h HH H AA aa mm m ss s \
                     ZZZZZ ZZZZ ZZZ Z; text stands in single quotes",
                ));
        }
    })
}
