//! `debian(…)`, `scratch()`, `oci(…)`: what an image starts from.

use kiln_model::spec::image::Base;

use super::decode::Field;
use crate::diagnostic::Diagnostic;
use crate::eval::Environment;
use crate::function::Failure;
use crate::value::{Component, Value};

const DEBIAN: &str = "debian";
const SCRATCH: &str = "scratch";

/// Adds the functions that name a base. What they return is good for `base` only.
pub(super) fn add_functions(environment: &mut Environment<'_>) {
    environment.add_function(DEBIAN, Box::new(debian));
    environment.add_function(
        SCRATCH,
        Box::new(|args| {
            if args.is_empty() {
                Ok(named(SCRATCH, ""))
            } else {
                Err(Failure::new("it takes no argument"))
            }
        }),
    );
    environment.add_function(
        "oci",
        Box::new(|_| {
            Err(Failure::new(
                "images from a registry are not supported yet as a base by this version of kiln",
            )
            .with_help("start from debian(\"bookworm\") or scratch()"))
        }),
    );
}

fn named(function: &str, argument: &str) -> Value {
    Value::component(Component { kind: function.into(), name: argument.into(), instance: None })
}

/// `debian("bookworm")`: a suite by its code name.
fn debian(args: &[Value]) -> Result<Value, Failure> {
    let [suite] = args else {
        return Err(Failure::new("it takes one argument, the suite's code name")
            .with_help("write debian(\"bookworm\")"));
    };
    let Some(name) = suite.as_str() else {
        return Err(Failure::of(0, "the suite's code name is a string, such as \"bookworm\""));
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Failure::of(0, format!("{name:?} is not the code name of a suite"))
            .with_help("write it in lower case: \"bookworm\""));
    }
    if matches!(name, "stable" | "testing" | "oldstable") {
        return Err(Failure::of(0, format!("{name:?} means another suite after each release"))
            .with_help("name the suite by its code name, such as \"bookworm\""));
    }
    Ok(named(DEBIAN, name))
}

/// What an image starts from.
pub(super) fn base(field: &Field<'_>) -> Option<Base> {
    const EXPECTED: &str = "debian(\"bookworm\") or scratch()";
    match field.value().as_component() {
        Some(base) if &*base.kind == DEBIAN => Some(Base::Debian { suite: base.name.to_string() }),
        Some(base) if &*base.kind == SCRATCH => Some(Base::Scratch),
        Some(base) if &*base.kind == "image" => {
            let summary = "an image on another image is not supported yet by this version of kiln";
            let help = "repeat what the other image is made of, or share lists in `locals`";
            field.report(Diagnostic::error(field.span(), summary).with_help(help));
            None
        }
        _ => field.refuse(EXPECTED),
    }
}
