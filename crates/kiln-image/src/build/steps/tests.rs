//! Steps on an image that starts from nothing.

use std::collections::BTreeMap;
use std::fs;

use kiln_model::quantity::Bytes;
use kiln_model::spec::image::Base;
use tempfile::TempDir;

use super::*;
use crate::tree::Kind;

fn recipe(steps: Vec<Step>) -> Recipe {
    Recipe {
        steps,
        workdir: Some("/app".into()),
        writable: BTreeMap::from([("/var/cache/app".to_owned(), Bytes::mib(1))]),
        ..Recipe::on(Base::Scratch)
    }
}

fn copy_step(stack: &TempDir, from: &str, to: &str) -> Step {
    let digest = copy::digest(stack.path(), from).unwrap();
    Step::Copy { from: from.into(), to: to.into(), digest, owner: None, mode: None }
}

fn applied(stack: &TempDir, steps: Vec<Step>) -> Result<Rootfs, StepError> {
    let workspace = tempfile::tempdir().unwrap();
    let mut root = Rootfs::scratch().unwrap();
    let ground = Ground {
        sandbox: None,
        workspace: workspace.path(),
        env: &BTreeMap::new(),
        clock: crate::sandbox::NO_DATE,
        progress: &(),
    };
    let other = other_image();
    let others =
        BTreeMap::from([(ComponentId::new(kiln_model::name::Kind::Image, "other"), other)]);
    let materials = Materials { stack: stack.path(), others: &others };
    apply(&mut root, &recipe(steps), &materials, &ground)?;
    Ok(root)
}

fn text(root: &Rootfs, path: &str) -> String {
    let content = root.tree.get(path).and_then(Inode::content).unwrap();
    String::from_utf8(content.read().unwrap()).unwrap()
}

#[test]
fn a_directory_s_entries_go_into_the_target() {
    let stack = tempfile::tempdir().unwrap();
    fs::create_dir_all(stack.path().join("site/deep")).unwrap();
    fs::write(stack.path().join("site/index.html"), "one").unwrap();
    fs::write(stack.path().join("site/deep/page"), "two").unwrap();
    std::os::unix::fs::symlink("deep/page", stack.path().join("site/link")).unwrap();
    let root = applied(&stack, vec![copy_step(&stack, "site/", "/srv/www")]).unwrap();
    assert_eq!(text(&root, "srv/www/index.html"), "one");
    assert_eq!(text(&root, "srv/www/deep/page"), "two");
    let link = root.tree.get("srv/www/link").unwrap();
    assert!(matches!(link.kind(), Kind::Symlink(target) if **target == *b"deep/page"));
}

#[test]
fn a_file_goes_to_or_into_the_target() {
    let stack = tempfile::tempdir().unwrap();
    fs::write(stack.path().join("a.conf"), "a").unwrap();
    let steps = vec![
        copy_step(&stack, "a.conf", "/etc/b.conf"),
        copy_step(&stack, "a.conf", "/opt/"),
        copy_step(&stack, "a.conf", "/etc"),
        copy_step(&stack, "a.conf", "/"),
    ];
    let root = applied(&stack, steps).unwrap();
    for path in ["etc/b.conf", "opt/a.conf", "etc/a.conf", "a.conf"] {
        assert_eq!(text(&root, path), "a", "{path}");
    }
}

#[test]
fn owners_modes_and_places_are_as_declared() {
    let stack = tempfile::tempdir().unwrap();
    let owner = Some("app:33".to_owned());
    let path = "/etc/app/key".to_owned();
    let steps = vec![
        Step::File { path, content: "k".into(), owner: owner.clone(), mode: Some(0o640) },
        Step::Directory { path: "/data".into(), owner, mode: None },
        Step::Symlink { path: "/usr/bin/x".into(), target: "/app/x".into() },
        Step::User { name: "app".into(), uid: Some(4242), home: Some("/data".into()) },
    ];
    let root = applied(&stack, steps).unwrap();
    let key = root.tree.get("etc/app/key").unwrap().metadata();
    assert_eq!((key.mode, key.uid, key.gid), (0o640, 4242, 33));
    assert_eq!(root.tree.get("data").unwrap().metadata().mode, 0o755);
    assert!(text(&root, "etc/passwd").contains("app:x:4242:4242:app:/data:"));
    for path in ["app", "var/cache/app", "proc", "tmp"] {
        assert!(root.tree.get(path).unwrap().is_directory(), "{path}");
    }
}

