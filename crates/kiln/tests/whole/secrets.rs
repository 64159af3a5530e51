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
    site.write(&format!("{stack}\nsecret \"token\" {{ env = \"SHOP_TOKEN\" }}\n"));
    let mut apply = site.command(&["apply", "--yes"]);
    let output = apply.env("SHOP_TOKEN", VALUE).output().unwrap();
    let shown = crate::site::told(&output);
    assert!(output.status.success(), "{shown}");
    assert!(!shown.contains(VALUE), "it is printed: {shown}");
    let (_, environment) = site.get("/env");
    assert!(environment.contains(&format!("TOKEN=x-{VALUE}")), "{environment}");
    let mut seen = Vec::new();
    search(&site.root(), &mut seen);
    assert_eq!(seen, Vec::<String>::new(), "files that hold it");
    for role in ["serve", "gateway", "launcher"] {
        for pid in site.processes(role) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
            assert!(!holds(&line) && !holds(&environment), "{role} shows it");
        }
    }
    for verb in [&["status", "--json"][..], &["events"], &["history"], &["show", "1"]] {
        assert!(!site.must(verb).contains(VALUE), "{verb:?} shows it");
    }
}

fn search(directory: &Path, seen: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            search(&path, seen);
        } else if kind.is_file() && holds(&fs::read(&path).unwrap_or_default()) {
            seen.push(path.to_string_lossy().into_owned());
        }
    }
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes())
}
