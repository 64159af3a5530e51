//! What health checks and tests of images have in common.

use crate::diagnostic::Diagnostic;
use crate::stack::decode::Field;

/// The path of a request.
pub(super) fn http_path(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let plain = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Some(text) } else { field.refuse("a path, such as \"/healthz\"") }
}

/// A wanted status, which need not be given.
#[expect(clippy::option_option, reason = "the outer one says whether it could be read")]
pub(super) fn http_status(field: &Field<'_>) -> Option<Option<u16>> {
    field.integer(100..=599).map(Some)
}

/// Reports a setting that must be there.
pub(super) fn missing<T>(field: &Field<'_>, name: &str) -> Option<T> {
    let diagnostic = Diagnostic::error(field.span(), format!("`{name}` is missing"))
        .with_label(format!("expected `{name} = …` in here"));
    field.report(diagnostic);
    None
}
