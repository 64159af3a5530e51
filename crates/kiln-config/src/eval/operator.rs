//! Operators and conditionals.

use super::{Evaluated, Evaluator, error, number_error};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::syntax::ast::{Binary, BinaryOp, Conditional, Expr, UnaryOp};
use crate::syntax::span::Span;
use crate::value::convert::convert;
use crate::value::{Data, Number, NumberError, Reason, Type, Value};

/// An operand that has been brought to its type: known, or why not; and its mark.
struct Operand<T> {
    known: Result<T, Reason>,
    sensitive: bool,
}

impl Evaluator<'_> {
    pub(super) fn unary(&self, op: UnaryOp, operand: &Expr, span: Span) -> Evaluated {
        match op {
            UnaryOp::Negate => {
                let number = self.operand(operand, &Type::Number, Value::as_number_owned)?;
                let result = match number.known {
                    Ok(number) => match number.neg() {
                        Ok(number) => number.into(),
                        Err(failure) => return number_error(span, failure),
                    },
                    Err(reason) => Value::unknown(Type::Number, reason),
                };
                Ok(result.with_sensitive(number.sensitive))
            }
            UnaryOp::Not => {
                let value = self.operand(operand, &Type::Bool, Value::as_bool)?;
                let result = match value.known {
                    Ok(value) => (!value).into(),
                    Err(reason) => Value::unknown(Type::Bool, reason),
                };
                Ok(result.with_sensitive(value.sensitive))
            }
        }
    }

    pub(super) fn binary(&self, binary: &Binary, span: Span) -> Evaluated {
        match binary.op {
            BinaryOp::And => self.logical(binary, false),
            BinaryOp::Or => self.logical(binary, true),
            BinaryOp::Equal => self.equality(binary, true),
            BinaryOp::NotEqual => self.equality(binary, false),
            op => self.arithmetic(op, binary, span),
        }
    }

    fn operand<T>(
        &self,
        expr: &Expr,
        ty: &Type,
        take: fn(&Value) -> Option<T>,
    ) -> Evaluated<Operand<T>> {
        self.taking("operand", expr, ty, take)
    }

    /// Evaluates an operand and converts it; `role` is what messages call it.
    fn taking<T>(
        &self,
        role: &str,
        expr: &Expr,
        ty: &Type,
        take: fn(&Value) -> Option<T>,
    ) -> Evaluated<Operand<T>> {
        let value = self.evaluate(expr)?;
        let converted = match convert(&value, ty) {
            Ok(converted) => converted,
            Err(failure) => {
                let message = format!("unsuitable {role}: {failure}");
                let wrong = Diagnostic::error(expr.span, message);
                return Err(failure.help.into_iter().fold(wrong, Diagnostic::with_help).into());
            }
        };
        let sensitive = converted.is_sensitive();
        if let Some(reason) = converted.unknown_reason() {
            return Ok(Operand { known: Err(reason.clone()), sensitive });
        }
        match take(&converted) {
            Some(known) => Ok(Operand { known: Ok(known), sensitive }),
            None => error(expr.span, format!("unsuitable {role}: it must not be null")),
        }
    }

    /// `&&` and `||`: the right side is not looked at where the left one decides.
    fn logical(&self, binary: &Binary, decisive: bool) -> Evaluated {
        let left = self.operand(&binary.left, &Type::Bool, Value::as_bool)?;
        if left.known == Ok(decisive) {
            return Ok(Value::from(decisive).with_sensitive(left.sensitive));
        }
        let right = self.operand(&binary.right, &Type::Bool, Value::as_bool)?;
        let result = match (left.known, right.known) {
            (_, Ok(right)) if right == decisive => decisive.into(),
            (Ok(_), Ok(right)) => right.into(),
            (Err(reason), _) | (_, Err(reason)) => Value::unknown(Type::Bool, reason),
        };
        Ok(result.with_sensitive(left.sensitive || right.sensitive))
    }

    /// `==` and `!=`: values of different types are never equal.
    fn equality(&self, binary: &Binary, wanted: bool) -> Evaluated {
        let values = self.all([&binary.left, &binary.right])?;
        let [left, right] = values.as_slice() else {
            return error(binary.op_span, "a comparison needs two values");
        };
        let sensitive = left.contains_sensitive() || right.contains_sensitive();
        let unknown = left.first_unknown().or_else(|| right.first_unknown());
        let result = match unknown {
            Some(reason) => Value::unknown(Type::Bool, reason.clone()),
            None => match left.equals(right) {
                Ok(equal) => (equal == wanted).into(),
                Err(secret) => {
                    let message = format!(
                        "secret.{} cannot be compared with other text without being read",
                        secret.secret
                    );
                    return error(binary.op_span, message);
                }
            },
        };
        Ok(result.with_sensitive(sensitive))
    }

    fn arithmetic(&self, op: BinaryOp, binary: &Binary, span: Span) -> Evaluated {
        let operand = |expr| self.operand(expr, &Type::Number, Value::as_number_owned);
        let (left, right) = both(operand(&binary.left), operand(&binary.right))?;
        let sensitive = left.sensitive || right.sensitive;
        let result = match (left.known, right.known) {
            (Ok(left), Ok(right)) => match compute(op, &left, &right) {
                Ok(value) => value,
                Err(NumberError::DivisionByZero) => {
                    return error(binary.right.span, "division by zero");
                }
                Err(failure) => return number_error(span, failure),
            },
            (Err(reason), _) | (_, Err(reason)) => {
                let number = matches!(
                    op,
                    BinaryOp::Add
                        | BinaryOp::Subtract
                        | BinaryOp::Multiply
                        | BinaryOp::Divide
                        | BinaryOp::Remainder
                );
                Value::unknown(if number { Type::Number } else { Type::Bool }, reason)
            }
        };
        Ok(result.with_sensitive(sensitive))
    }

    /// Both sides are evaluated, since both take part in the type of the result; errors on the
    /// side that is not taken are of no matter.
    pub(super) fn conditional(&self, conditional: &Conditional, span: Span) -> Evaluated {
        let condition =
            self.taking("condition", &conditional.condition, &Type::Bool, Value::as_bool)?;
        let then = self.evaluate(&conditional.then);
        let otherwise = self.evaluate(&conditional.otherwise);
        let result = match condition.known {
            Err(reason) => {
                let (then, otherwise) = both(then, otherwise)?;
                let ty = branch_type(&then, &otherwise, span)?;
                let sensitive = then.contains_sensitive() || otherwise.contains_sensitive();
                Value::unknown(ty, reason).with_sensitive(sensitive)
            }
            Ok(true) => taken(then, otherwise, false, span)?,
            Ok(false) => taken(otherwise, then, true, span)?,
        };
        Ok(result.with_sensitive(condition.sensitive))
    }
}

