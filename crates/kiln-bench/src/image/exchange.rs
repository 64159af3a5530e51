//! Pushing to a registry and pulling from it, beside skopeo.

use std::fs;
use std::process::Command;

use super::registry::Registry;
use super::{RUNS, Stack, is_there, times};
use crate::Result;
use crate::child::expect;
use crate::figures::{Table, ratio};

/// Prints the table.
pub(super) fn bench(stack: &Stack<'_>) -> Result {
    for program in ["docker-registry", "skopeo"] {
        if !is_there(program) {
            println!("\n{program} is not on this machine: pushing and pulling are not measured");
            return Ok(());
        }
    }
    let directory = stack.directory;
    let layout = directory.join("layout");
    stack.run(&["image", "build"])?;
    stack.run(&["image", "export", "web", path(&layout)?])?;
    let (mut push, mut pull) = (Vec::new(), Vec::new());
    let (mut their_push, mut their_pull) = (Vec::new(), Vec::new());
    for number in 0..RUNS {
        eprintln!("image: exchange, run {} of {RUNS}", number + 1);
        // A registry of its own each time: nothing is there already.
        let registry = Registry::start(&directory.join(format!("registry-{number}")))?;
        let own = format!("{}/own/web:v1", registry.address);
        push.push(stack.run(&["image", "push", "web", &own])?);
        let theirs = format!("docker://{}/theirs/web:v1", registry.address);
        let source = format!("oci:{}", layout.display());
        their_push.push(skopeo(stack, &["--dest-tls-verify=false", &source, &theirs])?);
        let other = directory.join("other-root");
        let mut command = Command::new(stack.kiln);
        command.arg("--root").arg(&other).args(["image", "pull", &own]);
        pull.push(expect(&mut command, &directory.join("pull.out"), 0)?);
        fs::remove_dir_all(&other)?;
        let target = directory.join("skopeo-pull");
        let to = format!("oci:{}", target.display());
        their_pull.push(skopeo(stack, &["--src-tls-verify=false", &theirs, &to])?);
        fs::remove_dir_all(&target)?;
    }
    let title = "Exchanging the image with a registry on this machine, beside skopeo";
    let mut table = Table::new(title, &["what", "Kiln", "skopeo", "ratio"]);
    for (name, own, theirs) in [
        ("push", &push, &their_push),
        ("pull, which for Kiln includes writing the filesystem", &pull, &their_pull),
    ] {
        let (own, theirs) = (times(own), times(theirs));
        let ratio = ratio(&own, &theirs);
        table.row(&[name.to_owned(), own.seconds(), theirs.seconds(), ratio]);
    }
    table.print();
    Ok(())
}

fn skopeo(stack: &Stack<'_>, words: &[&str]) -> Result<crate::child::Run> {
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--insecure-policy"]).args(words);
    expect(&mut command, &stack.directory.join("skopeo.out"), 0)
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "a temporary path is not text".into())
}
