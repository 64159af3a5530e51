//! The user's book says what the code does: `docs/functions.md` names each function as it is
//! called, `docs/configuration.md` each attribute and block of the schema, and neither more.

#![allow(clippy::panic, reason = "a test program: a failed expectation is a panic")]

use std::collections::BTreeSet;

use kiln_config::function::Function;

const FUNCTIONS: &str = include_str!("../../../docs/functions.md");
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");
const SCHEMA: &str = include_str!("../src/stack/schema.rs");

/// What the evaluator or a stack adds to the table of functions.
const BUILT_IN: [&str; 8] = [
    "can(expression)",
    "debian(suite)",
    "oci(reference)",
    "oci_layout(path)",
    "scratch()",
    "tarball(path)",
    "templatefile(path, variables)",
    "try(expressions...)",
];

/// Blocks whose attributes have a table of their own, and the constants of the schema.
const BLOCKS: [(&str, &str); 21] = [
    ("stack", "STACK"),
    ("variable", "VARIABLE"),
    ("validation", "VALIDATION"),
    ("output", "OUTPUT"),
    ("image", "IMAGE"),
    ("copy", "COPY"),
    ("file", "FILE"),
    ("directory", "DIRECTORY"),
    ("symlink", "SYMLINK"),
    ("user", "USER"),
    ("group", "GROUP"),
    ("run", "RUN"),
    ("repository", "REPOSITORY"),
    ("test", "TEST"),
    ("dynamic", "DYNAMIC"),
    ("network", "NETWORK"),
    ("secret", "SECRET"),
    ("server", "SERVER"),
    ("database", "DATABASE"),
    ("endpoint", "ENDPOINT"),
    ("route", "ROUTE"),
];

#[test]
fn docs_are_current() {
    let (there, _) = FUNCTIONS.split_once("\n## What is not there").unwrap_or((FUNCTIONS, ""));
    let documented: BTreeSet<String> = first_cells(there).collect();
    let table = Function::names().filter_map(Function::find).map(Function::signature);
    let known: BTreeSet<String> = table.chain(BUILT_IN.map(str::to_owned)).collect();
    assert_eq!(difference(&known, &documented), "", "docs/functions.md");

    for (block, constant) in BLOCKS {
        let documented: BTreeSet<String> = first_cells(section(block)).collect();
        let known: BTreeSet<String> = schema(constant).collect();
        assert_eq!(difference(&known, &documented), "", "`{block}` in docs/configuration.md");
    }
}

/// What only one of two sets has, a line each.
fn difference(known: &BTreeSet<String>, documented: &BTreeSet<String>) -> String {
    let missing = known.difference(documented).map(|name| format!("not documented: {name}\n"));
    let surplus = documented.difference(known).map(|name| format!("not in the code: {name}\n"));
    missing.chain(surplus).collect()
}

/// The text in backticks that begins a row of a table, of each row.
fn first_cells(text: &str) -> impl Iterator<Item = String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`')).map(|(cell, _)| cell.to_owned())
}

/// The part of the book on a block: from its heading, which is its name, to the next one.
fn section(block: &str) -> &'static str {
    let heading = format!("## `{block}`\n");
    let (_, behind) = CONFIGURATION
        .split_once(&heading)
        .unwrap_or_else(|| panic!("docs/configuration.md has no heading {heading:?}"));
    behind.split_once("\n#").map_or(behind, |(section, _)| section)
}

/// The attributes and blocks that a constant of the schema names.
fn schema(constant: &str) -> impl Iterator<Item = String> {
    let (_, behind) = SCHEMA
        .split_once(&format!("const {constant}: Schema"))
        .unwrap_or_else(|| panic!("the schema has no {constant}"));
    let (body, _) = behind.split_once("};").unwrap_or((behind, ""));
    let lists = ["required: &[", "optional: &[", "blocks: &["];
    let names = lists.map(|list| body.split_once(list).map_or("", |(_, names)| names));
    names.into_iter().flat_map(|names| {
        let names = names.split(']').next().unwrap_or("");
        names.split('"').skip(1).step_by(2).map(str::to_owned)
    })
}
