//! What may be copied from a stack's directory, and what its digest covers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use kiln_image::copy::{CopyError, digest};

#[test]
fn the_digest_covers_names_contents_modes_and_links_and_nothing_else() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for stack in [&one, &two] {
        fs::create_dir_all(stack.path().join("site/a")).unwrap();
        fs::write(stack.path().join("site/a/x"), "content").unwrap();
        symlink("a/x", stack.path().join("site/l")).unwrap();
    }
    let file = two.path().join("site/a/x");
    let of = |stack: &tempfile::TempDir| digest(stack.path(), "site").unwrap();
    // Owners, group and other bits, and times do not count.
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(two.path().join("site"), Permissions::from_mode(0o700)).unwrap();
    let base = of(&one);
    assert_eq!(base, of(&two));
    assert_eq!(base, digest(one.path(), "./site/").unwrap());
    fs::set_permissions(&file, Permissions::from_mode(0o700)).unwrap();
    let program = of(&two);
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "Content").unwrap();
    let content = of(&two);
    fs::write(&file, "content").unwrap();
    fs::rename(&file, two.path().join("site/a/y")).unwrap();
    let name = of(&two);
    fs::rename(two.path().join("site/a/y"), &file).unwrap();
    fs::remove_file(two.path().join("site/l")).unwrap();
    symlink("a", two.path().join("site/l")).unwrap();
    let link = of(&two);
    let all = [base, program, content, name, link];
    for (position, digest) in all.iter().enumerate() {
        assert!(!all[..position].contains(digest), "change {position} is not covered");
    }
}

#[test]
fn what_is_missing_or_leads_out_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let stack = outer.path().join("stack");
    fs::create_dir_all(stack.join("site/deep")).unwrap();
    fs::write(outer.path().join("secret"), "s").unwrap();
    let refused = |from: &str| digest(&stack, from).unwrap_err();
    assert!(matches!(refused("nothing"), CopyError::Missing { .. }));
    for from in ["../secret", "/etc/passwd", "site/../../secret"] {
        assert!(matches!(refused(from), CopyError::Escapes { .. }), "{from}");
    }
    symlink("../secret", stack.join("leak")).unwrap();
    assert!(matches!(refused("leak"), CopyError::Escapes { .. }));
    for target in ["/etc/passwd", "../../secret", "../../../x", "../../site/deep"] {
        let link = stack.join("site/deep/link");
        symlink(target, &link).unwrap();
        assert!(matches!(refused("site"), CopyError::Escapes { .. }), "{target}");
        fs::remove_file(link).unwrap();
    }
    symlink("../deep", stack.join("site/deep/link")).unwrap();
    assert!(digest(&stack, "site").is_ok());
    let _socket = UnixListener::bind(stack.join("site/socket")).unwrap();
    assert!(matches!(refused("site"), CopyError::Special { .. }));
}
