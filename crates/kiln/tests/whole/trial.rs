//! `kiln image test`, and steps that run programs.

use serde_json::Value;

use crate::site::{Site, eventually, send, site_or_skip, told};

fn image(tests: &str) -> String {
    format!(
        r#"
image "web" {{
  base       = scratch()
  copy "kiln-probe" {{ to = "/bin/probe" }}
  run "taste" {{
    command = ["/bin/probe", "ask", "/write?path=/made"]
  }}
  entrypoint = ["/bin/probe", "serve", "--port", "8080"]
  {tests}
}}
"#
    )
}

fn tested(site: &Site) -> (bool, Value) {
    let output = site.run(&["image", "test", "--json"]);
    let document = serde_json::from_slice(&output.stdout);
    (output.status.success(), document.unwrap_or_else(|_| panic!("{}", told(&output))))
}

#[test]
fn an_image_is_built_with_what_its_steps_run_and_tested() {
    let site = site_or_skip!("an_image_is_built_with_what_its_steps_run_and_tested");
    site.write(&image(
        r#"test "answers" { http = { port = 8080, path = "/healthz", contains = "ok" } }
           test "lean" {
             file         = { path = "/made" }
             no_such_file = "/bin/sh"
             exec = { command = ["/bin/probe", "ask", "/get?url=http://127.0.0.1:8080/"], status = 0 }
           }"#,
    ));
    let (passed, document) = tested(&site);
    assert!(passed && document["passed"] == true, "{document:#}");
    let tests = document["images"][0]["tests"].as_array().unwrap();
    let names: Vec<&str> = tests.iter().map(|test| test["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["answers", "lean"]);
    assert!(site.processes("serve").is_empty(), "no daemon is started");
}

#[test]
fn a_test_that_fails_is_shown_and_is_the_exit_status() {
    let site = site_or_skip!("a_test_that_fails_is_shown_and_is_the_exit_status");
    site.write(&image(
        r#"test "wrong" {
             http     = { port = 8080, path = "/", status = 418 }
             deadline = "500ms"
           }"#,
    ));
    let (passed, document) = tested(&site);
    assert!(!passed && document["passed"] == false, "{document:#}");
    let check = &document["images"][0]["tests"][0]["checks"][0];
    assert_eq!(check["found"], "status 200", "{document:#}");
    let output = site.run(&["image", "test", "web"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("✗ wrong") && text.contains("gives 418"), "{text}");
    assert!(text.contains("| started on port 8080"), "the last lines: {text}");
}

#[test]
fn a_signal_ends_a_test_and_leaves_nothing() {
    let site = site_or_skip!("a_signal_ends_a_test_and_leaves_nothing");
    site.write(&image(r#"test "long" { stays_up = "25s" }"#));
    let mut client = site.start(&["image", "test"]);
    let run = site.root().join("run");
    let there = || {
        let entries = std::fs::read_dir(&run).into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with("t-")).count() > 0
    };
    eventually("the test's root", there);
    send(client.id().cast_signed(), rustix::process::Signal::TERM);
    assert_eq!(client.wait().unwrap().code(), Some(1));
    assert!(!there(), "the test's root is left");
}
