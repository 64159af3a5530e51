//! From files to specs: every kind of component, repetition, references, variables, outputs.

mod support;

use std::net::Ipv4Addr;

use kiln_config::stack::SecretValue;
use kiln_model::quantity::{Bytes, MilliCpu, Millis};
use kiln_model::spec::Body;
use kiln_model::spec::image::{Base, Image, Step};
use kiln_model::spec::rollout::Strategy;
use kiln_model::spec::secret::{SecretSource, SecretVersion};
use kiln_model::spec::server::{LogLine, Probe, Seccomp, Server};
use kiln_model::text::{Part, Text};
use serde_json::json;
use support::{Files, errors, ids, spec, stack};

const SHOP: &str = r#"
variable "release" { default = "v1" }

image "web" {
  base     = debian("bookworm")
  packages = ["nginx-light", "curl"]
  copy "site.html" { to = "/srv/www/" }
  file "/etc/nginx/nginx.conf" { content = templatefile("nginx.conf.tftpl", { release = var.release }) }
  directory "/var/cache/nginx" {
    owner = "www-data"
    mode  = "0750"
  }
  symlink "/srv/current" { target = "www" }
  user "app" { uid = 1000 }
  entrypoint = ["/usr/sbin/nginx", "-g", "daemon off;"]
  user       = "www-data"
  env        = { LANG = "C.UTF-8", WORKERS = 2 }
  writable   = { "/tmp" = "16MiB" }
  labels     = { team = "shop" }
  workdir    = "/srv"
}

network "front" { cidr = "10.60.0.0/24" }
network "back" {
  cidr   = "10.61.0.0/24"
  egress = ["192.0.2.0/24", "198.51.100.7"]
}

secret "token" { generate = 32 }

server "api" {
  image   = image.web
  network = network.back
}

server "web" {
  image    = image.web
  network  = network.front
  command  = ["/bin/web", "--token", secret.token]
  args     = ["-v"]
  env      = { API = "http://${server.api.address}:80", AUTH = "Bearer ${secret.token}!", N = 3 }
  memory   = "128MiB"
  cpu      = 0.5
  pids     = 100
  user     = "1000:1000"
  workdir  = "/srv"
  writable = { "/run" = "1MiB" }
  connects = [server.api]
  replicas = 3
  stop     = { signal = "SIGINT", grace = "5s" }
  health   = { http = { port = 8080, path = "/healthz", status = 200 }, every = "2s", timeout = "250ms", failures = 2 }
  rollout  = { strategy = "blue_green", deadline = "90s" }
}

endpoint "shop" {
  listen   = "127.0.0.1:8080"
  to       = server.web
  port     = 8080
  protocol = "http"
}

output "address" { value = endpoint.shop.address }
output "all" { value = [for s in [server.web, server.api] : s.host] }
output "token" {
  value     = secret.token
  sensitive = true
}
"#;

fn shop() -> kiln_config::stack::Stack {
    let files = [
        ("main.kiln.hcl", SHOP),
        ("site.html", "<h1>shop</h1>"),
        ("nginx.conf.tftpl", "# ${release}\n%{ for n in [1, 2] ~}\nworker ${n};\n%{ endfor ~}\n"),
    ];
    Files::new(&files).stack()
}

fn server<'s>(stack: &'s kiln_config::stack::Stack, id: &str) -> &'s Server {
    spec(stack, id).as_server().expect("it is a server")
}

fn image<'s>(stack: &'s kiln_config::stack::Stack, id: &str) -> &'s Image {
    spec(stack, id).as_image().expect("it is an image")
}

