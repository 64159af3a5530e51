//! Sameness and order of values.
//!
//! The order is that in which sets are kept: `false` before `true`, numbers by magnitude, text
//! by its bytes, sequences element by element, and null behind everything. (Terraform orders
//! sets of anything but primitives by hash; here they follow the same natural order.)

use std::cmp::Ordering;

use super::{Data, SecretVersion, Value};

/// The order of values of one type. Those of different types are ordered by type, so that the
/// order is total. Unknown values are all alike.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.data(), b.data()) {
        (Data::Bool(a), Data::Bool(b)) => a.cmp(b),
        (Data::Number(a), Data::Number(b)) => a.cmp(b),
        (Data::String(a), Data::String(b)) => a.cmp(b),
        (Data::Secret(a), Data::Secret(b)) => a.cmp(b),
        (Data::Component(a), Data::Component(b)) => a.cmp(b),
        (Data::List(_, a), Data::List(_, b))
        | (Data::Set(_, a), Data::Set(_, b))
        | (Data::Tuple(a), Data::Tuple(b)) => compare_all(a.iter(), b.iter()),
        (Data::Map(_, a), Data::Map(_, b)) | (Data::Object(a), Data::Object(b)) => {
            a.keys().cmp(b.keys()).then_with(|| compare_all(a.values(), b.values()))
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn compare_all<'a>(
    mut a: impl Iterator<Item = &'a Value>,
    mut b: impl Iterator<Item = &'a Value>,
) -> Ordering {
    loop {
        match (a.next(), b.next()) {
            (Some(a), Some(b)) => match compare(a, b) {
                Ordering::Equal => {}
                other => return other,
            },
            (a, b) => return a.is_some().cmp(&b.is_some()),
        }
    }
}

const fn rank(data: &Data) -> u8 {
    match data {
        Data::Bool(_) => 0,
        Data::Number(_) => 1,
        Data::String(_) => 2,
        Data::Secret(_) => 3,
        Data::Component(_) => 4,
        Data::Tuple(_) => 5,
        Data::List(..) => 6,
        Data::Set(..) => 7,
        Data::Object(_) => 8,
        Data::Map(..) => 9,
        Data::Unknown(..) => 10,
        Data::Null(_) => 11,
    }
}

/// Whether two values are the same, as `==` has it: equal in type and content, save that null
/// equals null of any type and that empty collections are told apart by their kind only.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    compare(a, b).is_eq()
}

impl Value {
    /// The order in which values of one type stand in a set.
    pub fn order(&self, other: &Self) -> Ordering {
        compare(self, other)
    }

    /// Whether two known values are equal, as the operator `==` has it: of one type (null is of
    /// any) and of equal content.
    ///
    /// Text that contains a secret is equal to itself; whether it equals other text cannot be
    /// told without reading it, which is the error: the secret in question.
    pub fn equals(&self, other: &Self) -> Result<bool, SecretVersion> {
        if same(self, other) {
            return Ok(match (self.data(), other.data()) {
                (Data::List(a, x) | Data::Set(a, x), Data::List(b, _) | Data::Set(b, _)) => {
                    !x.is_empty() || a == b
                }
                (Data::Map(a, x), Data::Map(b, _)) => !x.is_empty() || a == b,
                _ => true,
            });
        }
        let null = self.is_null() || other.is_null();
        match self.first_secret().or_else(|| other.first_secret()) {
            Some(secret) if !null => Err(secret.clone()),
            _ => Ok(false),
        }
    }
}
