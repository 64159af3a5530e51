//! What the language has beyond Terraform's console: values that are not known yet, secrets,
//! components, files, and errors at their places.

mod console;

use console::Console;
use kiln_config::eval::{Evaluated, Reference, Resolved, Scope, with_large_stack};
use kiln_config::function::Failure;
use kiln_config::syntax::ast::Ident;
use kiln_config::value::secret::{SecretPart, SecretText};
use kiln_config::value::{Component, Data, Reason, SecretVersion, Type, Value};

const UNKNOWN: &str = "no lock yet";

fn console() -> Console {
    let mut console = Console::new();
    let secret = SecretVersion { secret: "orders".into(), version: "v1".into() };
    let web = Component { kind: "server".into(), name: "web".into(), instance: None };
    console.variables.extend([
        ("known".into(), Value::from("k")),
        ("later".into(), Value::unknown(Type::String, Reason::new(UNKNOWN))),
        ("anything".into(), Value::unknown(Type::Any, Reason::new(UNKNOWN))),
        ("hidden".into(), Value::from("h").with_sensitive(true)),
        ("secret".into(), Value::secret(SecretText::new(secret))),
        ("web".into(), Value::component(web)),
    ]);
    console
}

/// The parts of text with a secret in it, as `[secret]` within the text.
fn parts(value: &Value) -> String {
    let Data::Secret(text) = value.data() else { return format!("no secret: {value:?}") };
    let part = |part: &SecretPart| match part {
        SecretPart::Literal(text) => text.to_string(),
        SecretPart::Secret(version, escapes) => {
            format!("[{} {} {escapes:?}]", version.secret, version.version)
        }
    };
    text.parts().iter().map(part).collect()
}

fn errors(console: &Console, expression: &str) -> Vec<String> {
    let errors = console.evaluate(expression).expect_err(expression);
    errors.iter().map(|error| error.summary.clone()).collect()
}

#[test]
fn unknown_values_propagate_with_their_reason() {
    let console = console();
    for expression in [
        "\"x-${later}\"",
        "upper(later)",
        "join(\",\", [\"a\", later])",
        "later == \"x\"",
        "later ? 1 : 2",
        "[for x in anything : x]",
        "anything.a.b[0]",
        "anything[*].x",
        "jsonencode({ a = [later] })",
        "toset([later])",
        "{ (later) = 1 }",
        "max([1, anything]...)",
        "1 + anything",
        "!anything",
        "flatten([[1], anything])",
        "coalesce(later, \"b\")",
        "sort([later])",
        "format(\"%s\", later)",
        "\"%{ if anything }x%{ endif }\"",
        "\"%{ for x in anything }x%{ endfor }\"",
    ] {
        let value = console.evaluate(expression).expect(expression);
        let reason = value.unknown_reason().unwrap_or_else(|| panic!("{expression}: {value}"));
        assert_eq!(reason.to_string(), UNKNOWN, "{expression}");
    }
}

#[test]
fn what_does_not_depend_on_an_unknown_value_is_known() {
    let console = console();
    for (expression, expected) in [
        ("length([later, 1])", "2"),
        ("[later, 1][1]", "1"),
        ("{ a = later, b = 2 }.b", "2"),
        ("keys({ a = later })[0]", "\"a\""),
        ("false && anything", "false"),
        ("anything || true", "true"),
        ("true ? \"a\" : later", "\"a\""),
        ("try(1, anything)", "1"),
        ("element([1, later], 0)", "1"),
        ("merge({ a = later }, { b = 1 }).b", "1"),
        ("concat([later], [1])[1]", "1"),
        ("[for x in [later, 1] : 5][0]", "5"),
        ("lookup({ a = later, b = 1 }, \"b\")", "1"),
    ] {
        assert_eq!(console.print(expression), expected, "{expression}");
    }
    let ty = console.evaluate("upper(later)").map(|value| value.ty());
    assert_eq!(ty.expect("an unknown value"), Type::String);
}