#[test]
fn a_whole_shop_becomes_specs() {
    let stack = shop();
    assert_eq!(stack.name.as_str(), "shop");
    let expected = [
        "image.web",
        "network.front",
        "network.back",
        "secret.token",
        "server.api",
        "server.web",
        "endpoint.shop",
    ];
    assert_eq!(ids(&stack), expected);
    let recipe = &image(&stack, "image.web").identity.recipe;
    assert_eq!(recipe.base, Base::Debian { suite: "bookworm".into() });
    assert_eq!(recipe.packages.iter().collect::<Vec<_>>(), ["curl", "nginx-light"]);
    assert_eq!(recipe.env["WORKERS"], "2");
    assert_eq!(recipe.user.as_deref(), Some("www-data"));
    let kinds: Vec<&str> = recipe.steps.iter().map(step_name).collect();
    assert_eq!(kinds, ["copy", "file", "directory", "symlink", "user"]);
    let Step::File { content, .. } = &recipe.steps[1] else { panic!("{:?}", recipe.steps[1]) };
    assert_eq!(content, "# v1\nworker 1;\nworker 2;\n");
    let Step::Directory { mode, .. } = &recipe.steps[2] else { panic!("{:?}", recipe.steps[2]) };
    assert_eq!(*mode, Some(0o750));
    let back = spec(&stack, "network.back").as_network().expect("a network");
    let egress: Vec<String> = back.identity.egress.iter().map(ToString::to_string).collect();
    assert_eq!(egress, ["192.0.2.0/24", "198.51.100.7/32"]);
    assert_eq!(stack.outputs["address"].value, json!("127.0.0.1:8080"));
    assert_eq!(stack.outputs["all"].value, json!(["web.server.kiln", "api.server.kiln"]));
    assert!(stack.outputs["token"].sensitive && stack.outputs["token"].value.is_null());
}

fn step_name(step: &Step) -> &'static str {
    match step {
        Step::Copy { .. } | Step::Take { .. } => "copy",
        Step::File { .. } => "file",
        Step::Directory { .. } => "directory",
        Step::Symlink { .. } => "symlink",
        Step::User { .. } => "user",
        Step::Group { .. } => "group",
        Step::Run { .. } => "run",
    }
}

#[test]
fn a_server_has_all_that_its_block_says() {
    let stack = shop();
    let web = server(&stack, "server.web");
    let (identity, policy) = (&web.identity, &web.policy);
    assert_eq!(identity.image.id.to_string(), "image.web");
    assert_eq!(identity.memory, Bytes::mib(128));
    assert_eq!((identity.cpu, identity.pids), (Some(MilliCpu(500)), 100));
    assert_eq!(identity.env["N"], Text::Plain("3".into()));
    assert_eq!(identity.env["API"], Text::Plain("http://10.61.0.2:80".into()));
    let parts = [
        Part::Literal("Bearer ".into()),
        Part::Secret("secret.token".parse::<kiln_model::name::ComponentId>().unwrap().into()),
        Part::Literal("!".into()),
    ];
    assert_eq!(identity.env["AUTH"], Text::Template(parts.into()));
    assert!(matches!(&identity.command.as_ref().unwrap()[2], Text::Template(_)));
    assert_eq!(identity.connects.len(), 1);
    assert_eq!(identity.connects[0].address, Ipv4Addr::new(10, 61, 0, 2));
    assert_eq!((identity.stop.signal, identity.stop.grace), (2, Millis::seconds(5)));
    assert_eq!(policy.replicas, 3);
    assert_eq!(policy.address, Ipv4Addr::new(10, 60, 0, 2));
    let probe = Probe::Http { port: 8080, path: "/healthz".into(), status: Some(200) };
    assert_eq!((&policy.health.probe, policy.health.failures), (&probe, 2));
    assert_eq!(policy.rollout.strategy, Strategy::BlueGreen);
    assert_eq!(policy.rollout.deadline, Millis::seconds(90));
}

#[test]
fn a_server_has_sensible_defaults() {
    let stack = shop();
    let api = server(&stack, "server.api");
    assert_eq!(api.identity.memory, Bytes::mib(256));
    assert_eq!((api.policy.replicas, api.identity.pids), (1, 512));
    assert!(matches!(api.policy.health.probe, Probe::Running { .. }));
    assert_eq!(api.policy.rollout.strategy, Strategy::Rolling { surge: 1, unavailable: 0 });
}

#[test]
fn a_profile_of_system_calls_is_a_word_or_a_file() {
    let profiled = |profile: &str| {
        format!(
            "server \"web\" {{\n image = image.i\n network = network.n\n seccomp = {profile}\n}}\n"
        )
    };
    let seccomp = |profile: &str| {
        let files = [("main.kiln.hcl", with_base(&profiled(profile))), ("p", LEARNED.to_owned())];
        let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
        server(&Files::new(&files).stack(), "server.web").identity.seccomp.clone()
    };
    assert_eq!(seccomp("\"default\""), Seccomp::Default);
    assert_eq!(seccomp("\"strict\""), Seccomp::Strict);
    let names = ["openat", "read"].map(str::to_owned).into();
    assert_eq!(seccomp("file(\"p\")"), Seccomp::Only(names));
    let said = errors(&with_base(&profiled("\"strickt\"")));
    assert!(said.contains("names of system calls"), "{said}");
}

