//! One flipped byte, anywhere, is caught: by the build, by a start, or by verification.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_image::admission::{Candidate, Guard, admit};
use kiln_image::audit;
use kiln_image::build::{Built, Order};
use kiln_image::lock::Lock;
use kiln_image::sign::Signing;
use kiln_image::store::ImageStore;
use kiln_model::quantity::Timestamp;
use kiln_model::spec::image::{Recipe, Step};
use kiln_model::trust::Demands;

use crate::{World, packages, recipe, rewrite};

/// How many flips there are.
const FLIPS: usize = 200;

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound
    }

    /// The bytes with one of them changed.
    fn flip(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        let at = self.below(bytes.len());
        bytes[at] ^= u8::try_from(1 + self.below(255)).unwrap_or(1);
        bytes
    }
}

/// What a flip hits.
#[derive(Debug, Clone)]
enum Target {
    /// A package in the cache.
    Package(PathBuf),
    /// A file that the mirror serves for its indexes.
    Index(String, Vec<u8>),
    /// The lock.
    Lock,
    /// A file that a start reads.
    Started(PathBuf),
    /// A file that only verification reads.
    Kept(PathBuf),
}

/// An image of packages and a copied file, admitted, and all that it hangs on.
struct Whole {
    world: World,
    recipe: Recipe,
    lock: Lock,
    built: Built,
    store: ImageStore,
    signing: Signing,
}

impl Whole {
    fn new() -> Self {
        let world = World::with_app();
        let root = world.root.path();
        fs::write(root.join("motd"), "hello").unwrap();
        let digest = kiln_image::copy::digest(root, "motd").unwrap();
        let (from, to) = ("motd".into(), "/etc/motd".into());
        let copy = Step::Copy { from, to, digest, owner: None, mode: None };
        let recipe = Recipe { steps: vec![copy], ..recipe(&["app"]) };
        let mut lock = Lock::default();
        lock.update([&recipe], &world.sources(), false, &()).unwrap();
        lock.save(root).unwrap();
        let store = ImageStore::open(root).unwrap();
        let order = Order { name: "app", recipe: &recipe, stack: root };
        let built = store.build(order, &lock, &world.sources(), &()).unwrap();
        let signing = Signing::of_root(root);
        let architecture = &world.sources().architecture;
        let candidate =
            Candidate { built: &built, recipe: &recipe, lock: &lock, architecture, tests: &[] };
        admit(&store, &signing, &candidate, &[], Timestamp(0)).unwrap();
        // A key that signed once, and one that signs now.
        signing.rotate().unwrap();
        Self { world, recipe, lock, built, store, signing }
    }

    fn root(&self) -> &Path {
        self.world.root.path()
    }

    fn targets(&self) -> Vec<Target> {
        let files = |directory: &str| -> Vec<PathBuf> {
            let entries = fs::read_dir(self.root().join(directory)).unwrap();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths
        };
        let is_package = |path: &&PathBuf| {
            let bytes = fs::read(path).unwrap();
            packages().iter().any(|package| package.deb == bytes)
        };
        let mut targets = vec![Target::Lock, Target::Lock];
        targets
            .extend(files("cache/sha256").iter().filter(is_package).cloned().map(Target::Package));
        let served = self.world.server.served("/debian/dists/test/");
        targets.extend(served.into_iter().map(|(path, bytes)| Target::Index(path, bytes)));
        let admission = self.admission();
        for path in files("images/blobs/sha256") {
            let image = [&self.built.record.digest, &self.built.image.erofs_digest];
            let started = image.iter().any(|digest| self.store.blob(digest) == path)
                || admission.contains(&path)
                || fs::read(&path).unwrap().starts_with(b"{\"architecture\"");
            targets.push(if started { Target::Started(path) } else { Target::Kept(path) });
        }
        targets.extend(files("store/signing/rootfs").into_iter().map(Target::Started));
        targets.push(Target::Started(self.signing.ring_path()));
        targets.extend(files("store/signing/keys").into_iter().map(Target::Kept));
        targets
    }

