//! The stacks under `examples/` are right, and in canonical form.

use std::path::Path;

use kiln_config::fmt::fmt_dir;
use kiln_config::stack::{Inputs, Surroundings, load};
use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::image::Recipe;

struct Present<'p>(&'p Path);

impl Surroundings for Present<'_> {
    fn copied(&self, from: &str) -> Result<Digest, String> {
        let there = self.0.join(from).exists();
        there.then(|| Digest::of(from.as_bytes())).ok_or_else(|| format!("there is no {from:?}"))
    }

    fn locked_inputs(&self, _: &ComponentId, _: &Recipe) -> Option<Digest> {
        None
    }

    fn secret_version(&self, _: &ComponentId, _: Option<&[u8]>) -> Option<String> {
        None
    }
}

#[test]
fn examples_are_right_and_canonical() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let entries = std::fs::read_dir(&examples).expect("the examples are there");
    let mut seen = 0;
    for entry in entries {
        let directory = entry.expect("it is readable").path();
        if !directory.is_dir() {
            continue;
        }
        seen += 1;
        let inputs = Inputs { directory: directory.clone(), ..Inputs::default() };
        let stack = load(&inputs, &Present(&directory)).unwrap_or_else(|e| panic!("{e}"));
        assert!(stack.report.diagnostics.is_empty(), "{}", stack.report);
        for file in fmt_dir(&directory).expect("it parses") {
            assert_eq!(file.before, file.after, "{} is not canonical", file.path.display());
        }
    }
    assert!(seen > 0, "no examples in {}", examples.display());
}
