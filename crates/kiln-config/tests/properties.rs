//! Properties of numbers, conversions and the evaluator, on random input.

mod console;

use std::sync::Arc;

use console::Console;
use kiln_config::eval::constraint::parse_constraint;
use kiln_config::function::Function;
use kiln_config::syntax::parse_expr;
use kiln_config::syntax::span::Sources;
use kiln_config::value::convert::convert;
use kiln_config::value::{Number, Type, Value};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn decimal() -> impl Strategy<Value = String> {
    ("-?[0-9]{1,40}(\\.[0-9]{1,40})?(e-?[0-9]{1,2})?").prop_map(String::from)
}

fn primitive() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::null()),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        decimal().prop_map(|text| Value::from(text.parse::<Number>().expect("a number"))),
        "[a-z0-9 é\n]{0,8}".prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    primitive().prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::tuple),
            btree_map("[a-c]".prop_map(Arc::from), inner, 0..4).prop_map(Value::object),
        ]
    })
}

fn ty() -> impl Strategy<Value = Type> {
    let leaf =
        prop_oneof![Just(Type::Any), Just(Type::Bool), Just(Type::Number), Just(Type::String)];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(Type::list),
            inner.clone().prop_map(Type::set),
            inner.clone().prop_map(Type::map),
            vec(inner.clone(), 0..3).prop_map(|types| Type::Tuple(types.into())),
            btree_map("[a-c]".prop_map(Arc::from), inner, 0..3)
                .prop_map(|types| Type::Object(Arc::new(types))),
        ]
    })
}

/// Text that is often an expression.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        decimal(),
        "\"[a-z%$\\{\\}~ ]{0,6}\"".prop_map(String::from),
        prop::sample::select(vec!["null", "true", "later", "known", "secret", "[]", "{}", "x"])
            .prop_map(String::from),
    ];
    let mut names: Vec<&str> = Function::names().collect();
    names.sort_unstable();
    leaf.prop_recursive(4, 40, 4, move |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "<", "&&", "||"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            (inner.clone(), inner.clone()).prop_map(|(k, v)| format!("{{({k}) = {v}}}")),
            (prop::sample::select(names.clone()), vec(inner.clone(), 0..4))
                .prop_map(|(name, args)| format!("{name}({})", args.join(", "))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            inner.clone().prop_map(|a| format!("{a}[*].x")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[for x in {a} : {b}]")),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| format!("{{for x in {a} : x => {b}...}}")),
            inner.clone().prop_map(|a| format!("\"<${{{a}}}>\"")),
            inner.prop_map(|a| format!("try({a}, can({a}))")),
        ]
    })
}

proptest! {
    #[test]
    fn numbers_survive_being_printed(text in decimal()) {
        let number: Number = text.parse().expect("a number");
        let again: Number = number.to_string().parse().expect("what is printed is a number");
        prop_assert_eq!(&again, &number);
        prop_assert_eq!(again.to_string(), number.to_string());
        let exact: Number = number.to_exact_string().parse().expect("so are all digits");
        prop_assert_eq!(exact, number);
    }

    #[test]
    fn doubles_survive_being_printed(double in -1e300..1e300_f64) {
        let number = Number::from_f64(double).expect("finite");
        let again: f64 = number.to_string().parse().expect("a double");
        prop_assert_eq!(again.to_bits(), double.to_bits());
        prop_assert_eq!(number.to_f64().to_bits(), double.to_bits());
    }

    #[test]
    fn arithmetic_keeps_its_laws(a in decimal(), b in decimal()) {
        let (a, b): (Number, Number) = (a.parse().expect("a"), b.parse().expect("b"));
        prop_assert_eq!(a.add(&b), b.add(&a));
        prop_assert_eq!(a.mul(&b), b.mul(&a));
        prop_assert_eq!(a.sub(&b), b.sub(&a).and_then(|difference| difference.neg()));
        let (floor, ceil) = (a.floor().expect("floor"), a.ceil().expect("ceil"));
        prop_assert!(floor <= a && a <= ceil && floor.is_whole() && ceil.is_whole());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    }

    #[test]
    fn integers_are_exact(a in any::<i64>(), b in any::<i64>()) {
        let exact = |text: String| text.parse::<Number>().expect("an integer");
        let (x, y) = (Number::from(a), Number::from(b));
        let (a, b) = (i128::from(a), i128::from(b));
        prop_assert_eq!(x.add(&y).expect("sum").to_string(), (a + b).to_string());
        prop_assert_eq!(x.mul(&y).expect("product"), exact((a * b).to_string()));
        if b != 0 {
            prop_assert_eq!(x.rem(&y).expect("remainder"), exact((a % b).to_string()));
        }
    }

    #[test]
    fn conversion_is_idempotent_and_yields_the_type(value in value(), ty in ty()) {
        if let Ok(once) = convert(&value, &ty) {
            let twice = convert(&once, &ty).expect("what was converted converts again");
            prop_assert_eq!(&twice, &once);
            if ty.is_whole() {
                prop_assert_eq!(once.ty(), ty);
            }
        }
    }

    #[test]
    fn unified_values_are_of_the_unified_type(values in vec(value(), 0..4)) {
        let types: Vec<Type> = values.iter().map(Value::ty).collect();
        if let Some(ty) = Type::unify(&types) {
            for value in &values {
                // Null where a value of another type stands is the only thing left to `any`.
                let converted = convert(value, &ty).expect("a unified type takes all");
                prop_assert!(!ty.is_whole() || converted.ty() == ty);
            }
        }
    }

    #[test]
    fn json_and_yaml_yield_again_what_was_written(value in value()) {
        let console = Console::new();
        let call = |name: &str, value: &Value| {
            let function = Function::find(name).expect("a function");
            console.with_files(|files| function.call(vec![value.clone()], files))
        };
        let json = call("jsondecode", &call("jsonencode", &value).expect("json")).expect("a value");
        prop_assert_eq!(&json, &value);
        let yaml = call("yamldecode", &call("yamlencode", &value).expect("yaml")).expect("a value");
        prop_assert_eq!(&yaml, &value);
    }

    #[test]
    fn types_are_read_again_as_they_are_printed(ty in ty()) {
        let text = ty.to_string();
        let mut sources = Sources::default();
        let file = sources.add("type", text.as_str());
        let mut diagnostics = kiln_config::diagnostic::Diagnostics::new();
        let expr = parse_expr(file, &text, &mut diagnostics);
        let read = Console::new().with(|environment| parse_constraint(&expr, environment));
        prop_assert_eq!(read.expect("a type").ty(), ty);
    }

    #[test]
    fn no_expression_panics(text in expression()) {
        let mut console = Console::new();
        let reason = kiln_config::value::Reason::new("not yet");
        let secret = kiln_config::value::SecretVersion { secret: "s".into(), version: "1".into() };
        console.variables.extend([
            ("known".into(), Value::from("k")),
            ("later".into(), Value::unknown(Type::Any, reason)),
            ("secret".into(), Value::secret(kiln_config::value::SecretText::new(secret))),
        ]);
        if let Ok(value) = console.evaluate(&text) {
            let printed = value.to_string();
            prop_assert!(!printed.is_empty());
        }
    }
}
