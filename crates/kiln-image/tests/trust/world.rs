//! A root with images that need no mirror.

use std::error::Error;
use std::path::Path;

use kiln_image::admission::{AdmitError, Candidate, Guard, Passed, admit};
use kiln_image::build::{Built, Order};
use kiln_image::debian::suite::native_architecture;
use kiln_image::lock::{Lock, Sources};
use kiln_image::sign::Signing;
use kiln_image::store::ImageStore;
use kiln_model::quantity::{Bytes, Millis, Timestamp};
use kiln_model::spec::image::{Base, Check, ImageTest, Recipe, Step};
use kiln_model::trust::PublicKey;
use tempfile::TempDir;

/// A root of its own.
pub(crate) struct World {
    root: TempDir,
    pub(crate) store: ImageStore,
    pub(crate) signing: Signing,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = ImageStore::open(root.path()).unwrap();
        let signing = Signing::of_root(root.path());
        Self { root, store, signing }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// A guard that has seen nothing yet, as in a daemon that was just started.
    pub(crate) fn guard(&self) -> Guard {
        Guard::new(self.store.clone(), self.signing.clone())
    }

    pub(crate) fn build(&self, recipe: &Recipe) -> Built {
        let sources = Sources::of_root(self.path()).unwrap();
        let order = Order { name: "app", recipe, stack: self.path() };
        self.store.build(order, &Lock::default(), &sources, &()).unwrap()
    }

    pub(crate) fn admit(
        &self,
        recipe: &Recipe,
        built: &Built,
        tests: &[ImageTest],
        passed: &[Passed],
    ) -> Result<PublicKey, AdmitError> {
        let lock = Lock::default();
        let architecture = native_architecture();
        let candidate = Candidate { built, recipe, lock: &lock, architecture, tests };
        admit(&self.store, &self.signing, &candidate, passed, Timestamp(1_700_000_000_000))
    }

    /// Builds and admits an image of one file with a content.
    pub(crate) fn admitted(&self, content: &str) -> Built {
        let recipe = recipe(content);
        let built = self.build(&recipe);
        self.admit(&recipe, &built, &[], &[]).unwrap();
        built
    }
}

/// An image of one file.
pub(crate) fn recipe(content: &str) -> Recipe {
    let file = Step::File {
        path: "/etc/release".into(),
        content: content.into(),
        owner: None,
        mode: None,
    };
    let entrypoint = vec!["/serve".into()];
    Recipe { steps: vec![file], entrypoint, ..Recipe::on(Base::Scratch) }
}

/// A test that asks for a file.
pub(crate) fn test(path: &str) -> ImageTest {
    ImageTest {
        name: "has a release".into(),
        checks: vec![Check::NoSuchFile { path: path.into() }],
        deadline: Millis::seconds(5),
        env: std::collections::BTreeMap::new(),
        command: None,
        writable: std::collections::BTreeMap::new(),
        memory: Bytes::mib(64),
    }
}

/// The same test, passed.
pub(crate) fn passed(test: &ImageTest) -> Passed {
    Passed { name: test.name.clone(), checks: test.checks.clone(), time: Millis(12) }
}

/// An error with all its causes.
pub(crate) fn shown(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
