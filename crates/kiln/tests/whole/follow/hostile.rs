//! Repositories that mean harm: nothing of them is run, and nothing leads out of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::{followed, following, result_of, served, stack};
use crate::site::site_or_skip;

/// Makes an executable script that leaves a mark.
fn trap(path: &Path, mark: &Path) {
    fs::write(path, format!("#!/bin/sh\ntouch {}\ncat\n", mark.display())).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn nothing_of_a_repository_is_run() {
    let site = site_or_skip!("nothing_of_a_repository_is_run");
    let repository = followed(&site, &[]);
    let mark = site.stack().join("executed");
    let script = repository.work().join("trap");
    trap(&script, &mark);
    for hook in
        ["post-checkout", "post-merge", "reference-transaction", "update", "post-upload-pack"]
    {
        trap(&repository.bare().join("hooks").join(hook), &mark);
    }
    let run = format!("touch {}", mark.display());
    for (key, value) in [
        ("uploadpack.packObjectsHook", script.to_str().unwrap()),
        ("core.fsmonitor", script.to_str().unwrap()),
        ("core.alternateRefsCommand", &run),
        ("filter.evil.smudge", &run),
        ("filter.evil.clean", &run),
        ("core.sshCommand", &run),
        ("credential.helper", &format!("!{run}")),
        ("remote.origin.url", &format!("ext::{run}")),
        ("remote.origin.promisor", "true"),
        ("remote.origin.uploadpack", &run),
    ] {
        repository.bare_git(&["config", key, value]);
    }
    let work = repository.work();
    fs::write(work.join(".gitattributes"), "* filter=evil diff=evil text eol=crlf ident\n")
        .unwrap();
    fs::write(work.join("exact"), "$Id$\nline\n").unwrap();
    let modules = format!(
        "[submodule \"x\"]\n\tpath = vendor/x\n\turl = ext::sh -c 'touch% {}'\n\
         [submodule \"y\"]\n\tpath = vendor/y\n\turl = file:///etc\n",
        mark.display()
    );
    fs::write(work.join(".gitmodules"), modules).unwrap();
    let head = repository.head();
    for path in ["vendor/x", "vendor/y"] {
        repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},{path}")]);
    }
    fs::write(work.join("main.kiln.hcl"), stack(&site, "v2")).unwrap();
    repository.git(&[
        "add",
        "--",
        ".gitattributes",
        ".gitmodules",
        "exact",
        "main.kiln.hcl",
        "trap",
    ]);
    repository.git(&["-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--message", "Evil"]);
    // A push runs hooks of its own, which are not what is tested.
    fs::rename(repository.bare().join("hooks"), repository.bare().join("hooks.away")).unwrap();
    fs::create_dir(repository.bare().join("hooks")).unwrap();
    repository.push();
    fs::remove_dir(repository.bare().join("hooks")).unwrap();
    fs::rename(repository.bare().join("hooks.away"), repository.bare().join("hooks")).unwrap();
    let commit = repository.head();
    let _ = fs::remove_file(&mark);
    site.must(&["follow", "--now"]);
    served(&site, "v2");
    let result = result_of(&site, &commit, "deployed");
    assert!(result["notes"].to_string().contains("submodules are not followed"), "{result}");
    assert!(!mark.exists(), "something was run");
    let id = following(&site)["id"].as_str().unwrap().to_owned();
    let tree = site.root().join("cache/follow").join(id).join("tree/shop");
    assert_eq!(
        fs::read_to_string(tree.join("exact")).unwrap(),
        "$Id$\nline\n",
        "as it was committed"
    );
    assert_eq!(fs::read_dir(tree.join("vendor/x")).unwrap().count(), 0);
}

#[test]
fn nothing_leads_out_of_a_repository() {
    let site = site_or_skip!("nothing_leads_out_of_a_repository");
    let repository = followed(&site, &[]);
    let work = repository.work();
    for target in ["/etc/passwd", "../../../../etc/passwd"] {
        symlink(target, work.join("notes.kiln.hcl")).unwrap();
        let commit = repository.commit(&stack(&site, "bad"), "A link");
        let result = result_of(&site, &commit, "given_up");
        assert!(result["reason"].as_str().unwrap().contains("out of the stack's"), "{result}");
        assert!(!result.to_string().contains("root:"), "{result}");
        fs::remove_file(work.join("notes.kiln.hcl")).unwrap();
    }
    let key = site.root().join("store/key");
    let secret = format!("\nsecret \"stolen\" {{ file = \"{}\" }}\n", key.display());
    let commit = repository.commit(&(stack(&site, "bad") + &secret), "A secret");
    let result = result_of(&site, &commit, "given_up");
    assert!(result["reason"].as_str().unwrap().contains("where secrets may be"), "{result}");
    symlink("main.kiln.hcl", work.join("inside")).unwrap();
    repository.commit(&stack(&site, "v2"), "A link that stays inside");
    served(&site, "v2");
}

#[test]
fn damaged_objects_are_refused_and_what_runs_is_kept() {
    let site = site_or_skip!("damaged_objects_are_refused");
    let repository = followed(&site, &[]);
    // An entry called `.git`, as no git would write it.
    let blob = repository.git(&["hash-object", "-w", "main.kiln.hcl"]);
    let mut tree = b"100644 .git\0".to_vec();
    tree.extend((0..40).step_by(2).map(|i| u8::from_str_radix(&blob[i..i + 2], 16).unwrap()));
    fs::write(repository.work().join("tree.bin"), &tree).unwrap();
    let tree = repository.git(&["hash-object", "-t", "tree", "--literally", "-w", "tree.bin"]);
    fs::remove_file(repository.work().join("tree.bin")).unwrap();
    let commit = repository.git(&["commit-tree", &tree, "-p", "HEAD", "-m", "Evil"]);
    repository.git(&["push", "--quiet", "origin", &format!("{commit}:refs/heads/main")]);
    let result = result_of(&site, &commit, "given_up");
    assert!(result["reason"].as_str().unwrap().contains("git's checks"), "{result}");
    repository.commit(&stack(&site, "v2"), "Two");
    served(&site, "v2");

    // An object that is not what its name says.
    let good = repository.head();
    let commit = repository.commit_only(&stack(&site, "bad"), "Damaged");
    repository.git(&["push", "--quiet", "origin", "main:refs/heads/staging"]);
    let blob = repository.git(&["rev-parse", "HEAD:main.kiln.hcl"]);
    let object = repository.bare().join("objects").join(&blob[..2]).join(&blob[2..]);
    fs::remove_file(&object).unwrap();
    fs::write(&object, b"no object at all").unwrap();
    repository.bare_git(&["update-ref", "refs/heads/main", &commit]);
    let result = result_of(&site, &commit, "given_up");
    assert!(result["reason"].as_str().unwrap().contains("git's checks"), "{result}");
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
    repository.git(&["reset", "--quiet", "--hard", &good]);
    repository.commit(&stack(&site, "v3"), "Three");
    served(&site, "v3");
}