/// A profile as it may stand in a file.
const LEARNED: &str = "# learned\nread\n\n openat # of files\nread\n";

#[test]
fn health_is_one_check_or_three() {
    let long = r#"{
          http      = { port = 80, path = "/readyz" }
          every     = "2s"
          failures  = 2
          successes = 4
          startup   = { log = { matches = "^ready$" }, deadline = "30s" }
          liveness  = { grpc = { port = 81, service = "shop.Orders" }, timeout = "4s", failures = 9 }
        }"#;
    let short = r#"{ http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "500ms" }"#;
    let rest = |health: &str, name: &str| {
        format!(
            "server {name:?} {{\n image = image.i\n network = network.n\n health = {health}\n}}\n"
        )
    };
    let again = r#"{ tcp = { port = 80 }, every = "3s", liveness = {}, replace_after = "5s" }"#;
    let text = [rest(long, "long"), rest(short, "short"), rest(again, "again")].concat();
    let stack = stack(&with_base(&text));
    let health = |name: &str| server(&stack, name).policy.health.clone();
    let found = health("server.long");
    let startup = found.startup.unwrap();
    let line = LogLine::Matches("^ready$".into());
    assert_eq!((startup.probe, startup.timeout), (Probe::Log { line }, Millis(500)));
    assert_eq!(startup.deadline, Some(Millis::seconds(30)));
    let liveness = found.liveness.unwrap();
    assert_eq!(liveness.probe, Probe::Grpc { port: 81, service: "shop.Orders".into() });
    assert_eq!((liveness.every, liveness.failures), (Millis::seconds(2), 9));
    assert_eq!(liveness.timeout, Millis::seconds(4));
    assert_eq!((found.failures, found.successes), (2, 4));
    assert_eq!(found.replace_after, Some(Millis::seconds(60)));
    let found = health("server.short");
    assert_eq!((found.startup, found.liveness, found.replace_after), (None, None, None));
    let found = health("server.again");
    let liveness = found.liveness.unwrap();
    assert_eq!((liveness.probe, liveness.every), (found.probe, Millis::seconds(3)));
    assert_eq!(found.replace_after, Some(Millis::seconds(5)));
}

const BASE: &str = r#"
image "i" {
  base       = scratch()
  entrypoint = ["/bin/program"]
}
network "n" { cidr = "10.0.0.0/24" }
"#;

fn with_base(text: &str) -> String {
    format!("{BASE}{text}")
}

#[test]
fn count_and_for_each_multiply_blocks() {
    let stack = stack(&with_base(
        r#"
        server "db" {
          count   = 2
          image   = image.i
          network = network.n
          env     = { INDEX = count.index }
        }
        server "web" {
          for_each = { eu = "10m", "us east" = "20m" }
          image    = image.i
          network  = network.n
          env      = { KEY = each.key, VALUE = each.value, DB = server.db[0].address }
          connects = server.db
        }
        server "one" {
          for_each = toset(["x"])
          image    = image.i
          network  = network.n
          connects = [server.web["eu"], [for s in server.db : s]]
        }
        output "addresses" { value = { for k, s in server.web : k => s.address } }
        output "splat" { value = server.db[*].address }
        output "names" { value = [server.db[1].name, server.one["x"].host] }
        "#,
    ));
    let expected = [
        "image.i",
        "network.n",
        "server.db[0]",
        "server.db[1]",
        "server.web[\"eu\"]",
        "server.web[\"us east\"]",
        "server.one[\"x\"]",
    ];
    assert_eq!(ids(&stack), expected);
    let web = &server(&stack, "server.web[\"us east\"]").identity;
    assert_eq!(web.env["KEY"], Text::Plain("us east".into()));
    assert_eq!(web.env["VALUE"], Text::Plain("20m".into()));
    assert_eq!(web.env["DB"], Text::Plain("10.0.0.2".into()));
    assert_eq!(web.connects.len(), 2);
    assert_eq!(server(&stack, "server.one[\"x\"]").identity.connects.len(), 3);
    assert_eq!(server(&stack, "server.db[1]").identity.env["INDEX"], Text::Plain("1".into()));
    let addresses = json!({ "eu": "10.0.0.5", "us east": "10.0.0.6" });
    assert_eq!(stack.outputs["addresses"].value, addresses);
    assert_eq!(stack.outputs["splat"].value, json!(["10.0.0.2", "10.0.0.3"]));
    assert_eq!(stack.outputs["names"].value, json!(["db[1]", "one-x.server.kiln"]));
}

