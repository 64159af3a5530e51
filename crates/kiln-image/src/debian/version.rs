//! Version numbers of Debian packages and their order.
//!
//! The form `[epoch:]upstream[-revision]` and the order are those of Debian Policy, section 5.6.12
//! (<https://www.debian.org/doc/debian-policy/ch-controlfields.html#version>): stretches of
//! non-digits are compared by character, where `~` sorts before everything, even the end, and
//! letters before all else; stretches of digits are compared as numbers.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of a package. Versions that the policy holds to be equal (`1.0` and `1.00`) are
/// equal here, whatever their spelling.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    epoch: u32,
    upstream_start: usize,
    revision_start: Option<usize>,
}

/// A text that is not a version number.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a version number: {reason}")]
pub struct VersionError {
    text: String,
    reason: &'static str,
}

impl Version {
    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn upstream(&self) -> &str {
        let end = self.revision_start.map_or(self.text.len(), |start| start - 1);
        &self.text[self.upstream_start..end]
    }

    fn revision(&self) -> &str {
        self.revision_start.map_or("", |start| &self.text[start..])
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| Err(VersionError { text: text.chars().take(120).collect(), reason });
        let (epoch, upstream_start) = match text.find(':') {
            None => (0, 0),
            Some(colon) => match text[..colon].parse::<u32>() {
                Ok(epoch) if !text.starts_with('+') => (epoch, colon + 1),
                _ => return fail("the part before the colon must be a number"),
            },
        };
        let rest = &text[upstream_start..];
        let revision_start = rest.rfind('-').map(|dash| upstream_start + dash + 1);
        let version = Self { text: text.to_owned(), epoch, upstream_start, revision_start };
        if version.upstream().is_empty() {
            return fail("it has no upstream part");
        }
        if revision_start == Some(text.len()) {
            return fail("the part after the last dash is empty");
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".+-~:".contains(c);
        if !rest.chars().all(allowed) {
            return fail("only letters, digits and . + - ~ : are allowed");
        }
        Ok(version)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(self.upstream(), other.upstream()))
            .then_with(|| compare_part(self.revision(), other.revision()))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Compares two upstream parts or two revisions.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let words = compare_words(take_while(&mut left, false), take_while(&mut right, false));
        let order = words.then_with(|| {
            compare_numbers(take_while(&mut left, true), take_while(&mut right, true))
        });
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Splits off the longest start that consists of digits only, or of non-digits only.
fn take_while<'a>(rest: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let length = rest.iter().take_while(|c| c.is_ascii_digit() == digits).count();
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

fn compare_words(left: &[u8], right: &[u8]) -> Ordering {
    // The end sorts after `~` and before everything else.
    let weight = |c: Option<&u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    (0..left.len().max(right.len()))
        .map(|at| weight(left.get(at)).cmp(&weight(right.get(at))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

fn compare_numbers(left: &[u8], right: &[u8]) -> Ordering {
    // Of any length: compared without leading zeros, the longer one is the greater.
    let trim =
        |digits: &[u8]| digits.iter().copied().skip_while(|c| *c == b'0').collect::<Vec<_>>();
    let (left, right) = (trim(left), trim(right));
    left.len().cmp(&right.len()).then_with(|| left.cmp(&right))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn orders_as_the_policy_says() {
        for (lower, higher) in [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0-1"),
            ("1.2", "1.10"),
            ("1.0a", "1.0+"),
            ("9", "1:0"),
            ("1.0-1~bpo1", "1.0-1"),
            ("2.36-9+deb12u9", "2.36-9+deb12u14"),
            ("~~", "~~a"),
            ("~~a", "~"),
            ("99999999999999999999998", "99999999999999999999999"),
        ] {
            assert!(version(lower) < version(higher), "{lower} < {higher}");
        }
        assert_eq!(version("1.00-01"), version("1.0-1"));
        assert_eq!(version("0:1-0"), version("1"));
    }

    #[test]
    fn refuses_what_is_no_version() {
        for text in ["", "a:1", "1:", "-1", "1-", "1 2", "+1:2", "1_2", "1\u{e9}"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn order_is_total(a in "[0-9][a-b0-2.+~-]{0,6}", b in "[0-9][a-b0-2.+~-]{0,6}",
                          c in "[0-9][a-b0-2.+~-]{0,6}") {
            let parsed: Vec<Version> = [a, b, c].iter().filter_map(|t| t.parse().ok()).collect();
            if let [a, b, c] = &parsed[..] {
                prop_assert_eq!(a.cmp(b), b.cmp(a).reverse());
                if a <= b && b <= c { prop_assert!(a <= c); }
            }
        }
    }

    #[test]
    fn agrees_with_dpkg() {
        if Command::new("dpkg").arg("--version").output().is_err() {
            println!("skipped: agrees_with_dpkg: dpkg is not installed");
            return;
        }
        let strategy = (
            "(1:)?[0-9][a-c0-2.+~]{0,5}(-[a-b0-2+~]{1,3})?",
            "(1:)?[0-9][a-c0-2.+~]{0,5}(-[a-b0-2+~]{1,3})?",
        );
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(150));
        let result = runner.run(&strategy, |(a, b)| {
            let ours = version(&a).cmp(&version(&b));
            let says = |operator| {
                let arguments = ["--compare-versions", &a, operator, &b];
                Command::new("dpkg").args(arguments).status().unwrap().success()
            };
            let theirs = match (says("lt"), says("eq")) {
                (true, _) => Ordering::Less,
                (_, true) => Ordering::Equal,
                _ => Ordering::Greater,
            };
            prop_assert_eq!(ours, theirs, "{} against {}", a, b);
            Ok(())
        });
        result.unwrap();
    }
}
