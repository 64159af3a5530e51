//! Images to and from registries: one of the test's own with faults, and Debian's; and what other
//! programs make of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bases;
mod distribution;
mod faults;
mod interop;
mod layouts;
mod server;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use kiln_image::build::{Bases, BuildError, Built, Order};
use kiln_image::debian::suite::{Mirrors, native_architecture};
use kiln_image::fetch::{Cache, Fetcher, Patience};
use kiln_image::lock::{Lock, Sources};
use kiln_image::oci::reference::Reference;
use kiln_image::oci::registry::{Credentials, Registry};
use kiln_image::store::ImageStore;
use kiln_model::digest::Digest;
use kiln_model::spec::image::{Base, Recipe, Step};

/// A root, a stack's directory, and little patience.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

pub(crate) const PATIENCE: Patience = Patience {
    attempts: 3,
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_secs(2),
    connect: Duration::from_secs(5),
    stall: Duration::from_secs(5),
    whole: Duration::from_secs(20),
};

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&directory.path().join("root")).unwrap();
        std::fs::create_dir(directory.path().join("stack")).unwrap();
        Self { directory, store }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn stack(&self) -> std::path::PathBuf {
        self.path("stack")
    }

    pub(crate) fn sources(&self) -> Sources {
        let cache = Cache::open(self.path("root/cache")).unwrap();
        Sources {
            fetcher: Fetcher::new(cache, PATIENCE),
            mirrors: Mirrors::from_env().unwrap(),
            architecture: native_architecture().to_owned(),
            now_seconds: 0,
            registry: registry(),
        }
    }

    pub(crate) fn build(&self, name: &str, recipe: &Recipe) -> Result<Built, BuildError> {
        self.build_on(name, recipe, &Bases::new(), &Lock::default())
    }

    pub(crate) fn build_on(
        &self,
        name: &str,
        recipe: &Recipe,
        bases: &Bases,
        lock: &Lock,
    ) -> Result<Built, BuildError> {
        let stack = self.stack();
        let order = Order { name, recipe, stack: &stack };
        self.store.build_on(order, bases, lock, &self.sources(), &())
    }

    /// An image with one file.
    pub(crate) fn app(&self) -> Built {
        self.build("app", &recipe(Base::Scratch, "/app", "v1")).unwrap()
    }

    /// Takes away all that is known of images, as if on another machine.
    pub(crate) fn forget(&self) {
        for part in ["root/images", "root/store", "root/cache"] {
            std::fs::remove_dir_all(self.path(part)).unwrap();
        }
        ImageStore::open(&self.path("root")).unwrap();
    }
}

/// A client that soon gives up and has no logins.
pub(crate) fn registry() -> Registry {
    Registry::new(PATIENCE, Credentials::default())
}

/// An image on a base with one file.
pub(crate) fn recipe(base: Base, path: &str, content: &str) -> Recipe {
    Recipe {
        steps: vec![Step::File {
            path: path.to_owned(),
            content: content.to_owned(),
            owner: None,
            mode: Some(0o755),
        }],
        entrypoint: vec![path.to_owned()],
        env: BTreeMap::from([("MODE".to_owned(), content.chars().take(9).collect())]),
        ..Recipe::on(base)
    }
}

pub(crate) fn reference(text: impl AsRef<str>) -> Reference {
    text.as_ref().parse().unwrap()
}

/// An error with all its causes, as the command line shows it.
pub(crate) fn shown(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The blobs of a store, by name.
pub(crate) fn blobs(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("images/blobs/sha256")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Notes an artifact about an image in a store, as signatures are.
pub(crate) fn attach(store: &ImageStore, image: &Digest, text: &str) -> Digest {
    use kiln_image::store::{Descriptor, MANIFEST_MEDIA_TYPE, Manifest};
    let subject = (*image, store.bytes(image).unwrap().len() as u64);
    let config = store.publish_bytes(b"{}").unwrap();
    let layer = store.publish_bytes(text.as_bytes()).unwrap();
    let mut manifest = Manifest::new(config, vec![Descriptor::new("text/plain", layer)]);
    manifest.config =
        Descriptor::new("application/vnd.oci.empty.v1+json", (manifest.config.digest, 2));
    manifest.artifact_type = Some("application/vnd.test.note".to_owned());
    manifest.subject = Some(Descriptor::new(MANIFEST_MEDIA_TYPE, subject));
    store.publish_bytes(&serde_json::to_vec(&manifest).unwrap()).unwrap().0
}
