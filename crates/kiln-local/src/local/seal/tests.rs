//! Files that are watched, and what becomes of them.

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_model::trust::Demands;

use super::*;
use crate::local::seams::ImageRefusal;

/// How soon a write must be known of.
const NOTICED: Duration = Duration::from_millis(250);
/// How often that is tried: a machine that is busy with other things may be late.
const TRIES: u32 = 5;

/// Fails if a write was never noticed in time.
fn assert_in_time(mut attempt: impl FnMut() -> Duration) {
    let took: Vec<Duration> = (0..TRIES).map(|_| attempt()).collect();
    assert!(took.iter().any(|took| *took < NOTICED), "{took:?}");
}

/// Reads files, and has no images.
struct Files;

impl Images for Files {
    fn get(&self, content: &Digest, _: &Demands) -> Result<ImageFiles, ImageRefusal> {
        let (cause, hint) = (format!("there is no {content}"), "build it".to_owned());
        Err(ImageRefusal { cause, hint })
    }

    fn measure(&self, file: &File) -> io::Result<FileDigests> {
        let mut file = file.try_clone()?;
        file.rewind()?;
        let found = kiln_image::verity::of_reader(file)?;
        let (digest, fs_verity, root) = (found.digest, found.fs_verity, found.root);
        Ok(FileDigests { digest, fs_verity, root })
    }
}

/// A file in a directory of its own, and what seals it; watching goes on until this is dropped.
struct Bench {
    seals: Seals,
    image: ImageFiles,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rootfs = directory.path().join("image");
        let bytes = vec![7; 300_000];
        fs::write(&rootfs, &bytes).unwrap();
        let seals = Seals::new(Arc::new(Files), Arc::default());
        let watch = Arc::downgrade(seals.watch());
        std::thread::spawn(move || Watch::run(&watch));
        Self { seals, image: image(rootfs, Digest::of(&bytes)), _directory: directory }
    }

    /// Seals it by watching alone.
    fn watched(&self) -> Result<ImageSource, Failure> {
        let file = File::open(self.path()).map_err(Failure::Io)?;
        let (known, rot) = (&self.seals.known, &*self.seals.rot);
        let candidate = Candidate { images: &Files, image: &self.image, file: &file, known, rot };
        let seal = self.seals.watch().apply(&candidate)?;
        Ok(ImageSource { path: self.path().to_owned(), digest: Some(self.image.digest), seal })
    }

    fn path(&self) -> &Path {
        &self.image.rootfs
    }

    /// How long it takes until an instance of it has drifted.
    fn drift_after(&self, image: &ImageSource, since: Instant) -> Duration {
        while differences(&self.seals, image).is_empty() {
            assert!(since.elapsed() < Duration::from_secs(10), "it is not noticed");
            std::thread::sleep(Duration::from_millis(1));
        }
        since.elapsed()
    }
}

/// In what an instance of an image differs whose process is this one.
fn differences(seals: &Seals, image: &ImageSource) -> Vec<Drift> {
    seals.differences(image, std::process::id().cast_signed(), 0)
}

fn image(rootfs: PathBuf, digest: Digest) -> ImageFiles {
    ImageFiles {
        rootfs,
        digest,
        signed: None,
        argv: Vec::new(),
        env: BTreeMap::new(),
        user: String::new(),
        workdir: String::new(),
        writable: BTreeMap::new(),
    }
}

#[test]
fn a_file_that_was_written_to_is_not_accepted_any_more() {
    let bench = Bench::new();
    let source = bench.watched().unwrap();
    assert_eq!(differences(&bench.seals, &source), []);
    assert_eq!(bench.watched().unwrap(), source, "a second start reads nothing");
    let file = OpenOptions::new().write(true).open(bench.path()).unwrap();
    file.write_all_at(b"x", 200_000).unwrap();
    let _ = bench.drift_after(&source, Instant::now());
    assert!(matches!(bench.watched(), Err(Failure::Altered(_))));
    // What was there for a time was there: putting it back excuses no instance.
    file.write_all_at(&[7], 200_000).unwrap();
    // The news of the write may come while it is read.
    let again = (0..100).find_map(|_| bench.watched().ok()).unwrap();
    assert_eq!(differences(&bench.seals, &again), []);
    assert_eq!(differences(&bench.seals, &source).len(), 1);
}

