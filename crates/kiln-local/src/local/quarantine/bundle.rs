//! A bundle: files in a directory of root's own, bounded in size and time, whole or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Incident;

/// The most that a bundle holds, bytes.
const WHOLE: u64 = 64 << 20;

/// The most that a file of the kernel's is read, bytes.
const FILE: u64 = 4 << 20;

/// A bundle that is being written.
pub(super) struct Bundle {
    unfinished: PathBuf,
    finished: PathBuf,
    deadline: Instant,
    left: u64,
    files: Vec<(String, u64)>,
    omitted: Vec<String>,
}

impl Bundle {
    /// Begins one below `directory`. It shows there under `name` once it is finished.
    pub(super) fn begin(directory: &Path, name: &str, deadline: Instant) -> io::Result<Self> {
        private(directory)?;
        let unfinished = directory.join(format!(".{name}"));
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => private(&unfinished)?,
        }
        let finished = directory.join(name);
        let (files, omitted) = (Vec::new(), Vec::new());
        Ok(Self { unfinished, finished, deadline, left: WHOLE, files, omitted })
    }

    /// Notes that something is not in it.
    pub(super) fn omit(&mut self, what: impl Into<String>) {
        self.omitted.push(what.into());
    }

    /// How much it can still take.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Whether there is no time left.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Adds a file. One that is too large is noted as missing.
    pub(super) fn write(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        if size > self.left || self.is_late() {
            self.omit(format!("{name}: no room or time left"));
            return Ok(());
        }
        self.create(name)?.write_all(content)?;
        self.done(name, size);
        Ok(())
    }

    /// Adds what a file of the kernel's says. One that isn't there is noted as missing.
    pub(super) fn copy(&mut self, name: &str, from: &Path) -> io::Result<()> {
        let mut text = Vec::new();
        match File::open(from).and_then(|file| file.take(FILE).read_to_end(&mut text)) {
            Ok(_) => self.write(name, &text),
            Err(error) => {
                self.omit(format!("{name}: {error}"));
                Ok(())
            }
        }
    }

    /// A new file of it. Whoever fills it says so by [`done`](Self::done).
    pub(super) fn create(&mut self, name: &str) -> io::Result<File> {
        let path = self.unfinished.join(name);
        if let Some(parent) = path.parent() {
            private(parent)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    /// A file is complete.
    pub(super) fn done(&mut self, name: &str, size: u64) {
        self.left = self.left.saturating_sub(size);
        self.files.push((name.to_owned(), size));
    }

    /// Writes what it is of, and shows it.
    pub(super) fn finish(mut self, mut incident: Incident) -> io::Result<()> {
        incident.files = std::mem::take(&mut self.files);
        incident.omitted = std::mem::take(&mut self.omitted);
        let text = serde_json::to_vec_pretty(&incident)?;
        let mut file = self.create("incident.json")?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&self.unfinished, &self.finished)
    }
}

/// A directory that nobody but root may look into.
fn private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;

    fn incident() -> Incident {
        Incident {
            instance: "web-1".to_owned(),
            stack: "shop".to_owned(),
            component: "server.web".to_owned(),
            digest: "sha256:00".to_owned(),
            generation: 1,
            saved_at: "1970-01-01T00:00:00.000Z".to_owned(),
            drift: Vec::new(),
            frozen: true,
            files: Vec::new(),
            omitted: Vec::new(),
        }
    }

    #[test]
    fn a_bundle_is_roots_own_and_shows_when_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("incidents");
        let later = Instant::now() + Duration::from_secs(60);
        // What an end that was broken off has left is no hindrance.
        drop(Bundle::begin(&directory, "web-1", later).unwrap());
        let mut bundle = Bundle::begin(&directory, "web-1", later).unwrap();
        bundle.write("maps/7", b"12").unwrap();
        bundle.copy("mounts", Path::new("/nowhere")).unwrap();
        let large = vec![0; usize::try_from(WHOLE).unwrap()];
        bundle.write("large", &large).unwrap();
        assert!(super::super::list(root.path()).is_empty());
        bundle.finish(incident()).unwrap();
        let found = super::super::list(root.path());
        assert_eq!(found[0].files, [("maps/7".to_owned(), 2)]);
        assert_eq!(found[0].omitted.len(), 2, "{:?}", found[0].omitted);
        let mode =
            |path: &str| fs::metadata(directory.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(["", "web-1", "web-1/maps"].map(mode), [0o700; 3]);
        assert_eq!(["web-1/maps/7", "web-1/incident.json"].map(mode), [0o600; 2]);
    }

    #[test]
    fn at_its_deadline_the_rest_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::begin(root.path(), "web-1", Instant::now()).unwrap();
        bundle.write("log", b"text").unwrap();
        bundle.finish(incident()).unwrap();
        let text = fs::read_to_string(root.path().join("web-1/incident.json")).unwrap();
        assert!(text.contains("log: no room or time left"), "{text}");
    }
}
