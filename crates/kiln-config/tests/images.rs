//! Images and what a stack demands of them, from files to specs.

#![allow(clippy::panic, reason = "a test program: a failed expectation is a panic")]

mod support;

use kiln_model::digest::Digest;
use kiln_model::quantity::Millis;
use kiln_model::spec::image::{Base, Check, Image, Pocket, Scripts, Step, Surface};
use kiln_model::trust::Integrity;
use support::{Files, spec};

fn image<'s>(stack: &'s kiln_config::stack::Stack, id: &str) -> &'s Image {
    spec(stack, id).as_image().expect("it is an image")
}

#[test]
fn an_image_has_all_that_its_block_says() {
    let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n";
    let files = Files::new(&[
        ("main.kiln.hcl", IMAGES),
        ("keys/pgdg.asc", key),
        ("rootfs.tar.gz", "a tarball"),
        ("layout", "a layout"),
        // The public key of RFC 8032, section 7.1, test 1, as OpenSSL writes it.
        (
            "keys/ci.pub",
            "-----BEGIN PUBLIC KEY-----\n\
             MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
             -----END PUBLIC KEY-----\n",
        ),
    ]);
    let stack = files.stack();
    let made = image(&stack, "image.database");
    let recipe = &made.identity.recipe;
    assert_eq!(recipe.pockets, Some([Pocket::Security, Pocket::Backports].into()));
    assert!(recipe.recommends && recipe.packages.contains("libc6:i386"));
    assert_eq!((recipe.scripts, recipe.keep.len()), (Scripts::Sandbox, 2));
    let [repository] = &recipe.repositories[..] else { panic!("{:?}", recipe.repositories) };
    assert_eq!((repository.name.as_str(), repository.key.as_str()), ("pgdg", key));
    assert_eq!(repository.components, ["main".to_owned()].into());
    let Step::Run { command, network, .. } = &recipe.steps[1] else { panic!("{recipe:?}") };
    assert_eq!((command.len(), *network, recipe.is_open()), (2, true, true));
    assert_eq!(made.policy.surface, Surface::Deny);
    let [test] = &made.policy.tests[..] else { panic!("{:?}", made.policy.tests) };
    assert_eq!((test.checks.len(), test.deadline), (10, Millis::seconds(20)));
    assert_eq!(test.checks[1], Check::Tcp { port: 5432 });
    assert_eq!(test.checks[2], Check::Tcp { port: 5433 });
    let bases: Vec<&Base> = ["registry", "layout", "tarball", "child"]
        .map(|name| &image(&stack, &format!("image.{name}")).identity.recipe.base)
        .into();
    assert!(matches!(bases[0], Base::Oci { reference } if reference == "localhost:5000/a/b:1.2"));
    assert!(matches!(bases[1], Base::OciLayout { path, .. } if path == "layout:v1"));
    assert!(
        matches!(bases[2], Base::Tarball { digest, .. } if *digest == Digest::of(b"a tarball"))
    );
    assert!(matches!(bases[3], Base::Image { image } if image.id.to_string() == "image.database"));
    let child = spec(&stack, "image.child");
    let from: Vec<String> = child.built_from().iter().map(ToString::to_string).collect();
    assert_eq!(from, ["image.database", "image.registry"]);
    let signers: Vec<String> = stack.demands.signers().iter().map(ToString::to_string).collect();
    let known = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(signers, ["own", known]);
    assert_eq!(stack.demands.integrity, Some(Integrity::DmVerity));
}

const IMAGES: &str = r#"
stack {
  trust             = ["own", file("keys/ci.pub")]
  require_integrity = "dm-verity"
}

image "database" {
  base       = debian("bookworm")
  packages   = ["postgresql-16", "libc6:i386"]
  pockets    = ["security", "backports"]
  recommends = true
  keep       = ["man", "dpkg"]
  scripts    = "sandbox"
  surface    = "deny"

  repository "pgdg" {
    url   = "https://apt.example.org/debian/"
    suite = "bookworm-pgdg"
    key   = file("keys/pgdg.asc")
  }

  group "app" { gid = 2000 }
  run "compile" {
    command = ["/usr/bin/make", "all"]
    network = true
  }
  test "serves" {
    http         = { port = 80, path = "/", status = 200, contains = "ok" }
    tcp          = [5432, { port = 5433 }]
    exec         = { command = ["/usr/bin/app", "--version"], contains = "1." }
    file         = { path = "/etc/app", mode = "0644", owner = "app" }
    no_such_file = ["/bin/sh", "/usr/bin/apt"]
    port_closed  = 22
    log_contains = "ready"
    stays_up     = "2s"
    deadline     = "20s"
  }
}

image "registry" { base = oci("localhost:5000/a/b:1.2") }
image "layout" { base = oci_layout("layout:v1") }
image "tarball" { base = tarball("rootfs.tar.gz") }
image "child" {
  base = image.database
  copy "/usr/bin/make" {
    from = image.registry
    to   = "/usr/local/bin/"
  }
}
"#;
