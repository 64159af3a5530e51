//! The daemon of this machine: what instances are made of comes from the root's stores.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_engine::Store as _;
use kiln_engine::key::RootKey;
use kiln_engine::secret::Secrets;
use kiln_engine::store::sqlite::SqliteStore;
use kiln_image::admission::Guard;
use kiln_image::sign::Signing;
use kiln_image::store::{self, ImageStore, StoreError};
use kiln_local::local::{ImageFiles, ImageRefusal, Images, Local, SecretValues};
use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::spec::Body;
use kiln_model::spec::secret::SecretVersion;
use kiln_model::trust::Demands;

use crate::root::Root;

use super::chain;
use super::process::{ServeError, own_program, serve};

/// Serves `root` on this machine until SIGTERM or SIGINT. To be called before anything else of
/// the process is set up; see [`serve`].
pub fn serve_local(root: &Root) -> Result<(), ServeError> {
    serve(root, |root, store, key| {
        let images = ImageStore::open(root.path())?;
        let guard = Guard::new(images.clone(), Signing::of_root(root.path()));
        let images = Verified { images, guard, seen: Mutex::default() };
        let values = Values { store, key };
        let local = Local::open(root.path(), &own_program()?, Box::new(images), Box::new(values))?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(local)
    })
}

/// The image store, each image verified before it is given out.
struct Verified {
    images: ImageStore,
    /// Whether it is admitted by somebody whom the stack trusts, and not revoked.
    guard: Guard,
    /// The files whose every byte was read and found right, as they were then.
    seen: Mutex<HashMap<Digest, Stamp>>,
}

/// By what a file that was written to, or put in another's place, is told from what was read:
/// the kernel sets the change time, and nobody can set it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl Verified {
    /// Reads every byte of an image's filesystem, unless that was done and the file is the same.
    fn read(&self, image: &store::ImageFiles) -> Result<(), StoreError> {
        // Taken before the bytes are read: what changes meanwhile is read again the next time.
        let stamp = Stamp::of(&image.erofs);
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen().get(&image.digest).copied();
        if stamp.is_none() || known != stamp {
            self.images.verify_image(&image.digest)?;
            seen().extend(stamp.map(|stamp| (image.digest, stamp)));
        }
        Ok(())
    }
}

impl Images for Verified {
    fn get(&self, content: &Digest, demands: &Demands) -> Result<ImageFiles, ImageRefusal> {
        let altered = |error: StoreError| ImageRefusal {
            cause: chain(&error),
            hint: "`kiln image build` makes it anew".to_owned(),
        };
        let found = self.images.get(content).map_err(altered)?;
        self.guard.check(&found, demands).map_err(|refusal| ImageRefusal {
            cause: chain(&refusal),
            hint: refusal.hint().to_owned(),
        })?;
        self.read(&found).map_err(altered)?;
        Ok(ImageFiles {
            rootfs: found.erofs,
            argv: found.config.argv(),
            env: found.config.environment(),
            writable: found.config.writable(),
            user: found.config.user,
            workdir: found.config.working_dir,
        })
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
        let value = Secrets::new(&self.store, &self.key).reveal(stack, secret, version);
        let value = value.map_err(|e| chain(&e))?;
        let value = value.ok_or_else(|| format!("version {version} of {secret} is not kept"))?;
        String::from_utf8(value).map_err(|_| format!("{secret} is not text"))
    }
}