#[test]
fn dynamic_makes_blocks_in_place() {
    let stack = stack(
        r#"
        locals { pages = { a = "A", b = "B" } }
        image "i" {
          base = scratch()
          directory "/first" {}
          dynamic "file" {
            for_each = local.pages
            labels   = ["/srv/${file.key}.html"]
            content {
              content = file.value
              mode    = "0600"
            }
          }
          dynamic "symlink" {
            for_each = ["x", "y"]
            iterator = link
            labels   = ["/${link.value}"]
            content { target = "to-${link.key}" }
          }
        }
        "#,
    );
    let steps = &image(&stack, "image.i").identity.recipe.steps;
    let names: Vec<&str> = steps.iter().map(step_name).collect();
    assert_eq!(names, ["directory", "file", "file", "symlink", "symlink"]);
    let Step::File { path, content, mode, .. } = &steps[2] else { panic!("{steps:?}") };
    assert_eq!((path.as_str(), content.as_str(), *mode), ("/srv/b.html", "B", Some(0o600)));
    let Step::Symlink { path, target } = &steps[4] else { panic!("{steps:?}") };
    assert_eq!((path.as_str(), target.as_str()), ("/y", "to-1"));
}

#[test]
fn addresses_are_carried_and_servers_may_name_each_other() {
    let text = with_base(
        r#"
        server "a" {
          image   = image.i
          network = network.n
          env     = { PEER = server.b.address }
        }
        server "b" {
          image   = image.i
          network = network.n
          env     = { PEER = server.a.address }
        }
        "#,
    );
    let mut files = Files::new(&[("main.kiln.hcl", &text)]);
    let first = files.stack();
    let warnings = first.report.to_string();
    assert!(warnings.contains("server.b names the address of server.a and does not"), "{warnings}");
    assert_eq!(server(&first, "server.a").identity.env["PEER"], Text::Plain("10.0.0.3".into()));
    files.write("more.kiln.hcl", "server \"0\" {}\n");
    assert!(files.errors().contains("`0` is not a valid name"));
    files.write("more.kiln.hcl", "server \"aa\" {\n image = image.i\n network = network.n\n}\n");
    files.inputs.carried = first.offsets;
    let second = files.stack();
    let address = |id| server(&second, id).policy.address.octets()[3];
    assert_eq!([address("server.a"), address("server.b"), address("server.aa")], [2, 3, 4]);
}

#[test]
fn variables_are_given_in_terraforms_order() {
    let text = r#"
        variable "a" { default = "default" }
        variable "list" {
          type    = list(number)
          default = []
        }
        variable "needed" { type = string }
        output "a" { value = var.a }
        output "list" { value = var.list }
        output "needed" { value = var.needed }
    "#;
    let mut files = Files::new(&[("main.kiln.hcl", text)]);
    assert!(files.errors().contains("variable `needed` has no value"));
    let a = |files: &Files| files.stack().outputs["a"].value.clone();
    files.inputs.env.insert("KILN_VAR_needed".into(), "1".into());
    files.inputs.env.insert("KILN_VAR_list".into(), "[1, \"2\"]".into());
    files.inputs.env.insert("KILN_VAR_a".into(), String::new());
    assert_eq!(a(&files), json!("default"), "an empty environment variable is unset");
    assert_eq!(files.stack().outputs["list"].value, json!([1, 2]));
    assert_eq!(files.stack().outputs["needed"].value, json!("1"));
    files.inputs.env.insert("KILN_VAR_a".into(), "env".into());
    assert_eq!(a(&files), json!("env"));
    files.write("kiln.kilnvars", "a = \"file\"\n");
    assert_eq!(a(&files), json!("file"));
    files.write("b.auto.kilnvars", "a = \"b\"\n");
    files.write("a.auto.kilnvars", "a = \"a\"\n");
    files.write("ignored.kilnvars", "a = \"no\"\n");
    assert_eq!(a(&files), json!("b"));
    files.inputs.var_files.push("ignored.kilnvars".into());
    assert_eq!(a(&files), json!("no"));
    files.inputs.vars = vec!["a=one".into(), "a=two=2".into()];
    assert_eq!(a(&files), json!("two=2"));
    files.inputs.vars.push("lits=1".into());
    assert!(files.errors().contains("did you mean `list`?"));
}

