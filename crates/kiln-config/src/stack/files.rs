//! Which files of a directory belong to a stack, and reading them.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::syntax::span::Sources;

/// The ending of a stack's configuration files.
pub const STACK_ENDING: &str = ".kiln.hcl";
/// The file of variables that is always read.
pub const VARIABLES_FILE: &str = "kiln.kilnvars";
/// The ending of the files of variables that are always read.
pub const AUTO_VARIABLES_ENDING: &str = ".auto.kilnvars";
/// The ending of all files of variables.
pub const VARIABLES_ENDING: &str = ".kilnvars";

/// The files of a directory that Kiln reads.
#[derive(Clone, Debug, Default)]
pub struct ConfigurationFiles {
    /// `*.kiln.hcl`, in the order of their names.
    pub stack: Vec<PathBuf>,
    /// `*.kilnvars`, in the order of their names.
    pub variables: Vec<PathBuf>,
}

impl ConfigurationFiles {
    /// Those files of variables that are read without being asked for, weakest first:
    /// `kiln.kilnvars`, then `*.auto.kilnvars` in the order of their names.
    pub fn automatic_variables(&self) -> impl Iterator<Item = &PathBuf> {
        let named = |path: &&PathBuf| path.file_name().is_some_and(|name| name == VARIABLES_FILE);
        let auto = |path: &&PathBuf| ends_with(path, AUTO_VARIABLES_ENDING);
        self.variables.iter().filter(named).chain(self.variables.iter().filter(auto))
    }
}

/// Lists the configuration files of `directory`. Hidden files and directories are left out.
pub fn configuration_files(directory: &Path) -> Result<ConfigurationFiles, Diagnostic> {
    let failed = |error: std::io::Error| {
        let summary = format!("cannot read the directory {}: {error}", directory.display());
        Diagnostic::error_without_place(summary)
            .with_help("name the stack's directory with --stack")
    };
    let mut files = ConfigurationFiles::default();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // What cannot be looked at is tried and reported when it is read.
        if hidden || fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            continue;
        }
        if ends_with(&path, STACK_ENDING) {
            files.stack.push(path);
        } else if ends_with(&path, VARIABLES_ENDING) {
            files.variables.push(path);
        }
    }
    files.stack.sort();
    files.variables.sort();
    Ok(files)
}

fn ends_with(path: &Path, ending: &str) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(ending.as_bytes()))
}

/// Reads a file as text: UTF-8, at most [`Sources::MAX_FILE_BYTES`].
pub(crate) fn read_text(path: &Path) -> Result<String, Diagnostic> {
    let failed = |cause: String| {
        Diagnostic::error_without_place(format!("cannot read {}: {cause}", path.display()))
    };
    let file = fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(Sources::MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() > Sources::MAX_FILE_BYTES {
        let most = Sources::MAX_FILE_BYTES >> 20;
        return Err(failed(format!("it is larger than {most} MiB")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        failed(format!("line {line} is not valid UTF-8"))
    })
}
