//! Paths inside images and instances.

use std::collections::BTreeMap;

use kiln_model::quantity::Bytes;

use crate::stack::decode::Field;

const SMALLEST_SPACE: Bytes = Bytes(4096);
const LARGEST_SPACE: Bytes = Bytes(1 << 40);

/// Whether `path` is absolute and in its shortest form: no `.`, `..`, empty part or final `/`.
pub(super) fn is_canonical(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    path == "/"
        || (!path.contains('\0')
            && rest.split('/').all(|part| !part.is_empty() && part != "." && part != ".."))
}

/// An absolute path inside an image.
pub(super) fn absolute_path(field: &Field<'_>) -> Option<String> {
    let path = field.string()?;
    if is_canonical(&path) {
        return Some(path);
    }
    field.refuse("an absolute path without `.`, `..` or a final `/`")
}

/// Writable space: paths and their sizes.
pub(super) fn writable(field: &Field<'_>) -> Option<BTreeMap<String, Bytes>> {
    let spaces = field.map_of(|size| size.bytes(SMALLEST_SPACE..=LARGEST_SPACE))?;
    for path in spaces.keys() {
        if !is_canonical(path) || path == "/" {
            field.report(
                field
                    .refusal("a map from absolute paths to sizes, such as { \"/tmp\" = \"16MiB\" }")
                    .with_label(format!("{path:?} is not such a path")),
            );
            return None;
        }
    }
    Some(spaces)
}