#[test]
fn text_around_a_secret_is_kept_and_the_secret_is_not_read() {
    let console = console();
    for (expression, expected) in [
        ("secret", "[orders v1 []]"),
        ("\"postgres://u:${secret}@db\"", "postgres://u:[orders v1 []]@db"),
        ("\"${secret}\"", "[orders v1 []]"),
        ("join(\"-\", [\"a\", secret, \"b\"])", "a-[orders v1 []]-b"),
        ("format(\"%s:%d\", secret, 5)", "[orders v1 []]:5"),
        ("\"${\"<${secret}>\"}!\"", "<[orders v1 []]>!"),
        ("tostring(secret)", "[orders v1 []]"),
        ("coalesce(\"\", secret)", "[orders v1 []]"),
        ("{ a = [secret] }.a[0]", "[orders v1 []]"),
        ("lookup({ a = secret }, \"a\")", "[orders v1 []]"),
        ("true ? secret : \"x\"", "[orders v1 []]"),
        ("tolist([secret, \"x\"])[0]", "[orders v1 []]"),
        ("urlencode(\"a b${secret}\")", "a+b[orders v1 [Url]]"),
        ("jsonencode({ p = secret })", "{\"p\":\"[orders v1 [Json]]\"}"),
        ("yamlencode({ p = secret })", "\"p\": \"[orders v1 [Json]]\"\n"),
        ("formatlist(\"%s!\", [secret])[0]", "[orders v1 []]!"),
        ("\"%{ for s in [secret] }${s};%{ endfor }\"", "[orders v1 []];"),
    ] {
        let value = console.evaluate(expression).expect(expression);
        assert_eq!(parts(&value), expected, "{expression}");
        assert!(value.is_sensitive(), "{expression}");
        assert_eq!(value.to_string(), "(sensitive value)", "{expression}");
    }
}

#[test]
fn what_would_need_the_text_of_a_secret_is_an_error_that_names_it() {
    let console = console();
    for expression in [
        "sha256(secret)",
        "length(secret)",
        "upper(\"x${secret}\")",
        "base64encode(secret)",
        "substr(secret, 0, 1)",
        "secret == \"x\"",
        "contains([\"a\"], secret)",
        "nonsensitive(secret)",
        "split(\",\", secret)",
        "replace(secret, \"a\", \"b\")",
        "file(secret)",
        "sort([secret, \"a\"])",
    ] {
        let errors = errors(&console, expression);
        assert!(errors[0].contains("secret.orders"), "{expression}: {errors:?}");
    }
    assert!(errors(&console, "secret + 1")[0].contains("text of a secret"));
    assert!(errors(&console, "{ (secret) = 1 }")[0].contains("secret"));
    assert_eq!(console.print("secret == secret"), "(sensitive value)");
    assert_eq!(console.print("nonsensitive(secret == secret)"), "true");
    assert_eq!(console.print("nonsensitive(secret == null)"), "false");
}

#[test]
fn sensitivity_spreads_to_what_is_computed() {
    let console = console();
    for expression in [
        "\"a${hidden}\"",
        "upper(hidden)",
        "hidden == \"h\"",
        "jsonencode([hidden])",
        "hidden == \"h\" ? 1 : 2",
        "{ a = 1 }[hidden == \"h\" ? \"a\" : \"b\"]",
        "toset([hidden])",
        "[for x in sensitive([1]) : x]",
    ] {
        let value = console.evaluate(expression).expect(expression);
        assert!(value.is_sensitive(), "{expression}");
    }
    for expression in ["[hidden, 1][1]", "length([hidden])", "nonsensitive(hidden)"] {
        let value = console.evaluate(expression).expect(expression);
        assert!(!value.contains_sensitive(), "{expression}");
    }
}

#[test]
fn messages_do_not_give_sensitive_values_away() {
    let console = console();
    for expression in [
        "parseint(sensitive(\"hunter2\"), 10)",
        "cidrhost(sensitive(\"hunter2\"), 1)",
        "formatdate(sensitive(\"'hunter2\"), \"2020-01-01T00:00:00Z\")",
        "tonumber(sensitive(\"hunter2\"))",
        "lookup({}, sensitive(\"hunter2\"))",
        "{}[sensitive(\"hunter2\")]",
        "sensitive({ hunter2 = 1 }).hunter3",
        "sensitive({ hunter2 = 1 })[\"hunter3\"]",
        "file(sensitive(\"hunter2\"))",
        "{ for x in [1, 2] : sensitive(\"hunter2\") => x }",
        "sensitive(\"hunter2\") + 1",
        "regex(\"x\", sensitive(\"hunter2\"))",
        "jsondecode(sensitive(\"hunter2\"))",
    ] {
        let errors = console.evaluate(expression).expect_err(expression);
        for error in &errors {
            assert!(!format!("{error:?}").contains("hunter2"), "{expression}: {error:?}");
        }
    }
}

/// Components have an address; other names are those of the console.
struct WithComponents<'a>(&'a Console);

