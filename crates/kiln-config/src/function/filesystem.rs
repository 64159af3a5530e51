//! Functions on files and paths. Files are those of the stack's directory; see [`Files`].
//!
//! [`Files`]: super::Files

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::directory::FileError;
use super::glob::Glob;
use super::{Args, Failure, Function, Param, Shape};
use crate::value::{Type, Value};

const PATH: &[Param] = &[Param::new("path", Shape::String)];

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("abspath", PATH, Shape::String, abspath),
    Function::new("basename", PATH, Shape::String, |args| Ok(basename(args.text(0)?).into())),
    Function::new("dirname", PATH, Shape::String, |args| Ok(dirname(args.text(0)?).into())),
    Function::new("file", PATH, Shape::String, |args| {
        let content = String::from_utf8(read(args)?);
        content.map(Value::from).map_err(|_| {
            Failure::of(0, format!("{:?} is not UTF-8 text", args.text(0).unwrap_or_default()))
                .with_help("use filebase64 for what is not text")
        })
    }),
    Function::new("filebase64", PATH, Shape::String, |args| {
        Ok(STANDARD.encode(read(args)?).into())
    }),
    Function::new("fileexists", PATH, Shape::Bool, |args| {
        Ok(args.files().exists(args.text(0)?).map_err(failed)?.into())
    }),
    Function::new(
        "fileset",
        &[Param::new("path", Shape::String), Param::new("pattern", Shape::String)],
        Shape::StringSet,
        fileset,
    ),
    Function::new("pathexpand", PATH, Shape::String, pathexpand),
];

/// The content of the file that the first argument names.
pub(super) fn read(args: &Args<'_>) -> Result<Vec<u8>, Failure> {
    args.files().read(args.text(0)?).map_err(failed)
}

/// A file error, as the failure of a call whose first argument is the path.
pub(super) fn failed(error: FileError) -> Failure {
    let help = error.help();
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    let failure = Failure::of(0, format!("{error}{}", cause.unwrap_or_default()));
    help.into_iter().fold(failure, Failure::with_help)
}

fn fileset(args: &Args<'_>) -> Result<Value, Failure> {
    let glob = Glob::new(args.text(1)?, 1)?;
    let files = args.files().list(args.text(0)?).map_err(failed)?;
    let matching = files.into_iter().filter(|path| glob.matches(path)).map(Value::from);
    Ok(Value::set(Type::String, matching.collect()))
}

/// What is behind the last slash.
fn basename(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path, trimmed) {
        ("", _) => ".",
        (_, "") => "/",
        (_, trimmed) => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// What is in front of the last slash, made plain.
fn dirname(path: &str) -> String {
    clean(path.rfind('/').map_or("", |slash| &path[..=slash]))
}

/// The shortest path of the same meaning.
fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

fn abspath(args: &Args<'_>) -> Result<Value, Failure> {
    let path = args.text(0)?;
    if path.starts_with('/') {
        return Ok(clean(path).into());
    }
    Err(Failure::of(0, "an absolute path would make the plan depend on where the stack lies")
        .with_help("paths of files are relative to the stack's directory already"))
}

fn pathexpand(args: &Args<'_>) -> Result<Value, Failure> {
    let path = args.text(0)?;
    if path.starts_with('~') {
        return Err(Failure::of(0, "a home directory would make the plan depend on who makes it")
            .with_help("copy the file into the stack's directory"));
    }
    Ok(path.into())
}
