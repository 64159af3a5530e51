//! A directory of the machine.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use kiln_model::quantity::Timestamp;

use super::{Content, Object, Store, StoreError};

/// What the name of a file begins with while it is being written.
const UNFINISHED: &str = ".unfinished.";

/// A directory of the machine, which nobody but root can enter. Files appear in it whole and durably.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory; it is made when something is put there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn fail(&self, what: &str, name: &str, source: io::Error) -> StoreError {
        let place = self.place();
        if source.kind() == io::ErrorKind::NotFound {
            return StoreError::Absent { name: name.to_owned(), place };
        }
        StoreError::Io { what: format!("{what} {name}"), place, source }
    }

    fn write(&self, path: &Path, content: &Content) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.path);
        make(parent)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = parent.join(format!("{UNFINISHED}{name}"));
        let mut options = OpenOptions::new();
        let mut file =
            { options.write(true).create(true).truncate(true).mode(0o600) }.open(&unfinished)?;
        io::copy(&mut content.reader()?, &mut file)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync(parent)
    }

    fn gather(&self, directory: &Path, prefix: &str, all: &mut Vec<Object>) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let relative = path.strip_prefix(&self.path).unwrap_or(&path);
            let Some(name) = relative.to_str().map(str::to_owned) else { continue };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                // Only where something below it can begin with the prefix.
                if prefix.starts_with(&format!("{name}/")) || format!("{name}/").starts_with(prefix)
                {
                    self.gather(&path, prefix, all)?;
                }
            } else if kind.is_file()
                && name.starts_with(prefix)
                && !entry.file_name().to_string_lossy().starts_with(UNFINISHED)
            {
                // What went meanwhile is not there.
                let Ok(about) = entry.metadata() else { continue };
                let since = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                let modified = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
                all.push(Object { name, size: about.len(), modified });
            }
        }
        Ok(())
    }
}

impl Store for Directory {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn put(&self, name: &str, content: &Content) -> Result<(), StoreError> {
        self.write(&self.path.join(name), content).map_err(|source| StoreError::Io {
            what: format!("put {name}"),
            place: self.place(),
            source,
        })
    }

    fn get(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let file = File::open(self.path.join(name));
        Ok(Box::new(file.map_err(|source| self.fail("read", name, source))?))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let mut all = Vec::new();
        self.gather(&self.path, prefix, &mut all)
            .map_err(|source| self.fail("list", prefix, source))?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|source| self.fail("remove", name, source))?,
        }
        // Directories without anything in them go as well; one with something refuses.
        for parent in path.ancestors().skip(1).take_while(|parent| *parent != self.path) {
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Makes a directory and those above it, each durably.
fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(Path::new("/"));
    make(parent)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync(parent)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::{put_for_sure, read};
    use super::*;

    #[test]
    fn what_is_put_is_there_under_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Directory::new(scratch.path().join("to/there"));
        assert!(store.list("").unwrap().is_empty());
        for (name, text) in [("a/wals/1", "one"), ("a/wals/2", "two"), ("b/wals/1", "three")] {
            let content = Content::of_bytes(scratch.path(), text.as_bytes()).unwrap();
            put_for_sure(&store, name, &content).unwrap();
        }
        fs::write(scratch.path().join("to/there/a/.unfinished.x"), "half").unwrap();
        let names = |prefix: &str| -> Vec<String> {
            store.list(prefix).unwrap().into_iter().map(|object| object.name).collect()
        };
        assert_eq!(names("a/"), ["a/wals/1", "a/wals/2"]);
        assert_eq!(names("a/wals/2"), ["a/wals/2"]);
        assert_eq!(names(""), ["a/wals/1", "a/wals/2", "b/wals/1"]);
        assert_eq!(read(&store, "a/wals/2", 10).unwrap(), b"two");
        assert!(read(&store, "a/wals/2", 2).is_err());
        store.remove("b/wals/1").unwrap();
        store.remove("b/wals/1").unwrap();
        assert!(!scratch.path().join("to/there/b").exists());
        assert!(store.get("b/wals/1").err().unwrap().is_absent());
    }
}
