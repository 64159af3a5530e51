//! What the tests of stacks share: a directory with files, and surroundings without a root.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::panic, reason = "a helper of tests fails as a test does")]

use std::collections::BTreeMap;
use std::path::Path;

use kiln_config::diagnostic::Report;
use kiln_config::stack::{Inputs, Stack, Surroundings, load};
use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::Spec;
use kiln_model::spec::image::Recipe;
use tempfile::TempDir;

/// Surroundings that know nothing but the stack's files: what is copied is a file.
pub(crate) struct OnlyFiles(pub(crate) std::path::PathBuf);

impl Surroundings for OnlyFiles {
    fn copied(&self, from: &str) -> Result<Digest, String> {
        let content = std::fs::read(self.0.join(from));
        content.map(|bytes| Digest::of(&bytes)).map_err(|_| format!("there is no {from:?}"))
    }

    fn locked_inputs(&self, _: &ComponentId, _: &Recipe) -> Option<Digest> {
        None
    }

    fn secret_version(&self, _: &ComponentId, value: Option<&[u8]>) -> Option<String> {
        value.map(|bytes| Digest::of(bytes).short(32))
    }
}

/// A stack's directory called `shop`.
pub(crate) struct Files {
    temporary: TempDir,
    pub(crate) inputs: Inputs,
}

impl Files {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let directory = temporary.path().join("shop");
        std::fs::create_dir(&directory).expect("a directory");
        let inputs = Inputs {
            directory_of_caller: directory.clone(),
            directory,
            env: BTreeMap::new(),
            ..Inputs::default()
        };
        let made = Self { temporary, inputs };
        for (name, text) in files {
            made.write(name, text);
        }
        made
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.inputs.directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a directory");
        std::fs::write(path, text).expect("a file is written");
    }

    pub(crate) fn load(&self) -> Result<Stack, Report> {
        load(&self.inputs, &OnlyFiles(self.inputs.directory.clone()))
    }

    /// The stack, which is right.
    pub(crate) fn stack(&self) -> Stack {
        self.load().unwrap_or_else(|report| panic!("{report}"))
    }

    /// What is wrong with the stack.
    pub(crate) fn errors(&self) -> String {
        let report = self.load().expect_err("something is wrong");
        report.to_string().replace(&*self.temporary.path().to_string_lossy(), "TMP")
    }
}

/// A stack of one file.
pub(crate) fn stack(text: &str) -> Stack {
    Files::new(&[("main.kiln.hcl", text)]).stack()
}

/// The errors of a stack of one file.
pub(crate) fn errors(text: &str) -> String {
    Files::new(&[("main.kiln.hcl", text)]).errors()
}

/// The spec of a component.
pub(crate) fn spec<'s>(stack: &'s Stack, id: &str) -> &'s Spec {
    let found = stack.specs.iter().find(|spec| spec.id.to_string() == id);
    found.unwrap_or_else(|| panic!("no {id} in {:?}", ids(stack)))
}

pub(crate) fn ids(stack: &Stack) -> Vec<String> {
    stack.specs.iter().map(|spec| spec.id.to_string()).collect()
}
