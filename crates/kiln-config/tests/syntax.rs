//! The parser: what trees it makes, what it reports, and that nothing makes it panic.

use kiln_config::diagnostic::Diagnostics;
use kiln_config::syntax::ast::{
    Body, Expr, ExprKind, ForResult, MAX_EXPR_HEIGHT, Template, TemplatePart,
};
use kiln_config::syntax::span::FileId;
use kiln_config::syntax::{parse_body, parse_expr, parse_template};

const FILE: FileId = FileId(0);

/// The tree as text: prefix form, so that grouping shows.
fn show(expr: &Expr) -> String {
    let list = |items: &[Expr]| items.iter().map(show).collect::<Vec<_>>().join(" ");
    match &expr.kind {
        ExprKind::Error => "<error>".into(),
        ExprKind::Null => "null".into(),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Number(text) => text.to_string(),
        ExprKind::String(text) => format!("{text:?}"),
        ExprKind::Template(template) => show_template(template),
        ExprKind::Variable(name) => name.to_string(),
        ExprKind::SplatItem => "@".into(),
        ExprKind::GetAttr(get) => format!("(. {} {})", show(&get.source), get.name.name),
        ExprKind::Index(index) => format!("(at {} {})", show(&index.source), show(&index.key)),
        ExprKind::Splat(splat) => format!("(* {} {})", show(&splat.source), show(&splat.each)),
        ExprKind::Call(call) => {
            let dots = if call.expand_last { "..." } else { "" };
            format!("({} {}{dots})", call.name.name, list(&call.args))
        }
        ExprKind::Tuple(items) => format!("[{}]", list(items)),
        ExprKind::Object(items) => {
            let items = items.iter().map(|i| format!("{}={}", show(&i.key), show(&i.value)));
            format!("{{{}}}", items.collect::<Vec<_>>().join(" "))
        }
        ExprKind::For(each) => {
            let key = each.key.as_ref().map_or(String::new(), |key| format!("{},", key.name));
            let result = match &each.result {
                ForResult::Tuple(value) => show(value),
                ForResult::Object { key, value, group } => {
                    format!("{}=>{}{}", show(key), show(value), if *group { "..." } else { "" })
                }
            };
            let condition = each.condition.as_ref().map_or("-".into(), show);
            let collection = show(&each.collection);
            format!("(for {key}{} {collection} {result} {condition})", each.value.name)
        }
        ExprKind::Conditional(c) => {
            format!("(? {} {} {})", show(&c.condition), show(&c.then), show(&c.otherwise))
        }
        ExprKind::Unary(op, operand) => format!("({op:?} {})", show(operand)),
        ExprKind::Binary(b) => format!("({:?} {} {})", b.op, show(&b.left), show(&b.right)),
    }
}

fn show_template(template: &Template) -> String {
    let parts = template.parts.iter().map(|part| match part {
        TemplatePart::Literal(text, _) => format!("{text:?}"),
        TemplatePart::Interpolation(expr) => show(expr),
        TemplatePart::If { condition, then, otherwise, .. } => {
            let (then, otherwise) = (show_template(then), show_template(otherwise));
            format!("(if {} {then} {otherwise})", show(condition))
        }
        TemplatePart::For { value, collection, body, .. } => {
            format!("(each {} {} {})", value.name, show(collection), show_template(body))
        }
    });
    format!("<{}>", parts.collect::<Vec<_>>().join(" "))
}

