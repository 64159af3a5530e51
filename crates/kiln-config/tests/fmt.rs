//! The formatter: its form, that it is stable, and that it keeps the meaning.

use std::path::Path;

use kiln_config::diagnostic::Diagnostics;
use kiln_config::fmt::{fmt_dir, format};
use kiln_config::syntax::parse_body;
use kiln_config::syntax::span::FileId;
use proptest::prelude::*;

const UNTIDY: &str = r#"

# the web
server   "web"   {
image=image.web   # which
      connects = [ server.api,server.db ,] // whom
	memory="128MiB"


  env={
   A = "x${ a+b }"
  LONGER  :   f( 1 ,-2,! c )
    B="y" /* z */
  }
  text = <<-EOT
      kept as it is
    EOT
  health = {http={port=8080,path="/"},every="1s"}
  list = concat([for k,v in m:k if v!=null],[
    {
    a=1
    }, {
    b = x [ * ].y...
    } ] )

}
variable "a" {default=1}
variable "b" {}
"#;

const TIDY: &str = r#"# the web
server "web" {
  image    = image.web                # which
  connects = [server.api, server.db,] // whom
  memory   = "128MiB"

  env = {
    A = "x${ a+b }"
    LONGER : f(1, -2, !c)
    B = "y" /* z */
  }
  text = <<-EOT
      kept as it is
    EOT
  health = { http = { port = 8080, path = "/" }, every = "1s" }
  list = concat([for k, v in m : k if v != null], [
    {
      a = 1
    }, {
      b = x[*].y
  }])
}
variable "a" { default = 1 }
variable "b" {}
"#;

#[test]
fn the_canonical_form() {
    let untidy = UNTIDY.replace("y...", "y").replace("} ] )", "}])");
    let formatted = format(Path::new("x"), &untidy).expect("it parses");
    assert_eq!(formatted, TIDY, "\n{formatted}");
    assert_eq!(format(Path::new("x"), TIDY).expect("it parses"), TIDY);
}

#[test]
fn what_cannot_be_read_is_reported_and_not_formatted() {
    let report = format(Path::new("x.kiln.hcl"), "a = \nb = [\n").expect_err("it does not parse");
    assert_eq!(report.diagnostics.len(), 2, "{report}");
}

#[test]
fn a_directory_is_formatted_and_files_are_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.kiln.hcl");
    std::fs::write(&path, "a=1\n").expect("written");
    std::fs::write(dir.path().join("kiln.kilnvars"), "b = 2\n").expect("written");
    let formatted = fmt_dir(dir.path()).expect("they parse");
    let changed: Vec<bool> =
        formatted.iter().map(kiln_config::fmt::Formatted::is_changed).collect();
    assert_eq!(changed, [true, false]);
    formatted[0].write().expect("written");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "a = 1\n");
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 2);
}

/// The tree without its places.
fn tree(text: &str) -> Option<String> {
    let mut diagnostics = Diagnostics::new();
    let body = parse_body(FileId(0), text, &mut diagnostics);
    if diagnostics.has_errors() {
        return None;
    }
    let text = format!("{body:?}");
    let mut out = String::new();
    for (index, part) in text.split("Span { ").enumerate() {
        out.push_str(if index == 0 { part } else { part.split_once('}').map_or("", |p| p.1) });
    }
    Some(out)
}

fn expr() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "2.5",
        "a",
        "\"x\"",
        "\"a${ b }c\"",
        "true",
        "null",
        "a.b",
        "a[*].c",
        "a.0",
        "1 .0",
        "f(<<E\n  x ${y}\nE\n)",
        "a.*.b",
        "- 1",
        "! a",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 4, |inner| {
        let gap = prop::sample::select(vec!["", " ", "\n", "  ", " # note\n", "/* c */"]);
        let list = prop::collection::vec((inner.clone(), gap.clone()), 0..4);
        prop_oneof![
            (inner.clone(), gap.clone(), inner.clone())
                .prop_map(|(a, g, b)| format!("({a}{g}+ {b})")),
            (inner.clone(), inner.clone(), gap.clone())
                .prop_map(|(a, b, g)| format!("({a}?{b} :{g}{b})")),
            list.clone().prop_map(|items| {
                format!(
                    "[{}]",
                    items.iter().map(|(i, g)| format!("{g}{i}{g},")).collect::<Vec<_>>().concat()
                )
            }),
            list.prop_map(|items| {
                format!(
                    "f ({})",
                    items.iter().map(|(i, g)| format!("{i}{g},")).collect::<Vec<_>>().concat()
                )
            }),
            (inner.clone(), gap).prop_map(|(i, g)| format!("{{ a={i},{g}\"b\" : {i}\n(c)={i}}}")),
            inner.clone().prop_map(|i| format!("{{for k,v in {i}:k=>v...if {i}}}")),
            inner.prop_map(|i| format!("-{i}[ {i} ]")),
        ]
    })
}

fn document() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec!["a", "bb", "ccc_c", "d-d", "eeeeee"]);
    let item = (names, expr(), 0_usize..6, any::<bool>());
    prop::collection::vec(item, 0..8).prop_map(|items| {
        let mut out = String::new();
        for (index, (name, expr, style, gap)) in items.iter().enumerate() {
            let name = format!("{name}{index}");
            let text = match style {
                0 => format!("{name}={expr}"),
                1 => format!("   {name}   = {expr} # why"),
                2 => format!("{name} \"l\"  {{\n\n x={expr}\n yy =1\n\n}}"),
                3 => format!("{name}  {{x={expr}}}"),
                4 => format!("{name} = <<-E\n   a\n  ${{ {name} }}  \n\tE"),
                _ => format!("/* before */ {name} = {expr}// c"),
            };
            out.push_str(&text);
            out.push_str(if *gap { "\n\n\n" } else { "\r\n" });
        }
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn formatting_is_stable_and_keeps_the_meaning(text in document()) {
        let before = tree(&text);
        prop_assert!(before.is_some(), "{}", text);
        if let Some(before) = before {
            let once = format(Path::new("x"), &text).expect("it parses");
            prop_assert_eq!(tree(&once), Some(before), "{}", once);
            let twice = format(Path::new("x"), &once).expect("it parses");
            prop_assert_eq!(twice, once);
        }
    }
}