impl Scope for WithComponents<'_> {
    fn resolve(&self, reference: &Reference<'_>) -> Evaluated<Resolved> {
        let steps = usize::from(&**reference.root == "server");
        match reference.steps.first() {
            Some(name) if steps == 1 => {
                let (kind, name) = ("server".into(), name.name.clone());
                let component = Component { kind, name, instance: None };
                Ok(Resolved { value: Value::component(component), steps })
            }
            _ => self.0.variables().resolve(reference),
        }
    }

    fn attribute(&self, component: &Component, name: &Ident) -> Evaluated {
        Ok(Value::from(format!("{}/{}", component, name.name)))
    }
}

#[test]
fn components_are_values_whose_attributes_the_scope_knows() {
    let console = console();
    console.write("c.tftpl", "server ${web.address};");
    let scope = WithComponents(&console);
    for (expression, expected) in [
        ("server.web", "server.web"),
        ("server.web.address", "\"server.web/address\""),
        ("server.web[\"address\"]", "\"server.web/address\""),
        ("[server.a, server.b][*].address", "[␤  \"server.a/address\",␤  \"server.b/address\",␤]"),
        ("[for s in [server.a] : s.url][0]", "\"server.a/url\""),
        ("true ? server.a : server.b", "server.a"),
        ("server.a == server.a", "true"),
        ("server.a == server.b", "false"),
        ("tolist([server.a])[0].url", "\"server.a/url\""),
        ("templatefile(\"c.tftpl\", { web = server.web })", "\"server server.web/address;\""),
        ("type(server.a)", "\"component\""),
    ] {
        let value = console.evaluate_in(&scope, expression).expect(expression);
        assert_eq!(value.to_string().replace('\n', "␤"), expected, "{expression}");
    }
    for (expression, part) in [
        ("\"x${server.web}\"", "a string is required, not server.web"),
        ("jsonencode(server.web)", "server.web is a component"),
        ("server.web[0]", "single component"),
        ("length(server.web)", "not server.web"),
        ("[for s in server.web : s]", "server.web has no elements"),
    ] {
        let errors = console.evaluate_in(&scope, expression).expect_err(expression);
        let first = errors.iter().next().expect("an error");
        assert!(first.summary.contains(part), "{expression}: {}", first.summary);
    }
}

#[test]
fn files_are_read_from_the_stack_and_from_nowhere_else() {
    let console = console();
    console.write("a.txt", "text\n");
    console.write("sub/b.conf", "b");
    console.write("sub/deep/c.conf", "c");
    console.write("t.tftpl", "%{ for x in xs ~}\n- ${upper(x)}\n%{ endfor ~}\n");
    std::os::unix::fs::symlink("/etc/passwd", console.directory.path().join("link"))
        .expect("a link can be made");
    for (expression, expected) in [
        ("file(\"a.txt\")", "<<EOT␤text␤␤EOT"),
        ("chomp(file(\"./sub/../a.txt\"))", "\"text\""),
        ("fileexists(\"a.txt\")", "true"),
        ("fileexists(\"b.txt\")", "false"),
        ("fileset(\".\", \"**/*.conf\")", "toset([␤  \"sub/b.conf\",␤  \"sub/deep/c.conf\",␤])"),
        ("fileset(\"sub\", \"*.conf\")", "toset([␤  \"b.conf\",␤])"),
        ("fileset(\"none\", \"*\")", "toset([])"),
        ("filebase64(\"sub/b.conf\")", "\"Yg==\""),
        ("filemd5(\"sub/b.conf\")", "\"92eb5ffee6ae2fec3ad71c777531578f\""),
        ("filesha256(\"a.txt\") == sha256(\"text\\n\")", "true"),
        ("filebase64sha512(\"a.txt\") == base64sha512(\"text\\n\")", "true"),
        ("templatefile(\"t.tftpl\", { xs = [\"a\", \"b\"] })", "<<EOT␤- A␤- B␤␤EOT"),
    ] {
        assert_eq!(console.print(expression), expected, "{expression}");
    }
    for (expression, part) in [
        ("file(\"../x\")", "outside of the stack's directory"),
        ("file(\"/etc/passwd\")", "outside of the stack's directory"),
        ("file(\"link\")", "outside of the stack's directory"),
        ("file(\"sub\")", "not a regular file"),
        ("file(\"none\")", "there is no file \"none\""),
        ("fileset(\"..\", \"*\")", "outside of the stack's directory"),
        ("templatefile(\"t.tftpl\", {})", "no variable named \"xs\""),
        ("templatefile(\"none\", {})", "there is no file"),
        ("pathexpand(\"~/x\")", "depend on who makes it"),
        ("abspath(\"x\")", "depend on where the stack lies"),
    ] {
        let errors = errors(&console, expression);
        assert!(errors[0].contains(part), "{expression}: {errors:?}");
    }
}

