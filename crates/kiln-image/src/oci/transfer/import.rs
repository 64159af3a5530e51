//! From a layout to the store.

use std::path::Path;

use super::TransferError;
use crate::oci::layout::Layout;
use crate::progress::{Event, Progress};
use crate::store::{ImageStore, Record};

impl ImageStore {
    /// Takes in an image of a layout (a directory or an archive) with all artifacts about it, makes its
    /// filesystem, and lists it under `name`. How many artifacts there were.
    pub fn import(
        &self,
        path: &Path,
        tag: Option<&str>,
        name: &str,
        architecture: &str,
        progress: &dyn Progress,
    ) -> Result<(Record, usize), TransferError> {
        let workspace = self.workspace()?;
        let layout = if path.is_dir() {
            Layout::of_directory(path)?
        } else {
            Layout::of_archive(path, workspace.path())?
        };
        let digest = layout.select(tag, architecture)?;
        layout.take(self, &digest)?;
        self.check_platform(&path.display().to_string(), &digest, architecture)?;
        let image = self.laid(&digest, progress)?;
        let record = Record::pulled(name, digest, image.size_bytes, None);
        self.note_pulled(&record)?;
        progress.event(Event::Done { size_bytes: image.size_bytes, cached: false });
        Ok((record, self.note_referrers(&digest)?))
    }
}
