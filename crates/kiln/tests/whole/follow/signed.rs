//! Commits that must be signed.

use std::fs;
use std::process::Command;

use super::repository::Repository;
use super::{follow, result_of, served, stack};
use crate::site::{Site, site_or_skip};

/// A new SSH key; its file.
fn key(site: &Site, name: &str) -> String {
    let path = site.stack().parent().unwrap().join(name);
    let path = path.to_str().unwrap();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path])
        .status();
    assert!(made.unwrap().success());
    path.to_owned()
}

fn sign_with(repository: &Repository, key: &str) {
    for (name, value) in
        [("gpg.format", "ssh"), ("user.signingKey", key), ("commit.gpgSign", "true")]
    {
        repository.git(&["config", name, value]);
    }
}

#[test]
fn only_commits_signed_by_who_may_are_deployed() {
    let name = "only_commits_signed_by_who_may_are_deployed";
    let site = site_or_skip!("only_commits_signed_by_who_may_are_deployed");
    if Command::new("ssh-keygen").arg("-?").output().is_err() {
        println!("skipped: {name}: needs ssh-keygen");
        return;
    }
    let (ada, eve) = (key(&site, "ada"), key(&site, "eve"));
    let signers = site.stack().parent().unwrap().join("signers");
    let public = fs::read_to_string(format!("{ada}.pub")).unwrap();
    fs::write(&signers, format!("ada@example.org namespaces=\"git\" {public}")).unwrap();
    let repository = Repository::new(&site);
    sign_with(&repository, &ada);
    let first = repository.commit(&stack(&site, "v1"), "Signed");
    follow(&site, &repository, &["--require-signed", "--signers", signers.to_str().unwrap()]);
    served(&site, "v1");
    assert_eq!(result_of(&site, &first, "deployed")["signed_by"], "ada@example.org");

    sign_with(&repository, &eve);
    let unknown = repository.commit(&stack(&site, "bad"), "By nobody known");
    let result = result_of(&site, &unknown, "given_up");
    assert!(result["reason"].as_str().unwrap().contains("does not count"), "{result}");
    repository.git(&["config", "commit.gpgSign", "false"]);
    let unsigned = repository.commit(&stack(&site, "bad"), "Not signed");
    let result = result_of(&site, &unsigned, "given_up");
    assert!(result["reason"].as_str().unwrap().contains("not signed"), "{result}");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    sign_with(&repository, &ada);
    repository.commit(&stack(&site, "v2"), "Signed again");
    served(&site, "v2");
}

#[test]
fn openpgp_signatures_count_too() {
    let name = "openpgp_signatures_count_too";
    let site = site_or_skip!("openpgp_signatures_count_too");
    let home = site.stack().parent().unwrap().join("gnupg");
    fs::create_dir(&home).unwrap();
    let gpg = |arguments: &[&str]| {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", &home).args(["--batch", "--quiet", "--passphrase", ""]);
        command.args(arguments).output()
    };
    let who = "Ada <ada@example.org>";
    let made = gpg(&["--pinentry-mode", "loopback", "--quick-gen-key", who, "ed25519", "sign"]);
    if !made.is_ok_and(|output| output.status.success()) {
        println!("skipped: {name}: needs gpg with an agent");
        return;
    }
    let public = gpg(&["--armor", "--export", who]).unwrap().stdout;
    let signers = site.stack().parent().unwrap().join("keys.asc");
    fs::write(&signers, public).unwrap();
    let repository = Repository::new(&site);
    let program = site.stack().parent().unwrap().join("gpg.sh");
    let script = format!("#!/bin/sh\nGNUPGHOME={} exec gpg --batch \"$@\"\n", home.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    repository.git(&["config", "gpg.program", program.to_str().unwrap()]);
    repository.git(&["config", "commit.gpgSign", "true"]);
    repository.git(&["config", "user.signingKey", "ada@example.org"]);
    let first = repository.commit(&stack(&site, "v1"), "Signed");
    follow(&site, &repository, &["--require-signed", "--signers", signers.to_str().unwrap()]);
    served(&site, "v1");
    assert_eq!(result_of(&site, &first, "deployed")["signed_by"], who);
    repository.git(&["config", "commit.gpgSign", "false"]);
    let unsigned = repository.commit(&stack(&site, "bad"), "Not signed");
    result_of(&site, &unsigned, "given_up");
    let ended = Command::new("gpgconf").env("GNUPGHOME", &home).args(["--kill", "all"]).status();
    assert!(ended.unwrap().success());
}
