//! Proof that backups are of use: a copy is restored, with the log after it, into a volume that is thrown
//! away, and all that can be checked of it is. And reading all that is stored.

use std::fs;
use std::path::Path;

use kiln_backup::archive::Archive;
use kiln_backup::catalogue::{self, Catalogue, Copy, Line, Proof};
use kiln_backup::choice::with_log;
use kiln_backup::segment::{LogFile, fault};
use kiln_database::Until;

use super::base::empty;
use super::restore::{Target, of_store};
use super::unpack::{Stored, check};
use super::{Trade, Trouble, destination};
use crate::local::create::chain;
use crate::local::now;

impl Trade<'_> {
    /// Restores a copy to see whether it can be, and writes down what came of it. It is an error where
    /// that could not be found out.
    pub(super) fn prove(
        &self,
        from: &destination::Place,
        line: &Line,
        copy: &Copy,
    ) -> Result<Proof, String> {
        let directory = self.work.join("proof");
        let result = self.throw_away_restore(from, line, copy, &directory);
        // What is left is thrown away with the next one.
        let _ = fs::remove_dir_all(&directory);
        let (passed, faults) = match result {
            Ok(passed) => (passed, Vec::new()),
            Err(Trouble::Damaged(faults)) => (Vec::new(), faults),
            Err(Trouble::Failed(why)) => return Err(why),
        };
        let proof = Proof { at: now(), passed, faults };
        catalogue::prove(&*from.store, self.work, &line.name, &copy.base.id, &proof)
            .map_err(|error| chain(&error))?;
        Ok(proof)
    }

    fn throw_away_restore(
        &self,
        from: &destination::Place,
        line: &Line,
        copy: &Copy,
        directory: &Path,
    ) -> Result<Vec<String>, Trouble> {
        let (data, sockets) = (directory.join("data"), directory.join("sockets"));
        let failed = |error: std::io::Error| Trouble::failed("make a volume to restore to", &error);
        empty(directory).map_err(failed)?;
        empty(&data).map_err(failed)?;
        fs::create_dir(&sockets).map_err(failed)?;
        open_to_all(directory).and_then(|()| open_to_all(&sockets)).map_err(failed)?;
        let target = Target { data: &data, sockets: &sockets, proves: true };
        self.restore(from, &with_log(line, copy), Until::End, &target)
    }
}

/// Lets everybody pass through: the directory above is root's.
pub(super) fn open_to_all(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
}

/// Reads all copies but one, and the log; how many files of that, and what is wrong with what.
pub(super) fn read_all(
    from: &destination::Place,
    catalogue: &Catalogue,
    but: &str,
    scratch: &Path,
) -> Result<(u64, Vec<String>), String> {
    let (mut count, mut faults) = (0, catalogue.faults.clone());
    for line in &catalogue.lines {
        for copy in line.copies.iter().filter(|copy| copy.base.id != but) {
            let (seal, base) = (from.seal.as_ref(), &copy.base);
            let stored = Stored { store: &*from.store, seal, line: &line.name, base };
            let mut own = Vec::new();
            for short in base.files.keys() {
                note(check(&stored, short), &mut own)?;
            }
            if !own.is_empty() {
                // From now on it is neither chosen nor counted on.
                let proof = Proof { at: now(), passed: Vec::new(), faults: own.clone() };
                catalogue::prove(&*from.store, scratch, &line.name, &base.id, &proof)
                    .map_err(|error| chain(&error))?;
            }
            faults.extend(own);
        }
        let seal = from.seal.as_ref();
        let archive = Archive { store: &*from.store, line: &line.name, seal, scratch };
        let segments = line.segments.keys().map(|segment| LogFile::Segment(*segment));
        for file in segments.chain(line.histories.iter().cloned()) {
            count += 1;
            let read = archive.read(&file).map_err(of_store).and_then(|kept| {
                let LogFile::Segment(segment) = &file else { return Ok(()) };
                match fault(*segment, line.about.system, &kept.content) {
                    None => Ok(()),
                    Some(why) => Err(Trouble::Damaged(vec![format!("{file}: {why}")])),
                }
            });
            note(read, &mut faults)?;
        }
        faults.extend(gap(line));
    }
    Ok((count, faults))
}

fn note(result: Result<(), Trouble>, faults: &mut Vec<String>) -> Result<(), String> {
    match result {
        Ok(()) => Ok(()),
        Err(Trouble::Damaged(found)) => {
            faults.extend(found);
            Ok(())
        }
        Err(Trouble::Failed(why)) => Err(why),
    }
}

/// The segment that is missing in the log of a line, in words.
pub(super) fn gap(line: &Line) -> Option<String> {
    let base = &line.copies.first()?.base;
    let missing = line.gap(base.start.segment(), base.timeline)?;
    let name = &line.name;
    Some(format!("{name}/wals: segment {missing} of the log is missing, and later ones are there"))
}
