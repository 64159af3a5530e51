//! Numbers from and to decimal text.
//!
//! Printing gives the fewest digits that still identify the number at its precision, without
//! an exponent, as Go's `big.Float.Text('f', -1)` does (the algorithm is the classic one:
//! generate the digits of the number and of the ends of its rounding interval, and stop at
//! the first digit at which they part).

use std::fmt;
use std::str::FromStr;

use num_bigint::{BigInt, BigUint, Sign};

use super::number::{Big, Number, NumberError, PRECISION, quotient};

/// The longest text taken for a number, in bytes.
const MAX_TEXT: usize = 8_192;
/// The largest decimal exponent, either way, that can be within range.
const MAX_DECIMAL_EXPONENT: i64 = 16_384;

impl FromStr for Number {
    type Err = NumberError;

    /// Reads `[+-] digits [. digits] [e [+-] digits]`; one of the two digit groups may lack.
    fn from_str(text: &str) -> Result<Self, NumberError> {
        if let Some(small) = small_integer(text) {
            return Ok(small.into());
        }
        if text.len() > MAX_TEXT {
            return Err(NumberError::OutOfRange);
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (significand, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((significand, exponent)) => (significand, parse_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = significand.split_once('.').unwrap_or((significand, ""));
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NumberError::Malformed);
        }
        let magnitude: BigUint = digits.parse().map_err(|_| NumberError::Malformed)?;
        if magnitude == BigUint::ZERO {
            return Ok(Self::ZERO);
        }
        let places = i64::try_from(fraction.len()).map_err(|_| NumberError::OutOfRange)?;
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        scaled(BigInt::from_biguint(sign, magnitude), exponent.saturating_sub(places))
    }
}

/// The common case: at most 18 plain digits.
fn small_integer(text: &str) -> Option<i64> {
    let plain = text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn parse_exponent(text: &str) -> Result<i64, NumberError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NumberError::Malformed);
    }
    text.parse().map_err(|_| NumberError::OutOfRange)
}

/// `digits * 10^exponent`, rounded to the precision of a literal.
fn scaled(digits: BigInt, exponent: i64) -> Result<Number, NumberError> {
    if exponent.abs() > MAX_DECIMAL_EXPONENT {
        return Err(NumberError::OutOfRange);
    }
    let power = u32::try_from(exponent.unsigned_abs()).map_err(|_| NumberError::OutOfRange)?;
    let power = BigInt::from(10).pow(power);
    if exponent >= 0 {
        Number::rounded(digits * power, 0, PRECISION)
    } else {
        quotient(digits, &power, 0, PRECISION)
    }
}

/// The digits of a positive number and where its decimal point stands: `0.DIGITS * 10^point`.
struct Digits {
    digits: Vec<u8>,
    point: i64,
}

impl Digits {
    /// The exact decimal expansion of `mantissa * 2^exponent`.
    fn exact(mantissa: &BigUint, exponent: i64) -> Self {
        let shift = exponent.unsigned_abs();
        let scaled = if exponent >= 0 {
            mantissa << shift
        } else {
            // m / 2^k = m * 5^k / 10^k; the exponent's range bounds k far below u32::MAX.
            mantissa * BigUint::from(5_u32).pow(u32::try_from(shift).unwrap_or(u32::MAX))
        };
        let mut digits = scaled.to_str_radix(10).into_bytes();
        let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let point = if exponent >= 0 { length } else { length + exponent };
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        Self { digits, point }
    }

    fn at(&self, index: usize) -> u8 {
        self.digits.get(index).copied().unwrap_or(b'0')
    }

    fn round(&mut self, length: usize) {
        let up = match self.digits.get(length) {
            // Exactly halfway: to the even digit.
            Some(b'5') if length + 1 == self.digits.len() => {
                length > 0 && (self.digits[length - 1] - b'0') % 2 == 1
            }
            Some(digit) => *digit >= b'5',
            None => return,
        };
        if up { self.round_up(length) } else { self.digits.truncate(length) }
    }

    fn round_up(&mut self, length: usize) {
        self.digits.truncate(length);
        while self.digits.last() == Some(&b'9') {
            self.digits.pop();
        }
        if let Some(last) = self.digits.last_mut() {
            *last += 1;
        } else {
            self.digits.push(b'1');
            self.point += 1;
        }
    }

    /// Shortens to the fewest digits that lie between `lower` and `upper`.
    fn shorten(&mut self, lower: &Self, upper: &Self, inclusive: bool) {
        for index in 0..self.digits.len() {
            let (l, m, u) = (lower.at(index), self.digits[index], upper.at(index));
            let last_of_lower = index + 1 == lower.digits.len();
            let may_drop = l != m || (inclusive && last_of_lower);
            let may_raise = m != u && (inclusive || m + 1 < u || index + 1 < upper.digits.len());
            match (may_drop, may_raise) {
                (true, true) => return self.round(index + 1),
                (true, false) => return self.digits.truncate(index + 1),
                (false, true) => return self.round_up(index + 1),
                (false, false) => {}
            }
        }
    }
}

/// All digits.
pub(super) fn exact(big: &Big) -> String {
    let mut text = String::from(if big.mantissa.sign() == Sign::Minus { "-" } else { "" });
    let digits = Digits::exact(big.mantissa.magnitude(), big.exponent);
    // Writing to a `String` cannot fail.
    let _ = write_plain(&digits, &mut text);
    text
}

/// As few digits as identify the number.
pub(super) fn print(big: &Big, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let magnitude = big.mantissa.magnitude();
    // One bit more than the precision, so that the lowest is half a unit in the last place.
    let width = u64::from(big.precision) + 1;
    let shift = width.saturating_sub(magnitude.bits());
    let mantissa = magnitude << shift;
    let exponent = big.exponent.saturating_sub_unsigned(shift);
    let mut digits = Digits::exact(&mantissa, exponent);
    let lower = Digits::exact(&(&mantissa - 1_u32), exponent);
    let upper = Digits::exact(&(&mantissa + 1_u32), exponent);
    digits.shorten(&lower, &upper, !mantissa.bit(1));
    if big.mantissa.sign() == Sign::Minus {
        f.write_str("-")?;
    }
    write_plain(&digits, f)
}

fn write_plain(digits: &Digits, f: &mut impl fmt::Write) -> fmt::Result {
    let Ok(point) = usize::try_from(digits.point) else {
        f.write_str("0.")?;
        for _ in digits.point..0 {
            f.write_str("0")?;
        }
        return write_ascii(&digits.digits, f);
    };
    if point == 0 {
        f.write_str("0")?;
    }
    let (whole, fraction) = digits.digits.split_at(point.min(digits.digits.len()));
    write_ascii(whole, f)?;
    for _ in whole.len()..point {
        f.write_str("0")?;
    }
    if fraction.is_empty() {
        return Ok(());
    }
    f.write_str(".")?;
    write_ascii(fraction, f)
}

fn write_ascii(digits: &[u8], f: &mut impl fmt::Write) -> fmt::Result {
    digits.iter().try_for_each(|digit| f.write_char(char::from(*digit)))
}
