//! Numbers under the verbs of `format`.

use num_bigint::{BigInt, Sign};

use super::format::Directive;
use crate::value::Number;

/// How a number with a fraction is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    /// `%f`
    Plain,
    /// `%e`
    Scientific,
    /// `%E`
    UpperScientific,
    /// `%g`
    Shorter,
    /// `%G`
    UpperShorter,
}

/// Digits behind the point where no precision is given.
const DEFAULT_PRECISION: usize = 6;

/// A whole number in base 2, 8, 10 or 16.
pub(super) fn integer(directive: &Directive, verb: char, number: &BigInt) -> String {
    let (base, prefix) = match verb {
        'b' => (2, "0b"),
        'o' => (8, "0"),
        'x' | 'X' => (16, "0x"),
        _ => (10, ""),
    };
    let mut digits = number.magnitude().to_str_radix(base);
    if let Some(least) = directive.precision {
        digits = format!("{digits:0>least$}");
    }
    if directive.has('#') {
        digits.insert_str(0, prefix);
    }
    if verb == 'X' {
        digits.make_ascii_uppercase();
    }
    signed(directive, number.sign() == Sign::Minus, &digits)
}

/// A number with a fraction, rounded half to even from its exact digits.
pub(super) fn float(directive: &Directive, how: Float, number: &Number) -> String {
    // All digits count where they are rounded, and none where as few as needed are wanted.
    let shortest =
        matches!(how, Float::Shorter | Float::UpperShorter) && directive.precision.is_none();
    let text = if shortest { number.to_string() } else { number.to_exact_string() };
    let digits = text.trim_start_matches('-');
    let negative = number.signum() < 0;
    let upper = matches!(how, Float::UpperScientific | Float::UpperShorter);
    let mut text = match how {
        Float::Plain => plain(digits, directive.precision.unwrap_or(DEFAULT_PRECISION)),
        Float::Scientific | Float::UpperScientific => {
            let (digits, exponent) = rounded(digits, directive.precision.unwrap_or(6) + 1);
            scientific(&digits, exponent)
        }
        Float::Shorter | Float::UpperShorter => shorter(digits, directive.precision),
    };
    if upper {
        text.make_ascii_uppercase();
    }
    signed(directive, negative, &text)
}

/// Puts the sign in front; zeros go between it and the digits, spaces outside of both.
fn signed(directive: &Directive, negative: bool, digits: &str) -> String {
    let sign = match (negative, directive.has('+'), directive.has(' ')) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    };
    if directive.has('0') && !directive.has('-') {
        let width = directive.width.saturating_sub(sign.len());
        return format!("{sign}{digits:0>width$}");
    }
    directive.pad(&format!("{sign}{digits}"))
}

/// The significant digits of a plain decimal, without leading or trailing zeros, and the
/// exponent of the first one.
fn significant(text: &str) -> (Vec<u8>, i64) {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all = [whole, fraction].concat();
    let leading = all.bytes().take_while(|digit| *digit == b'0').count();
    let digits = all[leading..].trim_end_matches('0').as_bytes().to_vec();
    let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let exponent = if digits.is_empty() { 0 } else { length(whole.len()) - length(leading) - 1 };
    (digits, exponent)
}

/// The first `count` significant digits, rounded, padded with zeros, and their exponent.
fn rounded(text: &str, count: usize) -> (Vec<u8>, i64) {
    let (mut digits, mut exponent) = significant(text);
    if digits.len() > count {
        let rest = digits.split_off(count);
        let odd = digits.last().is_some_and(|digit| digit % 2 == 1);
        let up = rest[0] > b'5' || (rest[0] == b'5' && (rest.len() > 1 || odd));
        if up && raise(&mut digits) {
            exponent += 1;
        }
    }
    // A carry may have brought forth a digit where none was asked for.
    digits.resize(count.max(1), b'0');
    (digits, exponent)
}

/// Adds one to the last digit; whether it carried beyond the first, which is then 1.
fn raise(digits: &mut Vec<u8>) -> bool {
    for digit in digits.iter_mut().rev() {
        if *digit == b'9' {
            *digit = b'0';
        } else {
            *digit += 1;
            return false;
        }
    }
    digits.insert(0, b'1');
    true
}

fn text_of(digits: &[u8]) -> String {
    digits.iter().map(|digit| char::from(*digit)).collect()
}

fn plain(text: &str, precision: usize) -> String {
    let (_, exponent) = significant(text);
    // Digits in front of the point, at least none, and those behind it.
    let count = exponent + 1 + i64::try_from(precision).unwrap_or(i64::MAX);
    let (digits, exponent) = match usize::try_from(count) {
        Ok(count) => rounded(text, count),
        Err(_) => (Vec::new(), 0),
    };
    let digits = text_of(&digits);
    let whole_len = usize::try_from(exponent + 1).unwrap_or_default();
    let digits = format!("{digits:0<whole_len$}");
    let zeros = usize::try_from(-exponent - 1).unwrap_or_default();
    let (whole, fraction) = digits.split_at(whole_len);
    let mut fraction = format!("{}{fraction}", "0".repeat(zeros.min(precision)));
    fraction.truncate(precision);
    let whole = if whole.is_empty() { "0" } else { whole };
    if precision == 0 { whole.into() } else { format!("{whole}.{fraction:0<precision$}") }
}

fn scientific(digits: &[u8], exponent: i64) -> String {
    let digits = text_of(digits);
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs())
}

/// As few digits as needed, or as many as the precision says; scientific where the exponent is
/// below -4 or not below the precision (6 where as few as needed are wanted).
fn shorter(text: &str, precision: Option<usize>) -> String {
    let (exact, _) = significant(text);
    let count = precision.map_or(exact.len(), |precision| precision.max(1)).max(1);
    let (mut digits, exponent) = rounded(text, count);
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
    }
    let limit = i64::try_from(precision.map_or(6, |digits| digits.max(1))).unwrap_or(i64::MAX);
    if exponent < -4 || exponent >= limit {
        return scientific(&digits, exponent);
    }
    let behind = i64::try_from(digits.len()).unwrap_or(i64::MAX) - 1 - exponent;
    plain(text, usize::try_from(behind).unwrap_or_default())
}
