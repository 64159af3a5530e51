//! Functions on sets. Lists that are handed in become sets.

use std::collections::BTreeMap;

use super::{Args, Failure, Function, Param, Shape};
use crate::value::convert::unify;
use crate::value::{Data, Type, Value};

const FIRST: Param = Param::new("first_set", Shape::Set);
const OTHERS: Param = Param::new("other_sets", Shape::Set);

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("setintersection", &[FIRST], Shape::Set, |args| {
        combine(args, |count, first, sets| first && count == sets)
    })
    .variadic(OTHERS),
    Function::new("setproduct", &[], Shape::Any, product).variadic(Param::new("sets", Shape::Any)),
    Function::new(
        "setsubtract",
        &[Param::new("a", Shape::Set), Param::new("b", Shape::Set)],
        Shape::Set,
        |args| combine(args, |count, first, _| first && count == 1),
    ),
    Function::new("setunion", &[FIRST], Shape::Set, |args| combine(args, |_, _, _| true))
        .variadic(OTHERS),
];

/// All elements of all sets of which `keep` says so, given in how many sets one is, whether in
/// the first one, and how many sets there are.
fn combine(args: &Args<'_>, keep: fn(usize, bool, usize) -> bool) -> Result<Value, Failure> {
    let (ty, sets) = unify(args.all().to_vec()).map_err(|error| Failure::new(error.to_string()))?;
    let element = match ty {
        Type::Set(element) => (*element).clone(),
        _ => Type::Any,
    };
    let count = sets.len();
    let mut members = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        members.extend(set.as_elements().unwrap_or_default().iter().map(|value| (value, index)));
    }
    // Within a set elements are distinct, so equal neighbours come from different sets.
    members.sort_by(|(a, i), (b, j)| a.order(b).then(i.cmp(j)));
    let runs = members.chunk_by(|(a, _), (b, _)| a.order(b).is_eq());
    let kept = runs.filter(|run| keep(run.len(), run[0].1 == 0, count));
    Ok(Value::set(element, kept.map(|run| run[0].0.clone()).collect()))
}

/// The most tuples that a product has.
const MAX_PRODUCT: usize = 100_000;

/// Every way to take one element of each: a list if all are lists, else a set.
fn product(args: &Args<'_>) -> Result<Value, Failure> {
    if args.len() < 2 {
        return Err(Failure::new("it needs at least two sets or lists"));
    }
    let mut sets = Vec::new();
    for index in 0..args.len() {
        let elements = args.elements(index)?.to_vec();
        let (element, elements) =
            unify(elements).map_err(|error| Failure::of(index, error.to_string()))?;
        sets.push((element, elements));
    }
    let size = sets.iter().try_fold(1_usize, |size, (_, set)| size.checked_mul(set.len()));
    let size = size.filter(|size| *size <= MAX_PRODUCT).ok_or_else(|| {
        Failure::new(format!("the product would have more than {MAX_PRODUCT} elements"))
    })?;
    let element = Type::Tuple(sets.iter().map(|(element, _)| element.clone()).collect());
    let tuple = |mut number: usize| {
        let mut picked: Vec<Value> = sets
            .iter()
            .rev()
            .map(|(_, set)| {
                let value = set[number % set.len()].clone();
                number /= set.len();
                value
            })
            .collect();
        picked.reverse();
        Value::tuple(picked)
    };
    let tuples = (0..size).map(tuple).collect();
    let any_set = args.all().iter().any(|value| matches!(value.data(), Data::Set(..)));
    Ok(if any_set { Value::set(element, tuples) } else { Value::list(element, tuples) })
}

/// The distinct values among `values`, in the order of their first appearance.
pub(super) fn distinct(values: &[Value]) -> Vec<Value> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].order(&values[*b]).then(a.cmp(b)));
    let mut kept: BTreeMap<usize, &Value> = BTreeMap::new();
    for run in order.chunk_by(|a, b| values[*a].order(&values[*b]).is_eq()) {
        kept.insert(run[0], &values[run[0]]);
    }
    kept.into_values().cloned().collect()
}
