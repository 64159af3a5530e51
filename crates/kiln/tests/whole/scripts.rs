//! Maintainer scripts of Debian's own packages in the sandbox: they do their work, the same each
//! time, and one that fails is told of.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kiln_model::digest::Digest;
use serde_json::Value;
use tempfile::TempDir;

use crate::images::{Place, digests, must, share};
use crate::site::told;

/// A cache of MIME types that a script makes with a program of its package, and a user that another
/// makes with `adduser`.
const STACK: &str = r#"
image "made" {
  base       = debian("bookworm")
  packages   = ["shared-mime-info", "memcached"]
  scripts    = "sandbox"
  entrypoint = ["/usr/bin/memcached", "-u", "memcache", "-l", "0.0.0.0"]
  user       = "memcache"

  test "made" {
    tcp          = 11211
    file         = [
      { path = "/usr/share/mime/mime.cache", owner = "root" },
      { path = "/usr/share/mime/text/html.xml" },
      { path = "/etc/passwd", contains = "memcache:" },
    ]
    no_such_file = ["/usr/bin/dpkg", "/usr/sbin/adduser", "/usr/sbin/policy-rc.d", "/tmp/.kiln"]
  }
}
"#;

/// Whether this can be tried here; says so where not.
fn is_root(name: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {name}: needs root");
    }
    root
}

/// Locks what the stack asks for, unless the mirror can't be reached.
fn lock(place: &Place, name: &str) -> bool {
    let locked = place.kiln(&["image", "lock"]).output().unwrap();
    if !locked.status.success() && told(&locked).contains("can't fetch") {
        println!("skipped: {name}: Debian's mirror can't be reached");
        return false;
    }
    assert!(locked.status.success(), "{}", told(&locked));
    true
}

#[test]
fn scripts_of_debians_packages_do_their_work_and_the_same_each_time() {
    let name = "scripts_of_debians_packages_do_their_work_and_the_same_each_time";
    if !is_root(name) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let here = Place::empty(directory.path(), "here");
    fs::write(here.stack.join("main.kiln.hcl"), STACK).unwrap();
    if !lock(&here, name) {
        return;
    }
    let output = here.kiln(&["image", "build"]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(!told(&output).contains("warning"), "{}", told(&output));
    let listed = must(here.kiln(&["--json", "image", "list"]));
    assert_eq!(listed["images"][0]["admitted"], true, "{listed}");
    let built = digests(&listed);

    let elsewhere = Place::empty(directory.path(), "another/place");
    let untested = STACK.split("  test").next().unwrap().to_owned() + "}\n";
    fs::write(elsewhere.stack.join("main.kiln.hcl"), untested).unwrap();
    fs::copy(here.stack.join("kiln.lock"), elsewhere.stack.join("kiln.lock")).unwrap();
    share(&here.root.join("cache/sha256"), &elsewhere.root.join("cache/sha256"));
    let again = digests(&must(elsewhere.estranged(&["--json", "image", "build"])));
    assert_eq!(again, built);
}

#[test]
fn a_script_that_fails_is_told_with_its_package_and_what_it_said() {
    let name = "a_script_that_fails_is_told_with_its_package_and_what_it_said";
    if !is_root(name) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let place = Place::empty(directory.path(), "here");
    if let Err(lack) = publish(directory.path(), &place.stack.join("brittle.asc")) {
        println!("skipped: {name}: {lack}");
        return;
    }
    let stack = format!(
        "image \"brittle\" {{\n  base = debian(\"bookworm\")\n  packages = [\"brittle\"]\n  \
         scripts = \"sandbox\"\n  entrypoint = [\"/bin/true\"]\n  repository \"own\" {{\n    \
         url = \"file://{}\"\n    suite = \"own\"\n    key = file(\"brittle.asc\")\n  }}\n}}\n",
        directory.path().join("archive").display()
    );
    fs::write(place.stack.join("main.kiln.hcl"), stack).unwrap();
    if !lock(&place, name) {
        return;
    }
    let output = place.kiln(&["image", "build"]).output().unwrap();
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "image brittle",
        "brittle.postinst",
        "configure",
        "exited with status 4",
        "| looking for the licence",
        "| there is none",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let listed: Value = must(place.kiln(&["--json", "image", "list"]));
    assert_eq!(listed["images"].as_array().unwrap().len(), 0, "{listed}");
    let left = fs::read_dir(place.root.join("cache/tmp")).unwrap().count();
    assert_eq!(left, 0, "something half done is left");
}

/// Makes an archive with one package, whose script fails, and the key that signs it; or what is
/// lacking.
fn publish(directory: &Path, key: &Path) -> Result<(), String> {
    let (tree, archive) = (directory.join("brittle"), directory.join("archive"));
    let control = "Package: brittle\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody\n\
                   Depends: dash\nDescription: fails\n";
    let script =
        "#!/bin/sh\nset -e\necho looking for the licence\necho there is none >&2\nexit 4\n";
    let index = archive.join("dists/own/main/binary-amd64");
    for path in [&tree.join("DEBIAN"), &index, &directory.join("gpg")] {
        fs::create_dir_all(path).map_err(|e| e.to_string())?;
    }
    fs::write(tree.join("DEBIAN/control"), control).map_err(|e| e.to_string())?;
    fs::write(tree.join("DEBIAN/postinst"), script).map_err(|e| e.to_string())?;
    run("chmod", &["755", "brittle/DEBIAN/postinst"], directory)?;
    run("dpkg-deb", &["--build", "brittle", "archive/brittle.deb"], directory)?;
    let deb = fs::read(archive.join("brittle.deb")).map_err(|e| e.to_string())?;
    let (sum, length) = (Digest::of(&deb).hex(), deb.len());
    let packages = format!("{control}Filename: brittle.deb\nSize: {length}\nSHA256: {sum}\n\n");
    fs::write(index.join("Packages"), &packages).map_err(|e| e.to_string())?;
    let (sum, length) = (Digest::of(packages.as_bytes()).hex(), packages.len());
    let release = format!(
        "Suite: own\nCodename: own\nDate: Wed, 31 Dec 2025 00:00:00 UTC\nSHA256:\n \
         {sum} {length} main/binary-amd64/Packages\n"
    );
    fs::write(directory.join("Release"), release).map_err(|e| e.to_string())?;
    let gpg = |arguments: &[&str]| {
        run("gpg", &[&["--batch", "--quiet", "--homedir", "gpg"], arguments].concat(), directory)
    };
    let made = gpg(&["--passphrase", "", "--quick-gen-key", "Test", "rsa3072", "sign", "never"]);
    let signed = made.and_then(|_| {
        fs::write(key, gpg(&["--armor", "--export"])?.stdout).map_err(|e| e.to_string())?;
        gpg(&["--output", "archive/dists/own/InRelease", "--clearsign", "Release"])
    });
    // The agent that gpg has started ends.
    let _ = run("gpgconf", &["--homedir", "gpg", "--kill", "all"], directory);
    signed.map(drop)
}

fn run(program: &str, arguments: &[&str], directory: &Path) -> Result<Output, String> {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    match output {
        Ok(output) if output.status.success() => Ok(output),
        Ok(output) => Err(format!("{program}: {}", told(&output))),
        Err(error) => Err(format!("needs {program}: {error}")),
    }
}
