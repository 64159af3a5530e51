//! The daemon of this machine: what instances are made of comes from the root's stores.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_engine::Store as _;
use kiln_engine::key::RootKey;
use kiln_engine::secret::Secrets;
use kiln_engine::store::sqlite::SqliteStore;
use kiln_image::admission::Guard;
use kiln_image::sign::{Blocks, Signing};
use kiln_image::store::{self, ImageStore, StoreError};
use kiln_local::local::{FileDigests, ImageFiles, ImageRefusal, Images, Local, SecretValues};
use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::spec::Body;
use kiln_model::spec::secret::SecretVersion;
use kiln_model::trust::Demands;

use crate::root::Root;

use super::process::{ServeError, own_program, serve};
use super::{chain, verity};

/// Serves `root` on this machine until SIGTERM or SIGINT. To be called before anything else of
/// the process is set up; see [`serve`].
pub fn serve_local(root: &Root) -> Result<(), ServeError> {
    serve(root, |root, store, key, log| {
        let images = ImageStore::open(root.path())?;
        let guard = Guard::new(images.clone(), Signing::of_root(root.path()));
        let images = Stored { images, guard, trees: root.path().join("cache/verity") };
        let values = Values { store, key };
        let local = Local::open(root.path(), &own_program()?, Box::new(images), Box::new(values))?;
        local.issue_certificates(Box::new(move |line| log.line(line)));
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(local)
    })
}

/// The image store as this machine needs it.
struct Stored {
    images: ImageStore,
    /// Whether an image is admitted by somebody whom the stack trusts, and not revoked.
    guard: Guard,
    /// Where hash trees are kept: they can be made again at any time.
    trees: PathBuf,
}

impl Images for Stored {
    fn get(&self, content: &Digest, demands: &Demands) -> Result<ImageFiles, ImageRefusal> {
        // The filesystem follows from the layers: where it is gone it is made again.
        let found = match self.images.get(content) {
            Err(StoreError::Absent { .. } | StoreError::Altered { .. }) => {
                self.images.derive(content, &())
            }
            found => found,
        };
        let found = found.map_err(|error| ImageRefusal {
            cause: chain(&error),
            hint: "`kiln image build` makes it anew".to_owned(),
        })?;
        let cleared = self.guard.clear(&found, demands).map_err(|refusal| ImageRefusal {
            cause: chain(&refusal),
            hint: refusal.hint().to_owned(),
        })?;
        Ok(files(found, cleared.blocks))
    }

    fn measure(&self, file: &File) -> io::Result<FileDigests> {
        verity::measure(file)
    }

    fn hash_tree(&self, image: &ImageFiles, file: &File) -> io::Result<PathBuf> {
        verity::hash_tree(&self.trees, &image.digest, file)
    }

    fn remake(&self, content: &Digest) -> Result<ImageFiles, String> {
        let made = self
            .images
            .derive(content, &())
            .map_err(|error| format!("{}; `kiln image build` makes it anew", chain(&error)))?;
        Ok(files(made, None))
    }
}

/// `blocks` is what this root has signed of the filesystem's blocks.
fn files(found: store::ImageFiles, blocks: Option<Blocks>) -> ImageFiles {
    let digest = found.erofs_digest;
    let signed = |Blocks { fs_verity, root }| FileDigests { digest, fs_verity, root };
    ImageFiles {
        rootfs: found.erofs,
        digest,
        signed: blocks.map(signed),
        argv: found.config.argv(),
        env: found.config.environment(),
        writable: found.config.writable(),
        user: found.config.user,
        workdir: found.config.working_dir,
    }
}

/// The values of secrets, by the version that a generation names.
struct Values {
    store: Arc<SqliteStore>,
    key: RootKey,
}

impl SecretValues for Values {
    fn reveal(
        &self,
        stack: &StackName,
        generation: u64,
        secret: &ComponentId,
    ) -> Result<String, String> {
        let found = self.store.generation(stack, generation).map_err(|e| chain(&e))?;
        let found = found.ok_or_else(|| format!("there is no generation {generation}"))?;
        let spec = found.content.components.get(secret).map(|component| &component.spec.body);
        let Some(Body::Secret(spec)) = spec else {
            return Err(format!("generation {generation} has no {secret}"));
        };
        let SecretVersion::Known(version) = &spec.identity.version else {
            return Err(format!("generation {generation} knows no version of {secret}"));
        };
        self.reveal_version(stack, secret, version)
    }

    fn reveal_version(
        &self,
        stack: &StackName,
        secret: &ComponentId,
        version: &str,
    ) -> Result<String, String> {
        let value = Secrets::new(&self.store, &self.key).reveal(stack, secret, version);
        let value = value.map_err(|e| chain(&e))?;
        let value = value.ok_or_else(|| format!("version {version} of {secret} is not kept"))?;
        String::from_utf8(value).map_err(|_| format!("{secret} is not text"))
    }
}