#[test]
fn variables_are_typed_validated_and_may_be_sensitive() {
    let text = r#"
        variable "size" {
          type     = object({ n = number, unit = optional(string, "MiB") })
          default  = { n = "64" }
          nullable = false
          validation {
            condition     = var.size.n >= 64
            error_message = "at least 64, not ${var.size.n}"
          }
        }
        variable "key" {
          default   = "k"
          sensitive = true
        }
        secret "key" { value = var.key }
        server "s" {
          image   = image.i
          network = network.n
          memory  = "${var.size.n}${var.size.unit}"
          env     = { KEY = var.key, OPEN = nonsensitive(var.key) }
        }
        output "key" {
          value     = var.key
          sensitive = true
        }
    "#;
    let mut files = Files::new(&[("main.kiln.hcl", &with_base(text))]);
    let stack = files.stack();
    assert_eq!(server(&stack, "server.s").identity.memory, Bytes::mib(64));
    let sensitive: Vec<_> = spec(&stack, "server.s").sensitive.iter().collect();
    assert_eq!(sensitive, ["env.KEY"]);
    files.inputs.vars.push("size={ n = 3 }".into());
    assert!(files.errors().contains("at least 64, not 3"), "{}", files.errors());
    files.inputs.vars.push("size={ m = 3 }".into());
    assert!(files.errors().contains("does not fit its type"), "{}", files.errors());
}

#[test]
fn secrets_come_from_four_places_and_are_never_shown() {
    let text = r#"
        secret "made" { generate = 16 }
        secret "plain" { value = "hunter2" }
        secret "file" { file = "token.txt" }
        secret "env" { env = "TOKEN" }
    "#;
    let mut files = Files::new(&[("main.kiln.hcl", text), ("token.txt", "from-file\n")]);
    files.inputs.env.insert("TOKEN".into(), "from-env".into());
    let stack = files.stack();
    let values: Vec<&str> = stack.secrets.values().map(SecretValue::expose).collect();
    assert_eq!(values, ["from-env", "from-file", "hunter2"]);
    assert!(!format!("{stack:?}").replace(text, "").contains("from-file"));
    let Body::Secret(made) = &spec(&stack, "secret.made").body else { panic!() };
    assert_eq!(made.source, SecretSource::Generate(16));
    assert_eq!(made.identity.version, SecretVersion::ToBeGenerated);
    let Body::Secret(plain) = &spec(&stack, "secret.plain").body else { panic!() };
    assert!(matches!(plain.identity.version, SecretVersion::Known(_)));
    files.inputs.env.clear();
    assert!(files.errors().contains("the environment variable TOKEN is not set"));
}

#[test]
fn locals_are_lazy_in_order_and_deep_chains_do_no_harm() {
    let mut lines = vec!["l0 = 0".to_owned()];
    lines.extend((1..3000).map(|index| format!("l{index} = local.l{} + 1", index - 1)));
    let text = |lines: &[String]| {
        let locals = lines.join("\n");
        format!("locals {{\n{locals}\n}}\noutput \"last\" {{ value = local.l2999 }}\n")
    };
    assert_eq!(stack(&text(&lines)).outputs["last"].value, json!(2999));
    lines.reverse();
    assert_eq!(stack(&text(&lines)).outputs["last"].value, json!(2999));
}

#[test]
fn the_first_stack_of_kiln_init_is_right_and_canonical() {
    use kiln_config::stack::init::{FILE_NAME, TEXT};
    let stack = Files::new(&[(FILE_NAME, TEXT)]).stack();
    assert_eq!(stack.specs.len(), 4);
    let formatted = kiln_config::fmt::format(FILE_NAME.as_ref(), TEXT).expect("it parses");
    assert_eq!(formatted, TEXT);
}

#[test]
fn the_name_of_a_stack_is_given_or_that_of_its_directory() {
    assert_eq!(stack("stack { name = \"other\" }").name.as_str(), "other");
    assert_eq!(stack("output \"n\" { value = stack.name }").outputs["n"].value, json!("shop"));
    assert!(errors("stack { name = \"-\" }").contains("not a valid stack name"));
    assert!(Files::new(&[]).errors().contains("there is no *.kiln.hcl in TMP/shop"));
}

#[test]
fn warnings_come_with_the_stack() {
    let files = Files::new(&[
        ("main.kiln.hcl", "variable \"region\" { default = 1 }"),
        ("kiln.kilnvars", "regoin = \"eu\"\n"),
    ]);
    let report = files.stack().report.to_string();
    assert!(report.contains("did you mean `region`?"), "{report}");
}
