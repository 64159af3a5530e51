//! Typical mistakes and what is said about them: `golden/NAME.hcl` is loaded as a stack, and the
//! messages must be those of `golden/NAME.txt`. With `UPDATE_GOLDEN=1` they are written instead.

mod support;

use std::path::{Path, PathBuf};

use support::Files;

#[test]
fn mistakes_are_told_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("it is readable").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "hcl"))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 25, "{} mistakes", inputs.len());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| !value.is_empty());
    let mut wrong = Vec::new();
    for input in inputs {
        let text = std::fs::read_to_string(&input).expect("it is readable");
        let found = Files::new(&[("main.kiln.hcl", &text)]).errors();
        let golden = input.with_extension("txt");
        if update {
            std::fs::write(&golden, &found).expect("it is writable");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}:\n{found}\nexpected:\n{expected}", input.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