/// Both results, or the errors of both.
fn both<A, B>(a: Evaluated<A>, b: Evaluated<B>) -> Evaluated<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(mut a), Err(b)) => {
            a.extend(b);
            Err(a)
        }
        (Err(errors), _) | (_, Err(errors)) => Err(errors),
    }
}

fn compute(op: BinaryOp, left: &Number, right: &Number) -> Result<Value, NumberError> {
    Ok(match op {
        BinaryOp::Add => left.add(right)?.into(),
        BinaryOp::Subtract => left.sub(right)?.into(),
        BinaryOp::Multiply => left.mul(right)?.into(),
        BinaryOp::Divide => left.div(right)?.into(),
        BinaryOp::Remainder => left.rem(right)?.into(),
        BinaryOp::Less => (left < right).into(),
        BinaryOp::LessOrEqual => (left <= right).into(),
        BinaryOp::Greater => (left > right).into(),
        BinaryOp::GreaterOrEqual => (left >= right).into(),
        BinaryOp::Equal => (left == right).into(),
        BinaryOp::NotEqual => (left != right).into(),
        // These two have no numbers for operands and never come here.
        BinaryOp::And | BinaryOp::Or => return Err(NumberError::NotANumber),
    })
}

/// The branch that was taken, brought to the type that both have in common. `swapped` says that
/// it is the one behind the colon.
fn taken(chosen: Evaluated, other: Evaluated, swapped: bool, span: Span) -> Evaluated {
    let chosen = chosen?;
    let Ok(other) = other else { return Ok(chosen) };
    let chosen = chosen.with_sensitive(other.is_sensitive());
    // The rule: both are of one primitive type.
    let ty = match (chosen.data(), other.data()) {
        (Data::Bool(_), Data::Bool(_))
        | (Data::Number(_), Data::Number(_))
        | (Data::String(_), Data::String(_)) => return Ok(chosen),
        _ if swapped => branch_type(&other, &chosen, span)?,
        _ => branch_type(&chosen, &other, span)?,
    };
    convert(&chosen, &ty).or_else(|failure| error(span, failure.to_string()))
}

fn branch_type(then: &Value, otherwise: &Value, span: Span) -> Evaluated<Type> {
    let (a, b) = (then.ty(), otherwise.ty());
    if let Some(ty) = Type::unify([&a, &b]) {
        return Ok(ty);
    }
    let mut errors = Diagnostics::new();
    errors.push(
        Diagnostic::error(span, "the two results of a conditional must be of one type")
            .with_label(format!("if true it is {}, if false {}", a.describe(), b.describe())),
    );
    Err(errors)
}

impl Value {
    fn as_number_owned(&self) -> Option<Number> {
        self.as_number().cloned()
    }
}
