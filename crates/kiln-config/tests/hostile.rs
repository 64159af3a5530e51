//! Random stacks: loading never panics, fails only with messages, and each message has its place.

mod support;

use proptest::prelude::*;
use support::Files;

const BLOCKS: &[&str] = &[
    "image \"a\"",
    "image \"b\"",
    "network \"a\"",
    "server \"a\"",
    "server \"b\"",
    "secret \"a\"",
    "endpoint \"a\"",
    "variable \"a\"",
    "output \"a\"",
    "locals",
    "stack",
    "database \"a\"",
    "sevrer \"x\"",
    "server",
    "server \"a\" \"b\"",
];

const ATTRIBUTES: &[&str] = &[
    "base",
    "packages",
    "env",
    "workdir",
    "user",
    "entrypoint",
    "writable",
    "labels",
    "cidr",
    "egress",
    "generate",
    "value",
    "file",
    "image",
    "network",
    "command",
    "args",
    "memory",
    "cpu",
    "pids",
    "seccomp",
    "connects",
    "stop",
    "replicas",
    "health",
    "rollout",
    "scale",
    "listen",
    "to",
    "port",
    "protocol",
    "default",
    "type",
    "sensitive",
    "nullable",
    "description",
    "name",
    "count",
    "for_each",
    "a",
    "b",
    "c",
];

const VALUES: &[&str] = &[
    "scratch()",
    "debian(\"bookworm\")",
    "image.a",
    "network.a",
    "server.a",
    "server.b",
    "server.a.address",
    "server.b.host",
    "secret.a",
    "\"x${secret.a}\"",
    "[server.a, server.b]",
    "server.a[0]",
    "server.a[*].address",
    "server.a[\"k\"].address",
    "var.a",
    "local.a",
    "local.b",
    "local.c",
    "each.key",
    "each.value",
    "count.index",
    "1",
    "-1",
    "0.5",
    "\"128MiB\"",
    "\"1s\"",
    "\"10.0.0.0/24\"",
    "\"127.0.0.1:80\"",
    "\"/x\"",
    "[\"a\"]",
    "{ A = 1 }",
    "{}",
    "[]",
    "null",
    "true",
    "toset([\"k\"])",
    "{ k = server.a.address }",
    "{ http = { port = 80 } }",
    "{ strategy = \"blue_green\" }",
    "network.a.cidr",
    "endpoint.a.url",
    "image.a.name",
    "database.a",
    "try(local.a, 1)",
    "[for s in [server.a] : s.address]",
    "string",
    "path.stack",
    "stack.name",
    "sensitive(\"x\")",
    "{ k = secret.a }",
    "unknown.x",
    "\"${local.a}\"",
    "debian",
    "debian(1)",
    "scratch().x",
    "server.c.address",
    "2e9",
    "server",
    "each",
    "\"\"",
];

const INNER: &[&str] = &[
    "copy \"missing\" { to = \"/x\" }",
    "file \"/x\" { content = secret.a }",
    "directory \"x\" {}",
    "dynamic \"file\" {\nfor_each = local.a\nlabels = [file.key]\ncontent { content = file.value }\n}",
    "validation {\ncondition = var.a\nerror_message = local.b\n}",
    "dynamic \"x\" {}",
    "user \"u\" { uid = 5 }",
    "symlink \"/l\" { target = each.key }",
    "test \"t\" {}",
];

fn block() -> impl Strategy<Value = String> {
    let attribute = (prop::sample::select(ATTRIBUTES), prop::sample::select(VALUES));
    let attributes = prop::collection::vec(attribute, 0..6);
    let inner = prop::collection::vec(prop::sample::select(INNER), 0..2);
    (prop::sample::select(BLOCKS), attributes, inner).prop_map(|(head, attributes, inner)| {
        let mut lines = vec![format!("{head} {{")];
        lines.extend(attributes.iter().map(|(name, value)| format!("  {name} = {value}")));
        lines.extend(inner.iter().map(|inner| (*inner).to_owned()));
        lines.push("}\n".to_owned());
        lines.join("\n")
    })
}

/// Mostly right, so that evaluation gets far.
const SOUND: &str = r#"
image "a" {
  base       = scratch()
  entrypoint = ["/bin/program"]
}
network "a" { cidr = "10.0.0.0/24" }
server "a" {
  image   = image.a
  network = network.a
}
secret "a" { generate = 8 }
"#;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_stacks_are_loaded_or_refused(
        sound in any::<bool>(),
        blocks in prop::collection::vec(block(), 1..7),
    ) {
        let text = format!("{}{}", if sound { SOUND } else { "" }, blocks.concat());
        let files = Files::new(&[("main.kiln.hcl", &text)]);
        match files.load() {
            Ok(stack) => prop_assert!(!stack.report.diagnostics.has_errors()),
            Err(report) => {
                prop_assert!(report.diagnostics.has_errors(), "{}", text);
                let shown = report.to_string();
                prop_assert!(!shown.contains("could not be evaluated"), "{}\n{}", text, shown);
                for diagnostic in &report.diagnostics {
                    prop_assert!(report.locate(diagnostic).is_some(), "{}\n{:?}", text, diagnostic);
                }
            }
        }
    }
}

#[test]
fn thousands_of_mistakes_are_all_told() {
    let count = 5_000;
    let blocks = (0..count).map(|index| {
        format!("server \"s{index}\" {{\n  image = image.x{index}\n  memroy = 1\n}}\n")
    });
    let files = Files::new(&[("main.kiln.hcl", &blocks.collect::<Vec<_>>().concat())]);
    let report = files.load().expect_err("nothing is right");
    // Of each block: an unknown attribute, a missing one, an undeclared reference.
    assert_eq!(report.diagnostics.len(), 3 * count);
    assert_eq!(report.to_string().matches("did you mean `memory`?").count(), count);
}
