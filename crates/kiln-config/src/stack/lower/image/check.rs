//! `test` blocks: what must hold before an image is admitted.

use std::collections::BTreeMap;

use kiln_model::quantity::{Bytes, Millis};
use kiln_model::spec::image::{Check, ImageTest};

use super::account;
use super::steps::{command, environment, mode};
use crate::diagnostic::Diagnostic;
use crate::stack::decode::Field;
use crate::stack::lower::Reader;
use crate::stack::lower::paths::{absolute_path, writable};
use crate::stack::lower::probe::{http_path, http_status, missing};

/// How long a test may take where nothing is said.
const DEFAULT_DEADLINE: Millis = Millis::seconds(30);
const LONGEST_DEADLINE: Millis = Millis::seconds(3600);
/// The memory of an instance that is tested, where nothing is said.
const DEFAULT_MEMORY: Bytes = Bytes::mib(512);
const MIN_MEMORY: Bytes = Bytes::mib(1);
const MAX_MEMORY: Bytes = Bytes(1 << 50);

/// The attributes that stand for a check.
const CHECKS: &[&str] =
    &["http", "tcp", "exec", "file", "no_such_file", "port_closed", "log_contains", "stays_up"];

pub(super) fn test(reader: &Reader<'_>, name: &str) -> Option<ImageTest> {
    let checks = checks(reader);
    let deadline = reader.read_or("deadline", DEFAULT_DEADLINE, |field| {
        field.millis(Millis(100)..=LONGEST_DEADLINE)
    });
    let env = reader.read_or("env", BTreeMap::new(), environment);
    let command = reader.read("command", command);
    let writable = reader.read_or("writable", BTreeMap::new(), writable);
    let memory = reader.read_or("memory", DEFAULT_MEMORY, |f| f.bytes(MIN_MEMORY..=MAX_MEMORY));
    Some(ImageTest {
        name: name.to_owned(),
        checks: checks?,
        deadline: deadline?,
        env: env?,
        command: command.ok()?,
        writable: writable?,
        memory: memory?,
    })
}

/// Every check of the block, at least one.
fn checks(reader: &Reader<'_>) -> Option<Vec<Check>> {
    let mut checks = Vec::new();
    let mut complete = true;
    for name in CHECKS {
        match reader.read(name, |field| several(field, name)) {
            Ok(found) => checks.extend(found.into_iter().flatten()),
            Err(_) => complete = false,
        }
    }
    if complete && checks.is_empty() {
        let diagnostic = Diagnostic::error(reader.header, "this test checks nothing")
            .with_label(format!("expected one or more of {}", CHECKS.join(", ")));
        reader.world.report(diagnostic);
        return None;
    }
    complete.then_some(checks)
}

/// The checks of one attribute: one, or a list of them.
fn several(field: &Field<'_>, name: &str) -> Option<Vec<Check>> {
    let listed = field.value().as_elements().is_some();
    if !listed {
        return Some(vec![check(field, name)?]);
    }
    let read: Vec<Option<Check>> =
        field.elements()?.iter().map(|element| check(element, name)).collect();
    read.into_iter().collect()
}

fn check(field: &Field<'_>, name: &str) -> Option<Check> {
    match name {
        "http" => http(field),
        "tcp" => port(field).map(|port| Check::Tcp { port }),
        "exec" => exec(field),
        "file" => file(field),
        "no_such_file" => absolute_path(field).map(|path| Check::NoSuchFile { path }),
        "port_closed" => port(field).map(|port| Check::PortClosed { port }),
        "log_contains" => field.string().map(|text| Check::LogContains { text }),
        _ => field.millis(Millis(1)..=LONGEST_DEADLINE).map(|time| Check::StaysUp { time }),
    }
}

/// A port, alone or as `{ port = … }`.
fn port(field: &Field<'_>) -> Option<u16> {
    if field.value().as_entries().is_none() {
        return field.port();
    }
    let settings = field.settings(&["port"])?;
    match settings.get("port") {
        Some(port) => port.port(),
        None => missing(field, "port"),
    }
}

fn http(field: &Field<'_>) -> Option<Check> {
    let settings = field.settings(&["port", "path", "status", "contains"])?;
    let port = match settings.get("port") {
        Some(port) => port.port(),
        None => missing(field, "port"),
    };
    let path = settings.read_or("path", "/".to_owned(), http_path);
    let status = settings.read_or("status", None, http_status);
    let contains = settings.read_or("contains", None, |f| f.string().map(Some));
    Some(Check::Http { port: port?, path: path?, status: status?, contains: contains? })
}

fn exec(field: &Field<'_>) -> Option<Check> {
    let settings = field.settings(&["command", "status", "contains"])?;
    let command = match settings.get("command") {
        Some(found) => command(found),
        None => missing(field, "command"),
    };
    let status = settings.read_or("status", 0, |f| f.integer(0..=255));
    let contains = settings.read_or("contains", None, |f| f.string().map(Some));
    Some(Check::Exec { command: command?, status: status?, contains: contains? })
}

/// A path alone, or what is at it.
fn file(field: &Field<'_>) -> Option<Check> {
    if field.value().as_entries().is_none() {
        let path = absolute_path(field)?;
        return Some(Check::File { path, contains: None, mode: None, owner: None });
    }
    let settings = field.settings(&["path", "contains", "mode", "owner"])?;
    let path = match settings.get("path") {
        Some(path) => absolute_path(path),
        None => missing(field, "path"),
    };
    let contains = settings.read_or("contains", None, |f| f.string().map(Some));
    let mode = settings.read_or("mode", None, |f| mode(f).map(Some));
    let owner = settings.read_or("owner", None, |f| {
        account(f, "a user, or user:group, by name or number").map(Some)
    });
    Some(Check::File { path: path?, contains: contains?, mode: mode?, owner: owner? })
}
