//! A secret reaches the instance that it is for, and stands nowhere else.

use std::fs;
use std::path::Path;

use crate::replace::SHOP;
use crate::site::site_or_skip;

const VALUE: &str = "correct-horse-battery-staple";

#[test]
fn a_secret_stands_nowhere_but_in_its_instance() {
    let site = site_or_skip!("a_secret_stands_nowhere_but_in_its_instance");
    let stack = SHOP.replace(
        "env      = { API = server.api.address }",
        "env = { TOKEN = \"x-${secret.token}\" }",
    );
    // As an argument too, though everybody on the machine sees those of a process.
    let stack = stack.replace("[\"--body\", var.release]", "[\"--body\", secret.token]");
    assert!(stack.contains("\"--body\", secret.token"));
    site.write(&format!("{stack}\nsecret \"token\" {{ env = \"SHOP_TOKEN\" }}\n"));
    let mut apply = site.command(&["apply", "--yes"]);
    let output = apply.env("SHOP_TOKEN", VALUE).output().unwrap();
    let shown = crate::site::told(&output);
    assert!(output.status.success(), "{shown}");
    assert!(!shown.contains(VALUE), "it is printed: {shown}");
    assert_eq!(site.get("/").1, VALUE);
    let (_, environment) = site.get("/env");
    assert!(environment.contains(&format!("TOKEN=x-{VALUE}")), "{environment}");
    assert_eq!(files_with(&site.root(), VALUE), Vec::<String>::new(), "files that hold it");
    for role in ["serve", "gateway", "launcher"] {
        for pid in site.processes(role) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
            assert!(!holds(&line, VALUE) && !holds(&environment, VALUE), "{role} shows it");
        }
    }
    for verb in [&["status", "--json"][..], &["events"], &["history"], &["show", "1"]] {
        assert!(!site.must(verb).contains(VALUE), "{verb:?} shows it");
    }
}

/// The files below a directory that hold a text.
pub fn files_with(directory: &Path, value: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            seen.extend(files_with(&path, value));
        } else if kind.is_file() && holds(&fs::read(&path).unwrap_or_default(), value) {
            seen.push(path.to_string_lossy().into_owned());
        }
    }
    seen
}

fn holds(bytes: &[u8], value: &str) -> bool {
    bytes.windows(value.len()).any(|window| window == value.as_bytes())
}
