//! `run` steps of recipes, built as a user would.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kiln_image::build::{BuildError, Built, Order};
use kiln_image::copy;
use kiln_image::lock::{Lock, Sources};
use kiln_image::store::ImageStore;
use kiln_model::spec::image::{Base, Recipe, Step};

use crate::support::{Ground, files};

/// A recipe that has the machine's programs, and then `steps`.
fn recipe(stack: &Path, steps: Vec<Step>) -> Recipe {
    for path in files() {
        let there = stack.join("files").join(path.trim_start_matches('/'));
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::copy(&path, &there).unwrap();
    }
    let digest = copy::digest(stack, "files").unwrap();
    let (from, to) = ("files".to_owned(), "/".to_owned());
    let copy = Step::Copy { from, to, digest, owner: None, mode: None };
    let user = Step::User { name: "app".to_owned(), uid: Some(1500), home: None };
    let steps = [vec![user, copy], steps].concat();
    Recipe { steps, ..Recipe::on(Base::Scratch) }
}

fn run(name: &str, script: &str) -> Step {
    Step::Run {
        name: name.to_owned(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("WORD".to_owned(), "clay".to_owned())]),
        user: None,
        workdir: Some("/srv/work".to_owned()),
        network: false,
    }
}

fn directory(path: &str) -> Step {
    Step::Directory { path: path.to_owned(), owner: None, mode: None }
}

/// Builds in a root of its own, as if nothing had ever been built.
fn build(ground: &Ground, store: &str, recipe: &Recipe) -> Result<Built, Box<BuildError>> {
    let root = ground.root.path().join(store);
    fs::create_dir(&root).unwrap();
    let store = ImageStore::open(&root).unwrap().with_sandbox(Arc::new(ground.sandbox()));
    let sources = Sources::of_root(&root).unwrap();
    let stack = ground.root.path().join("stack");
    let order = Order { name: "app", recipe, stack: &stack };
    store.build(order, &Lock::default(), &sources, &()).map_err(Box::new)
}

#[test]
fn a_step_s_work_is_in_the_image_and_the_same_each_time() {
    let Some(ground) = Ground::new("a_step_s_work_is_in_the_image_and_the_same_each_time") else {
        return;
    };
    let stack = ground.root.path().join("stack");
    let script = "echo $WORD $HOME $LANG $SOURCE_DATE_EPOCH >word; date >date; \
                  chown app word 2>/dev/null || chown 1500 word; rm /usr/bin/dd; \
                  echo 'late:x:1600:1600::/:' >>/etc/passwd; echo no >/tmp/no";
    let mut late = run("late", "id -u >/srv/who 2>/dev/null || :");
    if let Step::Run { user, workdir, .. } = &mut late {
        (*user, *workdir) = (Some("late".to_owned()), None);
    }
    let give = Step::Directory {
        path: "/srv/late".to_owned(),
        owner: Some("late".to_owned()),
        mode: None,
    };
    let steps = vec![directory("/srv/work"), run("work", script), late, give];
    let recipe = recipe(&stack, steps);
    let first = build(&ground, "one", &recipe).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = build(&ground, "two", &recipe).unwrap();
    assert_eq!(first.record.digest, second.record.digest);
    assert_eq!(first.warnings, Vec::<String>::new());
}

#[test]
fn a_step_that_fails_is_told_with_its_last_words_and_nothing_is_built() {
    let Some(ground) = Ground::new("a_step_that_fails_is_told_with_its_last_words") else { return };
    let stack = ground.root.path().join("stack");
    let step = run("compile", "echo first; echo 'no such header' >&2; exit 3");
    let recipe = recipe(&stack, vec![directory("/srv/work"), step]);
    let error = build(&ground, "one", &recipe).unwrap_err();
    let text = chain(&*error);
    assert!(text.contains("run \"compile\""), "{text}");
    assert!(text.contains("exited with status 3") && text.contains("no such header"), "{text}");
    let store = ImageStore::open(&ground.root.path().join("one")).unwrap();
    assert!(store.list().unwrap().is_empty());
    let left = fs::read_dir(ground.root.path().join("one/cache/tmp")).unwrap().count();
    assert_eq!(left, 0, "the work directory is left");
}

#[test]
fn without_a_sandbox_no_program_runs() {
    let Some(ground) = Ground::new("without_a_sandbox_no_program_runs") else { return };
    let stack = ground.root.path().join("stack");
    let recipe = recipe(&stack, vec![directory("/srv/work"), run("never", "exit 0")]);
    let root = ground.root.path().join("bare");
    fs::create_dir(&root).unwrap();
    let store = ImageStore::open(&root).unwrap();
    let sources = Sources::of_root(&root).unwrap();
    let order = Order { name: "app", recipe: &recipe, stack: &stack };
    let error = store.build(order, &Lock::default(), &sources, &()).unwrap_err();
    assert!(chain(&error).contains("only in a sandbox"), "{}", chain(&error));
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