fn expr(text: &str) -> String {
    let mut diagnostics = Diagnostics::new();
    let expr = parse_expr(FILE, text, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{text}: {diagnostics:?}");
    show(&expr)
}

fn body(text: &str) -> (Body, Vec<String>) {
    let mut diagnostics = Diagnostics::new();
    let body = parse_body(FILE, text, &mut diagnostics);
    (body, diagnostics.iter().map(|diagnostic| diagnostic.summary.clone()).collect())
}

fn attribute(text: &str) -> String {
    let (body, errors) = body(text);
    assert!(errors.is_empty(), "{text}: {errors:?}");
    show(&body.attributes[0].expr)
}

#[test]
fn operators_group_by_precedence_and_to_the_left() {
    assert_eq!(expr("1 + 2 * 3 - 4"), "(Subtract (Add 1 (Multiply 2 3)) 4)");
    assert_eq!(expr("!a && b || c == d"), "(Or (And (Not a) b) (Equal c d))");
    assert_eq!(expr("a < 1 == b >= 2"), "(Equal (Less a 1) (GreaterOrEqual b 2))");
    assert_eq!(expr("-(1 + 2) % 3"), "(Remainder (Negate (Add 1 2)) 3)");
    assert_eq!(expr("a ? b : c ? d : e"), "(? a b (? c d e))");
}

#[test]
fn references_splats_and_indexes() {
    assert_eq!(expr("server.web[\"a\"].address"), "(. (at (. server web) \"a\") address)");
    assert_eq!(expr("a.0.1.b"), "(. (at (at a 0) 1) b)");
    assert_eq!(expr("a[*].b[0]"), "(* a (at (. @ b) 0))");
    assert_eq!(expr("a.*.b[0]"), "(at (* a (. @ b)) 0)");
    assert_eq!(expr("a[*].b[*].c"), "(* a (* (. @ b) (. @ c)))");
    assert_eq!(expr("f(a, b...).c"), "(. (f a b...) c)");
}

#[test]
fn collections_and_for_expressions() {
    assert_eq!(expr("[1, 2,\n 3,]"), "[1 2 3]");
    assert_eq!(
        expr("{ a = 1, \"b\" : 2\n (c) = 3\n\n true = 4 }"),
        r#"{"a"=1 "b"=2 c=3 "true"=4}"#
    );
    assert_eq!(expr("[for v in l : v if v != null]"), "(for v l v (NotEqual v null))");
    assert_eq!(expr("{\n for k, v in m : k => v... }"), "(for k,v m k=>v... -)");
    assert_eq!(expr("{ for = 1 }"), "{\"for\"=1}");
}

#[test]
fn strings_templates_and_escapes() {
    assert_eq!(expr(r#""a\n\"\u00e9\\""#), r#""a\n\"é\\""#);
    assert_eq!(expr(r#""$${a} %%{b} $ % $$""#), r#""${a} %{b} $ % $$""#);
    assert_eq!(expr(r#""${a}""#), "<a>");
    assert_eq!(expr(r#""x${"y${z}"}""#), r#"<"x" <"y" z>>"#);
    assert_eq!(expr(r#""a ${~ b ~} c""#), r#"<"a" b "c">"#);
    assert_eq!(expr(r#""%{ if a }b%{ else }c%{ endif }""#), r#"<(if a <"b"> <"c">)>"#);
}

#[test]
fn heredocs_keep_or_lose_their_indentation() {
    assert_eq!(attribute("a = <<E\n  x\n y${z}\nE\n"), r#"<"  x\n y" z "\n">"#);
    assert_eq!(attribute("a = <<-E\n    x\n\n      y\n  E\n"), r#""x\n\n  y\n""#);
    assert_eq!(attribute("a = <<-E\n  ${x}\n    y\n  E\n"), r#"<x "\n  y\n">"#);
    assert_eq!(attribute("a = <<E\nE\n"), r#""""#);
    assert_eq!(attribute("a = <<E\n\\n \"q\"\nE"), r#""\\n \"q\"\n""#);
}

#[test]
fn trims_reach_to_the_end_of_the_line() {
    let mut diagnostics = Diagnostics::new();
    let text = "a:\n%{ for u in us ~}\n  - ${u}\n%{ endfor ~}\nb\n";
    let template = parse_template(FILE, text, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    assert_eq!(show(&template), r#"<"a:\n" (each u us <"  - " u "\n">) "b\n">"#);
}

#[test]
fn blocks_have_labels_and_nest() {
    let (body, errors) = body("image web \"x\" {\n copy \"a\" { to = 1 }\n y = 2\n}\nz = 3\n");
    assert_eq!(errors, [""; 0]);
    let block = &body.blocks[0];
    assert_eq!((&*block.kind.name, block.labels.len()), ("image", 2));
    assert_eq!(&*block.body.blocks[0].labels[0].name, "a");
    assert_eq!((block.body.attributes.len(), body.attributes.len()), (1, 1));
}

#[test]
fn every_mistake_is_reported_once_and_reading_goes_on() {
    let text = "a = \nserver \"x\" {\n  b = [1 2,\n    3]\n  c = 4\n  d = {\n    e = = 1\n  }\n  f = f(\n\
                \x20 g = \"${1 +}\"\n}\nh = 1\nh = 2\ni : 3\nj = \"x\nk = 'y'\nl = 1 m = 2\n}\nz = 9\n";
    let (body, errors) = body(text);
    let expected = [
        "unexpected end of the line",
        "unexpected `2`",
        "unexpected `=`",
        "unexpected `=`",
        "unexpected `}`",
        "unexpected `:`",
        "this string is not closed",
        "unexpected character `'`",
        "unexpected `m`",
        "unexpected `}`",
        "`h` is set twice",
    ];
    assert_eq!(errors, expected);
    let names: Vec<_> = body.blocks[0].body.attributes.iter().map(|a| &*a.name.name).collect();
    assert_eq!(names, ["b", "c", "d", "f", "g"]);
    assert_eq!(&*body.attributes.last().unwrap().name.name, "z");
}

#[test]
fn what_is_not_closed_is_told_where_it_opens() {
    for (text, summary) in [
        ("a {\n b = 1\n", "this block is not closed"),
        ("a {\n b {\n", "this block is not closed"),
        ("a = <<E\nx\n", "this heredoc is not closed"),
        ("a = /* x", "this comment is not closed"),
        ("a = \"%{ if x }y\"", "this directive is not closed"),
        ("a = \"%{ endif }\"", "unexpected `endif`"),
        ("a = \"${x", "unexpected end of the file"),
    ] {
        assert_eq!(body(text).1, [summary], "{text}");
    }
}

#[test]
fn depth_is_bounded_and_told() {
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("[", "", "]"),
        ("{a=", "1", "}"),
        ("f(", "1", ")"),
        ("-", "1", ""),
        ("a[", "1", "]"),
        ("\"${", "1", "}\""),
        ("a ? ", "b", " : c"),
        ("[for x in ", "y", " : x]"),
        ("\"%{if x}", "y", "%{endif}\""),
        ("", "1", "+1"),
        ("", "a", ".b"),
        ("a[*]", "", ".b"),
        ("%{for x in y}", "", "%{endfor}"),
    ] {
        let text = format!("{}{inner}{}", open.repeat(20_000), close.repeat(20_000));
        let mut diagnostics = Diagnostics::new();
        let expr = parse_expr(FILE, &text, &mut diagnostics);
        assert!(expr.height() <= MAX_EXPR_HEIGHT);
        assert!(!diagnostics.is_empty(), "{open}");
        let template = parse_template(FILE, &text, &mut diagnostics);
        assert!(template.height() <= MAX_EXPR_HEIGHT);
    }
    assert_eq!(body(&"a {\n".repeat(20_000)).1[0], "nested too deeply");
}

mod fuzz {
    //! Random text, and text put together of what the grammar knows.

    use super::{FILE, parse_body, parse_expr, parse_template};
    use kiln_config::diagnostic::{Diagnostics, Report};
    use kiln_config::syntax::span::Sources;
    use proptest::prelude::*;

    const PIECES: &[&str] = &[
        "a",
        "b1",
        "for",
        "in",
        "if",
        "true",
        "null",
        "1",
        "2.5e3",
        "\"",
        "\"x\"",
        "${",
        "%{",
        "~}",
        "}",
        "{",
        "[",
        "]",
        "(",
        ")",
        "[*]",
        ".*",
        ".",
        ",",
        "...",
        "=",
        "=>",
        "==",
        ":",
        "?",
        "+",
        "-",
        "*",
        "/",
        "%",
        "!",
        "&&",
        "||",
        "<",
        "<<E\n",
        "<<-E\n",
        "\nE\n",
        "\n",
        "\r\n",
        " ",
        "  ",
        "\\",
        "\\u12",
        "#",
        "//",
        "/*",
        "*/",
        "é",
        "€",
        "\u{feff}",
        "'",
        ";",
        "endif",
        "else",
        "endfor",
        "$${",
        "server \"w\" {\n",
        "x = ",
        "\t",
        "\r",
        "~",
        "0.1",
    ];

    fn parse_all(text: &str) {
        let mut sources = Sources::default();
        assert_eq!(sources.add("x", text), FILE);
        let mut diagnostics = Diagnostics::new();
        parse_body(FILE, text, &mut diagnostics);
        parse_expr(FILE, text, &mut diagnostics);
        parse_template(FILE, text, &mut diagnostics);
        for diagnostic in &diagnostics {
            let span = diagnostic.span.expect("messages of the parser have a place");
            assert!(span.start <= span.end && span.end as usize <= text.len(), "{diagnostic:?}");
        }
        let rendered = Report { sources, diagnostics }.render(true);
        assert!(rendered.len() < (1 << 20));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn pieces_of_the_grammar_never_panic(pieces in prop::collection::vec(
            prop::sample::select(PIECES), 0..60)) {
            parse_all(&pieces.concat());
        }

        #[test]
        fn random_text_never_panics(text in "\\PC{0,80}") {
            parse_all(&text);
        }
    }
}
