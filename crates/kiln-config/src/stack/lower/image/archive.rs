//! `repository` blocks: signed archives of third parties.

use std::collections::BTreeSet;

use kiln_model::spec::image::Repository;

use crate::diagnostic::Diagnostic;
use crate::stack::decode::Field;
use crate::stack::lower::Reader;
use crate::syntax::span::Span;

/// The longest text of keys, in bytes.
const MAX_KEY_BYTES: usize = 1 << 20;

pub(super) fn repository(reader: &Reader<'_>, name: &str, span: Span) -> Option<Repository> {
    let url = reader.required("url", url);
    let suite = reader.required("suite", |field| word(field, "a suite, such as \"stable\""));
    let components = reader.read_or("components", BTreeSet::from(["main".to_owned()]), |field| {
        let elements = field.elements()?;
        if elements.is_empty() {
            return field.refuse("a list of components, such as [\"main\"]");
        }
        let read: Vec<Option<String>> =
            elements.iter().map(|e| word(e, "a component, such as \"main\"")).collect();
        read.into_iter().collect()
    });
    let key = reader.required("key", key);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
        let diagnostic = Diagnostic::error(span, format!("{name:?} cannot name a repository"))
            .with_label("expected lower-case letters, digits and `-`, at most 63");
        reader.world.report(diagnostic);
        return None;
    }
    Some(Repository {
        name: name.to_owned(),
        url: url?,
        suite: suite?,
        components: components?,
        key: key?,
    })
}

fn url(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let known = ["http://", "https://", "file:///"].iter().any(|scheme| text.starts_with(scheme));
    if known && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(text.trim_end_matches('/').to_owned());
    }
    field.refuse("an address, such as \"https://apt.example.org/debian\"")
}

/// A word of a path in an archive.
fn word(field: &Field<'_>, expected: &str) -> Option<String> {
    let text = field.string()?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._+/".contains(&b);
    let dots = text.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    if !text.is_empty() && text.bytes().all(fits) && !dots {
        Some(text)
    } else {
        field.refuse(expected)
    }
}

fn key(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    if text.len() <= MAX_KEY_BYTES && text.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        return Some(text);
    }
    let refusal = field.refusal("armoured OpenPGP public keys");
    field.report(refusal.with_help("keep them in a file: key = file(\"keys/archive.asc\")"));
    None
}
