//! Measurements as monitoring systems read them: families of samples with labels, and their text
//! in the exposition format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Samples of one kind of measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Family {
    /// Its name: `kiln_`, what is measured, the unit, and `_total` where it only grows.
    pub name: String,
    /// What it means.
    pub help: String,
    /// How it behaves.
    pub kind: Kind,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// How a measurement behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It only grows, and begins anew with the process that counts.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many were at most how large.
    Histogram,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// What it is of, as names and values.
    pub labels: Vec<(String, String)>,
    /// What was measured.
    #[serde(flatten)]
    pub value: Value,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// A number.
    Number(f64),
    /// A distribution.
    Distribution(Distribution),
}

/// How many were at most how large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// Upper bounds in rising order, and how many were at most so large, those of lower bounds
    /// included.
    pub buckets: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// The sum of all.
    pub sum: f64,
}

impl Family {
    /// A family without samples.
    pub fn new(name: &str, kind: Kind, help: &str) -> Self {
        Self { name: name.to_owned(), help: help.to_owned(), kind, samples: Vec::new() }
    }

    /// Adds a number.
    pub fn add(&mut self, labels: &[(&str, &str)], number: impl Number) {
        self.push(labels, Value::Number(number.number()));
    }

    /// Adds any value.
    pub fn push(&mut self, labels: &[(&str, &str)], value: Value) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.samples.push(Sample { labels: labels.collect(), value });
    }

    /// The same with one sample that has no labels.
    #[must_use]
    pub fn of(mut self, number: impl Number) -> Self {
        self.add(&[], number);
        self
    }
}

/// What can be measured. Beyond 2⁵³ the lowest digits are lost.
pub trait Number {
    /// It as the format has it.
    fn number(self) -> f64;
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Number for u64 {
    #[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for u32 {
    fn number(self) -> f64 {
        f64::from(self)
    }
}

impl Number for usize {
    fn number(self) -> f64 {
        u64::try_from(self).unwrap_or(u64::MAX).number()
    }
}

impl Number for bool {
    fn number(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// The text of families. Those without samples are left out.
pub fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let Family { name, help, .. } = family;
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for sample in &family.samples {
            lines(&mut text, name, sample);
        }
    }
    text
}

fn lines(text: &mut String, name: &str, sample: &Sample) {
    let mut line = |ending: &str, bound: Option<&str>, value: f64| {
        let bound = bound.map(|bound| ("le", bound));
        let own = sample.labels.iter().map(|(name, value)| (&**name, &**value));
        let labels: Vec<String> = own
            .chain(bound)
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{name}{ending}{labels} {value}");
    };
    match &sample.value {
        Value::Number(number) => line("", None, *number),
        Value::Distribution(Distribution { buckets, count, sum }) => {
            for (bound, below) in buckets {
                line("_bucket", Some(&bound.to_string()), below.number());
            }
            line("_bucket", Some("+Inf"), count.number());
            line("_sum", None, *sum);
            line("_count", None, count.number());
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_format() {
        let mut requests = Family::new("kiln_requests_total", Kind::Counter, "Requests\nreceived.");
        requests.add(&[("route", "a\"b\\c")], 3_u64);
        requests.add(&[("route", "")], 1.5);
        let mut times = Family::new("kiln_time_seconds", Kind::Histogram, "Times.");
        let distribution =
            Distribution { buckets: vec![(0.001, 1), (0.5, 4)], count: 5, sum: 2.25 };
        times.push(&[("to", "x")], Value::Distribution(distribution));
        let empty = Family::new("kiln_nothing", Kind::Gauge, "Nothing.");
        let up = Family::new("kiln_up", Kind::Gauge, "Whether.").of(true);
        let expected = r#"# HELP kiln_requests_total Requests\nreceived.
# TYPE kiln_requests_total counter
kiln_requests_total{route="a\"b\\c"} 3
kiln_requests_total{route=""} 1.5
# HELP kiln_time_seconds Times.
# TYPE kiln_time_seconds histogram
kiln_time_seconds_bucket{to="x",le="0.001"} 1
kiln_time_seconds_bucket{to="x",le="0.5"} 4
kiln_time_seconds_bucket{to="x",le="+Inf"} 5
kiln_time_seconds_sum{to="x"} 2.25
kiln_time_seconds_count{to="x"} 5
# HELP kiln_up Whether.
# TYPE kiln_up gauge
kiln_up 1
"#;
        assert_eq!(text(&[requests, times, empty, up]), expected);
    }
}
