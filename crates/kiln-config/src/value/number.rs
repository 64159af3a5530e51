//! Numbers as Terraform has them: binary floating point with 512 bits of mantissa, so that
//! integers of up to 154 digits are exact and `0.1 + 0.2 == 0.3` holds.
//!
//! Terraform's numbers are Go's `big.Float`. A decimal library would give other digits for
//! `1/3`, and the arbitrary-precision float crates neither round nor print as `big.Float`
//! does, so this is a thin layer over `num-bigint`: a mantissa, a power of two and the
//! precision to which results are rounded (to nearest, ties to even). Whole numbers that fit
//! an `i64`, which are nearly all that a configuration holds, never touch it.
//!
//! The magnitude is bounded to 2^±16384, so that no input such as `1e999999999` can ask for
//! memory.

use std::cmp::Ordering;
use std::sync::Arc;

use num_bigint::{BigInt, Sign};
use num_traits::{Signed, ToPrimitive, Zero};

/// Bits of mantissa that a literal and every result computed from one carry.
pub(super) const PRECISION: u32 = 512;
/// Bits of mantissa of what was computed in double precision (`log`, `pow`).
const DOUBLE: u32 = 53;
/// Bound of the binary exponent, either way: that of an IEEE quadruple.
const MAX_EXPONENT: i64 = 16_384;

/// A number: finite, of at most 512 significant bits.
#[derive(Clone, Debug)]
pub struct Number(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Int(i64),
    Big(Arc<Big>),
}

/// `mantissa * 2^exponent`; the mantissa is odd, or the whole is zero.
#[derive(Clone, Debug)]
pub(super) struct Big {
    pub(super) mantissa: BigInt,
    pub(super) exponent: i64,
    pub(super) precision: u32,
}

/// Why a number could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// The text is no decimal number.
    #[error("a number is required")]
    Malformed,
    /// The magnitude is beyond what is supported.
    #[error("the number is out of range: magnitudes lie between 1e-4931 and 1e4932")]
    OutOfRange,
    /// Division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A result that no number stands for, such as the logarithm of -1.
    #[error("the result is not a number")]
    NotANumber,
}

type Result<T = Number> = std::result::Result<T, NumberError>;

impl Number {
    /// Zero.
    pub const ZERO: Self = Self(Repr::Int(0));

    /// Rounds `mantissa * 2^exponent` to `precision` bits and normalises it.
    pub(super) fn rounded(mantissa: BigInt, exponent: i64, precision: u32) -> Result {
        Big { mantissa, exponent, precision }.round().map(Self::from_big)
    }

    fn from_big(big: Big) -> Self {
        // Those of low precision stay apart: what is computed from them is rounded to it.
        let plain = big.precision == PRECISION || big.mantissa.is_zero();
        let bits = big.mantissa.bits().saturating_add_signed(big.exponent);
        if plain
            && big.exponent >= 0
            && bits <= 63
            && let Some(small) = (&big.mantissa << big.exponent.unsigned_abs()).to_i64()
        {
            return Self(Repr::Int(small));
        }
        Self(Repr::Big(Arc::new(big)))
    }

    pub(super) fn big(&self) -> Big {
        match &self.0 {
            Repr::Int(int) => {
                Big { mantissa: (*int).into(), exponent: 0, precision: PRECISION }.stripped()
            }
            Repr::Big(big) => Big::clone(big),
        }
    }

    /// The number as an `i64`, when it is a whole number that fits.
    pub fn to_i64(&self) -> Option<i64> {
        match &self.0 {
            Repr::Int(int) => Some(*int),
            // Normalised whole numbers of this size are `Int`, save those of low precision.
            Repr::Big(_) => self.to_integer().and_then(|int| int.to_i64()),
        }
    }

    /// The number as a `usize`, when it is a whole number that fits.
    pub fn to_usize(&self) -> Option<usize> {
        self.to_i64().and_then(|int| usize::try_from(int).ok())
    }

    /// The exact integer, when the number is whole. At most 16 384 bits long.
    pub fn to_integer(&self) -> Option<BigInt> {
        let big = self.big();
        (big.exponent >= 0).then(|| big.mantissa << big.exponent.unsigned_abs())
    }

