//! Which build of the program runs: told by its file, without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;

static OWN: LazyLock<String> =
    LazyLock::new(|| build_of(Path::new("/proc/self/exe")).unwrap_or_default());

/// What tells this process's program from others. Empty where it cannot be told.
pub(crate) fn build() -> &'static str {
    &OWN
}

/// What tells the program in a file from others: another file, or another time of writing, is
/// another build. `None` where there is no such file.
pub fn build_of(exe: &Path) -> Option<String> {
    let file = fs::metadata(exe).ok()?;
    Some(format!(
        "{}-{}-{}-{}.{:09}",
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec()
    ))
}