#[test]
fn a_write_is_noticed_in_time() {
    assert_in_time(|| {
        let bench = Bench::new();
        let source = bench.watched().unwrap();
        let file = OpenOptions::new().write(true).open(bench.path()).unwrap();
        file.write_all_at(b"x", 200_000).unwrap();
        bench.drift_after(&source, Instant::now())
    });
}

#[test]
fn a_write_through_a_mapping_is_noticed_in_time() {
    const LENGTH: usize = 4096;
    assert_in_time(|| {
        let bench = Bench::new();
        let source = bench.watched().unwrap();
        let file = OpenOptions::new().read(true).write(true).open(bench.path()).unwrap();
        // SAFETY: a new shared mapping of a longer file.
        let memory = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let file = std::os::fd::AsRawFd::as_raw_fd(&file);
            libc::mmap(std::ptr::null_mut(), LENGTH, access, libc::MAP_SHARED, file, 0)
        };
        assert_ne!(memory, libc::MAP_FAILED);
        // SAFETY: the first byte of the mapping.
        unsafe { memory.cast::<u8>().write_volatile(8) };
        let took = bench.drift_after(&source, Instant::now());
        // SAFETY: the mapping that was made above.
        unsafe { libc::munmap(memory, LENGTH) };
        took
    });
}

#[test]
fn what_changes_no_byte_is_no_drift() {
    let bench = Bench::new();
    let source = bench.watched().unwrap();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o400)).unwrap();
    let moved = bench.path().with_extension("moved");
    fs::rename(bench.path(), &moved).unwrap();
    fs::rename(&moved, bench.path()).unwrap();
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(400) {
        assert_eq!(differences(&bench.seals, &source), []);
        std::thread::sleep(Duration::from_millis(10));
    }
    let again = bench.watched().unwrap();
    assert_ne!(again, source, "the file has changed, though not its content");
}

#[test]
fn a_later_daemon_sees_what_was_done_meanwhile() {
    let bench = Bench::new();
    let source = bench.watched().unwrap();
    let later = || Seals::new(Arc::new(Files), Arc::default());
    assert_eq!(differences(&later(), &source), []);
    let mut file = OpenOptions::new().append(true).open(bench.path()).unwrap();
    file.write_all(b"more").unwrap();
    assert_eq!(differences(&later(), &source).len(), 1);
    let other = bench.path().with_extension("other");
    fs::write(&other, vec![7; 300_000]).unwrap();
    fs::rename(&other, bench.path()).unwrap();
    let found = differences(&later(), &source);
    assert!(found[0].found.contains("another file"), "{found:?}");
    fs::remove_file(bench.path()).unwrap();
    assert_eq!(differences(&later(), &source).len(), 1);
}

#[test]
fn a_file_that_is_not_what_it_should_be_is_never_sealed() {
    let mut bench = Bench::new();
    bench.image.digest = Digest::of(b"something else");
    let refused = bench.seals.seal(&Files, &bench.image, None);
    assert!(matches!(refused, Err(SealError::Altered(_))), "{refused:?}");
}

#[test]
fn what_the_machine_lacks_is_named() {
    let place = Path::new("/dev/shm");
    if !place.is_dir() {
        println!("skipped: what_the_machine_lacks_is_named: needs a tmpfs at /dev/shm");
        return;
    }
    let file = tempfile::NamedTempFile::new_in(place).unwrap();
    let image = image(file.path().to_owned(), Digest::of(b""));
    let seals = Seals::new(Arc::new(Files), Arc::default());
    let refused = seals.seal(&Files, &image, Some(Integrity::FsVerity)).unwrap_err();
    let text = refused.to_string();
    for part in ["fs-verity", "`verity`", "CONFIG_FS_VERITY"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