    /// The nearest double; infinite where the number is larger than any.
    pub fn to_f64(&self) -> f64 {
        match &self.0 {
            #[expect(clippy::cast_precision_loss, reason = "the nearest double is asked for")]
            Repr::Int(int) => *int as f64,
            // Printing is exact to the last bit, and the parser rounds correctly.
            Repr::Big(_) => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }

    /// The number that equals a double, with a double's precision, as Terraform's functions
    /// that compute in double precision return it.
    pub fn from_f64(value: f64) -> Result {
        const MANTISSA: u32 = 52;
        const BIAS: i64 = 1075;
        if !value.is_finite() {
            return Err(if value.is_nan() {
                NumberError::NotANumber
            } else {
                NumberError::OutOfRange
            });
        }
        let bits = value.to_bits();
        let biased = i64::try_from((bits >> MANTISSA) & 0x7ff).unwrap_or_default();
        let fraction = bits & ((1 << MANTISSA) - 1);
        let (mantissa, exponent) = if biased == 0 {
            (fraction, 1 - BIAS)
        } else {
            (fraction | (1 << MANTISSA), biased - BIAS)
        };
        let sign = if value.is_sign_negative() { Sign::Minus } else { Sign::Plus };
        Self::rounded(BigInt::from_biguint(sign, mantissa.into()), exponent, DOUBLE)
    }

    /// Whether the number is whole.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Repr::Int(_) => true,
            Repr::Big(big) => big.exponent >= 0,
        }
    }

    /// Whether the number is zero.
    pub fn is_zero(&self) -> bool {
        matches!(self.0, Repr::Int(0))
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i64 {
        match &self.0 {
            Repr::Int(int) => int.signum(),
            Repr::Big(big) => {
                if big.mantissa.is_negative() {
                    -1
                } else {
                    1
                }
            }
        }
    }

    /// The sum.
    pub fn add(&self, other: &Self) -> Result {
        if let (Repr::Int(a), Repr::Int(b)) = (&self.0, &other.0)
            && let Some(sum) = a.checked_add(*b)
        {
            return Ok(sum.into());
        }
        let (a, b, exponent, precision) = aligned(self, other);
        Self::rounded(a + b, exponent, precision)
    }

    /// The difference.
    pub fn sub(&self, other: &Self) -> Result {
        if let (Repr::Int(a), Repr::Int(b)) = (&self.0, &other.0)
            && let Some(difference) = a.checked_sub(*b)
        {
            return Ok(difference.into());
        }
        let (a, b, exponent, precision) = aligned(self, other);
        Self::rounded(a - b, exponent, precision)
    }

    /// The product.
    pub fn mul(&self, other: &Self) -> Result {
        if let (Repr::Int(a), Repr::Int(b)) = (&self.0, &other.0)
            && let Some(product) = a.checked_mul(*b)
        {
            return Ok(product.into());
        }
        let (a, b) = (self.big(), other.big());
        let precision = a.precision.max(b.precision);
        Self::rounded(a.mantissa * b.mantissa, a.exponent + b.exponent, precision)
    }

    /// The quotient, rounded to the precision.
    pub fn div(&self, other: &Self) -> Result {
        if other.is_zero() {
            return Err(NumberError::DivisionByZero);
        }
        if let (Repr::Int(a), Repr::Int(b)) = (&self.0, &other.0)
            && a.checked_rem(*b) == Some(0)
            && let Some(quotient) = a.checked_div(*b)
        {
            return Ok(quotient.into());
        }
        let (a, b) = (self.big(), other.big());
        let precision = a.precision.max(b.precision);
        quotient(a.mantissa, &b.mantissa, a.exponent - b.exponent, precision)
    }

    /// The remainder of the division that truncates towards zero: it has the sign of `self`.
    pub fn rem(&self, other: &Self) -> Result {
        if other.is_zero() {
            return Err(NumberError::DivisionByZero);
        }
        if let (Repr::Int(a), Repr::Int(b)) = (&self.0, &other.0) {
            return Ok(a.wrapping_rem(*b).into());
        }
        // In steps that round to the precision of `self`, as Terraform takes them.
        let precision = self.big().precision;
        let whole = self.div(other)?.trunc()?.to_precision(precision)?;
        let multiple = whole.mul(other)?.to_precision(precision)?;
        self.sub(&multiple)?.to_precision(precision)
    }

    fn to_precision(&self, precision: u32) -> Result {
        let big = self.big();
        if big.precision == precision {
            return Ok(self.clone());
        }
        Self::rounded(big.mantissa, big.exponent, precision)
    }

    /// The number with the other sign.
    pub fn neg(&self) -> Result {
        match &self.0 {
            Repr::Int(_) => Self::ZERO.sub(self),
            Repr::Big(big) => {
                let Big { mantissa, exponent, precision } = Big::clone(big);
                Self::rounded(-mantissa, exponent, precision)
            }
        }
    }

    /// The magnitude.
    pub fn abs(&self) -> Result {
        if self.signum() < 0 { self.neg() } else { Ok(self.clone()) }
    }

    /// The greatest whole number that is not greater.
    pub fn floor(&self) -> Result {
        let big = self.big();
        if big.exponent >= 0 {
            return Ok(self.clone());
        }
        // Shifting a `BigInt` right rounds towards minus infinity.
        Self::rounded(big.mantissa >> big.exponent.unsigned_abs(), 0, big.precision)
    }

    /// The number without its fraction.
    pub fn trunc(&self) -> Result {
        if self.signum() < 0 { self.ceil() } else { self.floor() }
    }

    /// The smallest whole number that is not smaller.
    pub fn ceil(&self) -> Result {
        self.neg()?.floor()?.neg()
    }
}