#[test]
fn every_independent_error_is_reported_at_its_place() {
    let console = console();
    let expression = "{ a = upper([]), b = 1 + \"x\", c = [nope, lenght(\"a\")] }";
    let errors = console.evaluate(expression).expect_err("four errors");
    let places: Vec<&str> = errors
        .iter()
        .map(|error| {
            let span = error.span.expect("a place");
            &expression[span.start as usize..span.end as usize]
        })
        .collect();
    assert_eq!(places, ["[]", "\"x\"", "nope", "lenght"]);
}

#[test]
fn functions_that_would_make_plans_differ_say_why_they_are_absent() {
    let console = console();
    for (expression, part) in [
        ("timestamp()", "reads the clock"),
        ("uuid()", "differs each time"),
        ("bcrypt(\"x\")", "differs each time"),
        ("list(1)", "removed"),
    ] {
        let errors = console.evaluate(expression).expect_err(expression);
        let first = errors.iter().next().expect("an error");
        assert!(first.summary.contains(part), "{expression}: {}", first.summary);
        assert_eq!(first.help.len(), 1, "{expression}");
    }
}

#[test]
fn the_host_adds_functions() {
    let console = console();
    let upper_all = |args: &[Value]| match args {
        [value] => Ok(Value::tuple(vec![value.clone(), Value::from("x")])),
        _ => Err(Failure::new("it takes 1 argument")),
    };
    let value = console.evaluate_with("pair(known)[1]", "pair", Box::new(upper_all));
    assert_eq!(value.expect("a value").as_str(), Some("x"));
    let errors =
        console.evaluate_with("pair()", "pair", Box::new(upper_all)).expect_err("no argument");
    let summary = &errors.iter().next().expect("an error").summary;
    assert_eq!(summary, "function \"pair\": it takes 1 argument");
}

#[test]
fn hostile_input_is_refused_within_bounds() {
    let console = console();
    let nines = "9".repeat(100_000);
    let nested = format!("jsondecode(\"{}\")", "[".repeat(100_000));
    // Each bracket doubles what is inside of it.
    let doubling =
        (0..40).fold(String::from("[1]"), |inner, _| format!("[for x in [{inner}] : [x, x]]"));
    let doubled = |i: usize| format!("a{i}: &a{i} [*a{0}, *a{0}]\\n", i - 1);
    let laughs = (1..30).map(doubled).collect::<Vec<_>>().concat();
    let laughs = format!("yamldecode(\"a0: &a0 x\\n{laughs}\")");
    for expression in [
        "1e999999999",
        "1e-999999999",
        "1e4932 * 1e4932",
        "range(1000000000)",
        "range(0, 1, 1e-9)",
        "format(\"%99999999d\", 1)",
        "format(\"%.99999999f\", 1)",
        "indent(99999999, \"a\\nb\")",
        "regex(\"(a{1000}){1000}\", \"a\")",
        "setproduct(range(1000), range(1000))",
        "substr(\"a\", 1e30, 1)",
        "parseint(\"1\", 1e30)",
        "cidrsubnet(\"::/0\", 1e30, 1)",
        "chunklist([1], 1e30)",
        "replace(format(\"%1000s\", \"\"), \"\", format(\"%1000s\", join(\"\", range(50000))))",
        "replace(format(\"%1000s\", \"\"), \"/.*/\", join(\"\", [for i in range(50000) : \"$0\"]))",
        nested.as_str(),
        doubling.as_str(),
        laughs.as_str(),
        nines.as_str(),
    ] {
        let shown = &expression[..expression.len().min(60)];
        assert!(console.evaluate(expression).is_err(), "{shown}");
    }
}

#[test]
fn long_chains_of_references_end_in_an_error_and_not_in_a_crash() {
    let outcome = with_large_stack(|| {
        let console = Console::new();
        console.evaluate_recursive("x.y.z + 1")
    });
    let errors = outcome.expect("a thread").expect_err("too deep");
    assert!(errors.iter().any(|error| error.summary.contains("nest too deeply")));
}
