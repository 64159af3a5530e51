//! Expressions against Terraform: the tables in `tests/terraform/` hold what `terraform console`
//! (1.11.4) prints for each.
//!
//! Line breaks are written as `␤`, and `error` stands for any error.
//!
//! - `agree.tsv`: expressions and Terraform's output;
//! - `composed.tsv`: the same, put together at random;
//! - `differ.tsv`: where Kiln departs on purpose: expression, Terraform's output, Kiln's, reason;
//! - `constraints.tsv`: the type of a variable, the value that it is given, what it is then;
//! - `templates.tsv`: the text of a template file and what it yields.

mod console;

use console::Console;

const AGREE: &str = include_str!("terraform/agree.tsv");
const CONSTRAINTS: &str = include_str!("terraform/constraints.tsv");
const COMPOSED: &str = include_str!("terraform/composed.tsv");
const TEMPLATES: &str = include_str!("terraform/templates.tsv");
const DIFFER: &str = include_str!("terraform/differ.tsv");

fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().filter(|line| !line.is_empty()).map(|line| line.split('\t').collect())
}

#[test]
fn expressions_print_what_terraform_prints() {
    let console = Console::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows(AGREE).chain(rows(COMPOSED)) {
        let [expression, expected] = row[..] else { panic!("a row of two columns: {row:?}") };
        let found = console.print(expression);
        if found != expected {
            wrong.push(format!("{expression}\n  terraform: {expected}\n  kiln:      {found}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 300, "the table has shrunk to {count} expressions");
}

#[test]
fn variables_take_their_types_as_in_terraform() {
    let console = Console::new();
    for row in rows(CONSTRAINTS) {
        let [constraint, given, expected] = row[..] else {
            panic!("a row of three columns: {row:?}")
        };
        let found = console.print_as(constraint, given);
        assert_eq!(found, expected, "type = {constraint}, default = {given}");
    }
}

#[test]
fn template_files_yield_what_they_yield_in_terraform() {
    const VARIABLES: &str =
        r#"{ xs = ["a", "b"], n = 2, m = { k = "v", l = "w\"x" }, host = "h" }"#;
    let console = Console::new();
    for row in rows(TEMPLATES) {
        let [template, expected] = row[..] else { panic!("a row of two columns: {row:?}") };
        console.write("t.tftpl", &template.replace('␤', "\n"));
        let found = console.print(&format!("templatefile(\"t.tftpl\", {VARIABLES})"));
        assert_eq!(found, expected, "{template}");
    }
}

#[test]
fn differences_are_those_that_are_meant() {
    let console = Console::new();
    for row in rows(DIFFER) {
        let [expression, terraform, kiln, reason] = row[..] else {
            panic!("a row of four columns: {row:?}")
        };
        assert_eq!(console.print(expression), kiln, "{expression}");
        assert_ne!(terraform, kiln, "{expression} no longer differs");
        assert!(!reason.is_empty(), "{expression}");
    }
}