/// Both mantissas over the smaller exponent, that exponent, and the precision of a result.
fn aligned(a: &Number, b: &Number) -> (BigInt, BigInt, i64, u32) {
    let (a, b) = (a.big(), b.big());
    let exponent = a.exponent.min(b.exponent);
    let precision = a.precision.max(b.precision);
    let over = |big: Big| big.mantissa << (big.exponent - exponent).unsigned_abs();
    (over(a), over(b), exponent, precision)
}

/// `a / b * 2^exponent`, rounded; `b` is not zero.
pub(super) fn quotient(a: BigInt, b: &BigInt, exponent: i64, precision: u32) -> Result {
    // Two bits more than needed, and below them one that says whether anything is left.
    let shift = (u64::from(precision) + 2 + b.bits()).saturating_sub(a.bits());
    let numerator = a << shift;
    let quotient = &numerator / b;
    let rest = numerator - &quotient * b;
    let mut mantissa = quotient << 1_u32;
    if !rest.is_zero() {
        // The quotient of a fraction may have been truncated to zero: the rest has the sign.
        mantissa += if rest.is_negative() == b.is_negative() { 1 } else { -1 };
    }
    let shift = i64::try_from(shift).map_err(|_| NumberError::OutOfRange)?;
    Number::rounded(mantissa, exponent - shift - 1, precision)
}

impl Big {
    /// Rounds half to even, strips trailing zero bits, and checks the range.
    fn round(mut self) -> Result<Self> {
        if let Some(excess) = self.mantissa.bits().checked_sub(u64::from(self.precision))
            && excess > 0
        {
            let (sign, magnitude) = self.mantissa.into_parts();
            let half = magnitude.bit(excess - 1);
            let beyond = magnitude.trailing_zeros().is_some_and(|zeros| zeros < excess - 1);
            let mut kept = magnitude >> excess;
            if half && (beyond || kept.bit(0)) {
                kept += 1_u32;
            }
            self.mantissa = BigInt::from_biguint(sign, kept);
            self.exponent = self.exponent.saturating_add_unsigned(excess);
        }
        let big = self.stripped();
        let top = big.exponent.saturating_add_unsigned(big.mantissa.bits());
        if big.mantissa.is_zero() || (-MAX_EXPONENT..=MAX_EXPONENT).contains(&top) {
            Ok(big)
        } else {
            Err(NumberError::OutOfRange)
        }
    }

    fn stripped(mut self) -> Self {
        match self.mantissa.trailing_zeros() {
            None => self.exponent = 0,
            Some(0) => {}
            Some(zeros) => {
                self.mantissa >>= zeros;
                self.exponent = self.exponent.saturating_add_unsigned(zeros);
            }
        }
        self
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self(Repr::Int(value))
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        i64::try_from(value).map_or_else(|_| Self::from_integer(value.into()), Self::from)
    }
}

impl Number {
    fn from_integer(value: BigInt) -> Self {
        Self::from_big(Big { mantissa: value, exponent: 0, precision: PRECISION }.stripped())
    }

    /// The number that equals an integer, or an error where it is out of range.
    pub fn integer(value: BigInt) -> Result {
        Self::rounded(value, 0, PRECISION)
    }
}

impl Number {
    /// All decimal digits of the number, without an exponent. [`Display`] gives as few as
    /// identify it.
    ///
    /// [`Display`]: std::fmt::Display
    pub fn to_exact_string(&self) -> String {
        match &self.0 {
            Repr::Int(int) => int.to_string(),
            Repr::Big(big) => super::decimal::exact(big),
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        if let (Repr::Int(a), Repr::Int(b)) = (&self.0, &other.0) {
            return a.cmp(b);
        }
        let (a, b, _, _) = aligned(self, other);
        a.cmp(&b)
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Repr::Int(int) => int.fmt(f),
            Repr::Big(big) => super::decimal::print(big, f),
        }
    }
}
