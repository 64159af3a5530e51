//! `debian(…)`, `scratch()`, `oci(…)`, `oci_layout(…)`, `tarball(…)`: what an image starts from.

use kiln_model::digest::Digest;
use kiln_model::name::Kind;
use kiln_model::spec::image::Base;

use super::Surroundings;
use super::decode::Field;
use crate::diagnostic::Diagnostic;
use crate::eval::Environment;
use crate::function::Failure;
use crate::value::{Component, Value};

const DEBIAN: &str = "debian";
const SCRATCH: &str = "scratch";
const OCI: &str = "oci";
const OCI_LAYOUT: &str = "oci_layout";
const TARBALL: &str = "tarball";

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
    for (function, example) in [
        (OCI, "oci(\"registry.example/app:1.2\")"),
        (OCI_LAYOUT, "oci_layout(\"images/app\")"),
        (TARBALL, "tarball(\"rootfs.tar.gz\")"),
    ] {
        environment.add_function(function, Box::new(move |args| one_text(function, example, args)));
    }
}

/// A function of one text, which is not looked into before it is used.
fn one_text(function: &str, example: &str, args: &[Value]) -> Result<Value, Failure> {
    let failure = || Failure::new("it takes one string").with_help(format!("write {example}"));
    let [argument] = args else { return Err(failure()) };
    match argument.as_str() {
        Some(text) if !text.is_empty() => Ok(named(function, text)),
        _ => Err(failure()),
    }
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
pub(super) fn base(field: &Field<'_>, surroundings: &dyn Surroundings) -> Option<Base> {
    const EXPECTED: &str = "debian(\"bookworm\"), scratch(), oci(…), oci_layout(…), tarball(…) or \
                            another image, such as image.base";
    let Some(base) = field.value().as_component() else { return field.refuse(EXPECTED) };
    let name = base.name.to_string();
    match &*base.kind {
        DEBIAN => Some(Base::Debian { suite: name }),
        SCRATCH => Some(Base::Scratch),
        OCI => oci(field, name),
        OCI_LAYOUT => {
            // Behind the last colon may stand a tag, of which no path ends.
            let directory = match name.rsplit_once(':') {
                Some((directory, tag)) if !tag.contains('/') => directory,
                _ => &name,
            };
            let digest = copied(field, surroundings, directory)?;
            Some(Base::OciLayout { path: name, digest })
        }
        TARBALL => {
            let digest = copied(field, surroundings, &name)?;
            Some(Base::Tarball { path: name, digest })
        }
        "image" => {
            let image = field.built_from(Kind::Image, "image.base")?;
            Some(Base::Image { image })
        }
        _ => field.refuse(EXPECTED),
    }
}

/// The digest of what lies in the stack's directory.
fn copied(field: &Field<'_>, surroundings: &dyn Surroundings, path: &str) -> Option<Digest> {
    let digest = surroundings.copied(path);
    digest.map_err(|error| field.report(Diagnostic::error(field.span(), error))).ok()
}

/// An image of a registry: `[HOST[:PORT]/]NAME[:TAG][@sha256:…]`.
fn oci(field: &Field<'_>, reference: String) -> Option<Base> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (&*reference, None),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._/:[]".contains(&b);
    let digest_fits = digest.is_none_or(|digest| digest.parse::<Digest>().is_ok());
    if !rest.is_empty() && rest.bytes().all(fits) && !rest.contains("//") && digest_fits {
        return Some(Base::Oci { reference });
    }
    let summary = format!("{reference:?} does not name an image of a registry");
    let refusal = Diagnostic::error(field.span(), summary)
        .with_label("expected such as \"registry.example/app:1.2\"");
    field.report(refusal.with_help(if digest_fits {
        "leave out `https://` and what is no part of the image's name"
    } else {
        "a digest is written `@sha256:` and 64 hexadecimal digits"
    }));
    None
}
