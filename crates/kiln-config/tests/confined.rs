//! A stack that somebody else has written takes secrets only from where it may.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::symlink;

use support::Files;

#[test]
fn files_of_secrets_can_be_kept_to_some_directories() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("token");
    std::fs::write(&path, "hush").unwrap();
    let text = format!("secret \"token\" {{ file = \"{}\" }}\n", path.display());
    let mut files = Files::new(&[("main.kiln.hcl", &text), ("own", "mine")]);
    files.stack();
    files.inputs.secret_directories = Some(Vec::new());
    assert!(files.errors().contains("is not where secrets may be taken from"));
    files.inputs.secret_directories = Some(vec![outside.path().to_owned()]);
    files.stack();

    files.inputs.secret_directories = Some(Vec::new());
    files.write("main.kiln.hcl", "secret \"token\" { file = \"own\" }\n");
    files.stack();
    symlink(&path, files.inputs.directory.join("link")).unwrap();
    for escape in ["link", "../../../../../../../../etc/hostname", "none"] {
        files.write("main.kiln.hcl", &format!("secret \"token\" {{ file = \"{escape}\" }}\n"));
        assert!(files.errors().contains("is not where secrets may be taken from"), "{escape}");
    }
}
