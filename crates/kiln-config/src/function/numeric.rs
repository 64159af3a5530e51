//! Functions on numbers.

use num_bigint::BigInt;

use super::{Args, Failure, Function, Param, Shape};
use crate::value::{Number, Value};

const NUM: Param = Param::new("num", Shape::Number);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("abs", &[NUM], Shape::Number, |args| Ok(args.number(0)?.abs()?.into())),
    Function::new("ceil", &[NUM], Shape::Number, |args| Ok(args.number(0)?.ceil()?.into())),
    Function::new("floor", &[NUM], Shape::Number, |args| Ok(args.number(0)?.floor()?.into())),
    Function::new("signum", &[NUM], Shape::Number, |args| Ok(args.whole(0)?.signum().into())),
    Function::new("max", &[NUM], Shape::Number, |args| extreme(args, |a, b| a > b)).variadic(NUM),
    Function::new("min", &[NUM], Shape::Number, |args| extreme(args, |a, b| a < b)).variadic(NUM),
    Function::new("log", &[NUM, Param::new("base", Shape::Number)], Shape::Number, |args| {
        in_doubles(args, |num, base| libm::log(num) / libm::log(base))
    }),
    Function::new("pow", &[NUM, Param::new("power", Shape::Number)], Shape::Number, |args| {
        in_doubles(args, power)
    }),
    Function::new(
        "parseint",
        &[Param::new("number", Shape::String), Param::new("base", Shape::Number)],
        Shape::Number,
        parseint,
    ),
    Function::new("sum", &[Param::new("list", Shape::Any)], Shape::Number, sum),
];

fn extreme(args: &Args<'_>, better: fn(&Number, &Number) -> bool) -> Result<Value, Failure> {
    let mut best = args.number(0)?;
    for index in 1..args.len() {
        let candidate = args.number(index)?;
        if better(candidate, best) {
            best = candidate;
        }
    }
    Ok(best.clone().into())
}

/// Terraform computes these in double precision, and so must who wants the same digits. The
/// system's mathematics library may round the last one otherwise on another machine, hence the
/// portable one.
fn in_doubles(args: &Args<'_>, body: fn(f64, f64) -> f64) -> Result<Value, Failure> {
    let result = body(args.number(0)?.to_f64(), args.number(1)?.to_f64());
    Ok(Number::from_f64(result)?.into())
}

/// `base` to the power of `exponent` by repeated squaring of the mantissa, with the fraction of
/// the exponent by way of the logarithm. Go computes it so, and rounds accordingly.
fn power(base: f64, exponent: f64) -> f64 {
    let (mut fraction, mut whole) = libm::modf(exponent.abs());
    let special = base == 0.0 || !base.is_finite() || whole >= 2_f64.powi(62);
    if special || (base < 0.0 && fraction != 0.0) {
        return libm::pow(base, exponent);
    }
    if exponent.abs().to_bits() == 0.5_f64.to_bits() {
        let root = base.sqrt();
        return if exponent < 0.0 { 1.0 / root } else { root };
    }
    if fraction > 0.5 {
        fraction -= 1.0;
        whole += 1.0;
    }
    let mut mantissa = if fraction == 0.0 { 1.0 } else { libm::exp(fraction * libm::log(base)) };
    let mut scale = 0_i32;
    let (mut square, mut square_scale) = libm::frexp(base);
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^62")]
    let mut rest = whole as i64;
    while rest != 0 {
        // Far beyond the range of doubles already.
        if square_scale.abs() > 1 << 12 {
            scale += square_scale;
            break;
        }
        if rest & 1 == 1 {
            mantissa *= square;
            scale += square_scale;
        }
        square *= square;
        square_scale *= 2;
        if square < 0.5 {
            square *= 2.0;
            square_scale -= 1;
        }
        rest >>= 1;
    }
    if exponent < 0.0 { libm::ldexp(1.0 / mantissa, -scale) } else { libm::ldexp(mantissa, scale) }
}

/// The longest text that `parseint` takes: what fits the range of numbers in base 2.
const MAX_DIGITS: usize = 16_384;

fn parseint(args: &Args<'_>) -> Result<Value, Failure> {
    let (text, base) = (args.text(0)?, args.whole(1)?);
    let base = u32::try_from(base)
        .ok()
        .filter(|base| (2..=62).contains(base))
        .ok_or_else(|| Failure::of(1, format!("the base lies between 2 and 62, not {base}")))?;
    let malformed = || Failure::of(0, format!("\"{text}\" is not a whole number in base {base}"));
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return Err(malformed());
    }
    let mut value = BigInt::ZERO;
    for char in digits.chars() {
        let digit = digit(char, base).filter(|digit| *digit < base).ok_or_else(malformed)?;
        value = value * base + digit;
    }
    Ok(Number::integer(if negative { -value } else { value })?.into())
}

/// Up to base 36 case does not matter; above it upper case follows lower case.
fn digit(char: char, base: u32) -> Option<u32> {
    match char {
        '0'..='9' | 'a'..='z' => char.to_digit(36),
        'A'..='Z' if base <= 36 => char.to_digit(36),
        'A'..='Z' => char.to_digit(36).map(|digit| digit + 26),
        _ => None,
    }
}

fn sum(args: &Args<'_>) -> Result<Value, Failure> {
    let elements = args.elements(0)?;
    if elements.is_empty() {
        return Err(Failure::of(0, "cannot sum an empty list"));
    }
    let mut total = Number::ZERO;
    for element in elements {
        let number = crate::value::convert::convert(element, &crate::value::Type::Number)
            .map_err(|error| Failure::of(0, error.to_string()))?;
        let number =
            number.as_number().ok_or_else(|| Failure::of(0, "it must not contain null"))?;
        total = total.add(number)?;
    }
    Ok(total.into())
}