#[test]
fn another_content_has_another_time() {
    let stack = tempfile::tempdir().unwrap();
    let time = |content: &str| {
        let step = Step::File {
            path: "/index.html".into(),
            content: content.into(),
            owner: None,
            mode: None,
        };
        let root = applied(&stack, vec![step]).unwrap();
        root.tree.get("index.html").unwrap().metadata().mtime
    };
    assert_eq!(time("v1"), time("v1"));
    assert_ne!(time("v1"), time("v2"));
}

#[test]
fn wrong_steps_say_what_is_wrong() {
    let stack = tempfile::tempdir().unwrap();
    let file = |path: &str, owner: Option<&str>, mode| Step::File {
        path: path.into(),
        content: String::new(),
        owner: owner.map(str::to_owned),
        mode,
    };
    let fails = |step| applied(&stack, vec![step]).unwrap_err();
    assert!(matches!(fails(file("/a", Some("who"), None)), StepError::Account { .. }));
    assert!(matches!(fails(file("/a", None, Some(0o4755))), StepError::Mode { .. }));
    assert!(matches!(fails(file("/../a", None, None)), StepError::Place { .. }));
    assert!(matches!(fails(file("/etc/passwd/a", None, None)), StepError::Place { .. }));
    let user = Step::User { name: "a:b".into(), uid: None, home: None };
    assert!(matches!(fails(user), StepError::Account { .. }));
}

#[test]
fn files_that_changed_since_they_were_measured_are_refused() {
    let stack = tempfile::tempdir().unwrap();
    fs::write(stack.path().join("a"), "one").unwrap();
    let step = copy_step(&stack, "a", "/a");
    fs::write(stack.path().join("a"), "two").unwrap();
    let error = applied(&stack, vec![step]).unwrap_err();
    assert!(matches!(error, StepError::Copy(CopyError::Changed { .. })), "{error}");
}

/// An image with a program of somebody and a link to it.
fn other_image() -> Tree {
    let mut tree = Tree::new();
    tree.make_directories("opt/app/lib", &Metadata::new(0o750).owned_by(7, 8)).unwrap();
    let program = Metadata::new(0o755).owned_by(7, 8);
    tree.insert("opt/app/run", Inode::file(program, b"program".to_vec())).unwrap();
    tree.insert("opt/app/lib/link", Inode::symlink(Metadata::new(0o777), "../run")).unwrap();
    tree.insert("opt/apple", Inode::file(Metadata::new(0o644), b"no part".to_vec())).unwrap();
    tree
}

fn take_step(from: &str, to: &str, owner: Option<&str>) -> Step {
    Step::Take {
        image: ComponentId::new(kiln_model::name::Kind::Image, "other").into(),
        from: from.into(),
        to: to.into(),
        owner: owner.map(str::to_owned),
        mode: None,
    }
}

#[test]
fn a_directory_of_another_image_comes_as_it_is() {
    let stack = tempfile::tempdir().unwrap();
    let root = applied(&stack, vec![take_step("/opt/app", "/srv", None)]).unwrap();
    assert_eq!(text(&root, "srv/run"), "program");
    let program = root.tree.get("srv/run").unwrap().metadata();
    assert_eq!((program.mode, program.uid, program.gid), (0o755, 7, 8));
    let link = root.tree.get("srv/lib/link").unwrap();
    assert!(matches!(link.kind(), Kind::Symlink(target) if **target == *b"../run"));
    assert!(root.tree.get("srv/le").is_none() && root.tree.get("opt").is_none());
}

#[test]
fn a_file_of_another_image_goes_where_it_is_sent() {
    let stack = tempfile::tempdir().unwrap();
    let steps = vec![
        take_step("/opt/app/run", "/usr/bin/", Some("0:0")),
        take_step("/opt/app/run", "/hello", None),
    ];
    let root = applied(&stack, steps).unwrap();
    assert_eq!(text(&root, "usr/bin/run"), "program");
    let program = root.tree.get("usr/bin/run").unwrap().metadata();
    assert_eq!((program.mode, program.uid, program.gid), (0o755, 0, 0));
    assert_eq!(text(&root, "hello"), "program");
    let error = applied(&stack, vec![take_step("/opt/none", "/x", None)]).unwrap_err();
    assert_eq!(error.to_string(), "copy \"/opt/none\": image.other has nothing there");
}