    /// The artifact and the envelope that admit the image.
    fn admission(&self) -> Vec<PathBuf> {
        let kind = Some(kiln_image::attest::Kind::Admission);
        let (found, _) =
            kiln_image::attest::attestations(&self.store, &self.built.record.digest, kind).unwrap();
        let artifact = found[0].artifact;
        let text = self.store.read_blob(&artifact).unwrap();
        let text: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let envelope = text["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
        vec![self.store.blob(&artifact), self.store.blob(&envelope)]
    }

    /// What stands in the way of a start in a daemon that has seen nothing yet.
    fn start(&self) -> Result<(), String> {
        let shown = |error: &dyn std::error::Error| crate::shown(error);
        let digest = &self.built.record.digest;
        let image = self.store.get(digest).map_err(|e| shown(&e))?;
        let guard = Guard::new(self.store.clone(), self.signing.clone());
        guard.check(&image, &Demands::default()).map_err(|e| shown(&e))?;
        self.store.verify_image(digest).map(drop).map_err(|e| shown(&e))
    }

    fn audit(&self) -> Result<(), String> {
        let faults = audit::everything(&self.store, &self.signing).unwrap();
        faults.first().map_or(Ok(()), |fault| Err(crate::shown(fault)))
    }

    /// Builds elsewhere with what is in the cache and nothing of the mirror.
    fn build_elsewhere(&self) -> Result<(), String> {
        let elsewhere = tempfile::tempdir().unwrap();
        let store = ImageStore::open(elsewhere.path()).unwrap();
        let order = Order { name: "app", recipe: &self.recipe, stack: self.root() };
        let built = store.build(order, &self.lock, &self.world.sources(), &());
        built.map(drop).map_err(|e| crate::shown(&e))
    }

    /// Locks anew with an empty cache.
    fn lock_anew(&self) -> Result<Lock, String> {
        fs::rename(self.root().join("cache"), self.root().join("aside")).unwrap();
        let mut lock = Lock::default();
        let locked = lock.update([&self.recipe], &self.world.sources(), false, &());
        fs::remove_dir_all(self.root().join("cache")).unwrap();
        fs::rename(self.root().join("aside"), self.root().join("cache")).unwrap();
        locked.map(|()| lock).map_err(|e| crate::shown(&e))
    }

    /// Flips one byte of a target, sees who notices, and puts it right again.
    fn caught(&self, target: &Target, numbers: &mut Numbers) -> Result<(), String> {
        match target {
            Target::Package(path) => {
                let good = fs::read(path).unwrap();
                rewrite(path, &numbers.flip(&good));
                let built = self.build_elsewhere();
                fs::write(path, &good).unwrap();
                built
            }
            Target::Index(path, good) => {
                // An index stands under several addresses, of which any right one would do.
                let bad = numbers.flip(good);
                let served = self.world.server.served("/debian/dists/test/");
                let same = served.iter().filter(|(_, bytes)| bytes == good);
                let paths: Vec<&String> = same.map(|(path, _)| path).chain([path]).collect();
                for path in &paths {
                    self.world.server.put(path.as_str(), bad.clone());
                }
                let locked = self.lock_anew();
                for path in &paths {
                    self.world.server.put(path.as_str(), good.clone());
                }
                locked.map(drop)
            }
            Target::Lock => {
                let path = self.root().join("kiln.lock");
                let good = fs::read(&path).unwrap();
                fs::write(&path, numbers.flip(&good)).unwrap();
                let loaded = Lock::load(self.root());
                fs::write(&path, good).unwrap();
                loaded.map(drop).map_err(|e| crate::shown(&e))
            }
            Target::Started(path) | Target::Kept(path) => {
                let good = fs::read(path).unwrap();
                rewrite(path, &numbers.flip(&good));
                let started = self.start();
                let audited = self.audit();
                rewrite(path, &good);
                match target {
                    Target::Started(_) if started.is_ok() => Ok(()),
                    _ => audited,
                }
            }
        }
    }
}

#[test]
fn two_hundred_flipped_bytes_and_none_accepted() {
    let whole = Whole::new();
    whole.start().unwrap();
    whole.audit().unwrap();
    whole.build_elsewhere().unwrap();
    let targets = whole.targets();
    whole.lock_anew().unwrap();
    // What is in the cache can't be had again.
    whole.world.server.remove("/debian/pool/");
    let mut numbers = Numbers(20_260_711);
    let mut accepted = Vec::new();
    for flip in 0..FLIPS {
        // Each target in turn, so that none is left out.
        let target = &targets[flip % targets.len()];
        if whole.caught(target, &mut numbers).is_ok() {
            accepted.push((flip, target.clone()));
        }
    }
    assert!(targets.len() * 2 < FLIPS, "each file is hit more than once");
    assert!(accepted.is_empty(), "{} of {FLIPS} accepted: {accepted:?}", accepted.len());
    whole.start().unwrap();
    whole.audit().unwrap();
    println!("{FLIPS} flips over {} files, none accepted", targets.len());
}
