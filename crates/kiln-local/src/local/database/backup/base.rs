//! Copies of a database's data: made by the engine's own program in a throw-away instance, sealed where
//! that is wanted, and put where backups go.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use kiln_backup::age::Sealer;
use kiln_backup::archive::AGE;
use kiln_backup::catalogue::{self, Base, StoredFile, id_of};
use kiln_backup::segment::Position;
use kiln_backup::store::{Content, put_for_sure};
use kiln_database::postgres::copy::{DATA_TAR, LOG_TAR, MANIFEST};
use kiln_engine::backup::Wanted;
use serde::Deserialize;

use super::Trade;
use super::destination;
use crate::launcher::protocol::VolumeMount;
use crate::local::create::chain;
use crate::local::now;

/// The files of a copy: as the engine's program calls them, and as they are kept.
pub(super) const FILES: [(&str, &str); 3] =
    [(DATA_TAR, "data.tar.gz"), (LOG_TAR, "pg_wal.tar.gz"), (MANIFEST, "backup_manifest")];

/// What a manifest says of the log that is needed.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<Range>,
}

#[derive(Debug, Deserialize)]
struct Range {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Position,
    #[serde(rename = "End-LSN")]
    end: Position,
}

impl Trade<'_> {
    /// Makes a copy of what the instance that takes writes has, and stores it; its line.
    pub(super) fn copy(&self, wanted: &Wanted) -> Result<(String, Base), String> {
        let copied = self.copy_to(wanted, &self.work.join("copy"));
        // What is left is thrown away with the next one.
        let _ = fs::remove_dir_all(self.work.join("copy"));
        let _ = fs::remove_file(self.work.join("sealed"));
        copied
    }

    fn copy_to(&self, wanted: &Wanted, out: &Path) -> Result<(String, Base), String> {
        let place = self.place;
        let primary = place.primary().filter(|id| self.takes_writes(id));
        let primary = primary.ok_or("no instance takes writes at present")?;
        let volume = self.machine.databases.volume_of(&primary).ok_or("it holds no volume")?;
        let line = place.line(self.engine, &volume).map_err(|error| chain(&error))?;
        let system = self.engine.system(&place.data(&volume)).map_err(|error| chain(&error))?;
        let to = destination::place(self.machine, wanted)?;
        super::ship::begin_line(&*to.store, self.work, wanted, &line, system)
            .map_err(|error| chain(&error))?;
        let what = format!("copy {primary}");
        let room = self.machine.databases.has_room(place, &primary, &what);
        room.map_err(|error| error.to_string())?;
        empty(out).map_err(|error| chain(&error))?;
        let began = now();
        let id = id_of(began);
        let instance = self.instance(&id)?;
        let layout = self.engine.layout();
        let volumes = vec![
            VolumeMount {
                source: out.to_owned(),
                path: layout.data.to_owned(),
                read_only: false,
                own: true,
            },
            VolumeMount {
                source: place.sockets.clone(),
                path: layout.sockets.to_owned(),
                read_only: true,
                own: false,
            },
        ];
        let program = self.engine.copy(&instance.of(None), &primary);
        self.run("copy", out, volumes).to_its_end(&program).map_err(|failure| failure.reason)?;
        let ended = now();
        let manifest = read_file(&out.join(MANIFEST)).map_err(|error| chain(&error))?;
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|error| format!("its manifest makes no sense: {error}"))?;
        let last = manifest.ranges.last().ok_or("its manifest names no range of the log")?;
        let mut files = BTreeMap::new();
        for (from, name) in FILES {
            let (name, stored) =
                self.store(&to, &out.join(from), &format!("{line}/base/{id}/{name}"))?;
            files.insert(name, stored);
        }
        let base = Base {
            id,
            began,
            ended,
            version: instance.identity.version,
            system,
            timeline: last.timeline,
            start: manifest.ranges.iter().map(|range| range.start).min().unwrap_or(last.start),
            stop: last.end,
            files,
        };
        catalogue::complete(&*to.store, self.work, &line, &base).map_err(|error| chain(&error))?;
        Ok((line, base))
    }

    /// Puts a file where backups go; its name there and what is stored.
    fn store(
        &self,
        to: &destination::Place,
        file: &Path,
        name: &str,
    ) -> Result<(String, StoredFile), String> {
        let fail = |error: io::Error| format!("{}: {error}", file.display());
        let mut plain = open(file).map_err(fail)?;
        let content = match &to.seal {
            None => Content::of_open(plain),
            Some(identity) => {
                // Not where the instance writes.
                let sealed = self.work.join("sealed");
                let mut write = || -> io::Result<Content> {
                    let mut to = Sealer::new(identity, File::create(&sealed)?)?;
                    io::copy(&mut plain, &mut to)?;
                    to.finish()?.flush()?;
                    Content::of_file(&sealed)
                };
                write()
            }
        };
        let content = content.map_err(fail)?;
        let name = if to.seal.is_some() { format!("{name}{AGE}") } else { name.to_owned() };
        put_for_sure(&*to.store, &name, &content).map_err(|error| chain(&error))?;
        let short = name.rsplit('/').next().unwrap_or(&name).to_owned();
        Ok((short, StoredFile { size: content.size, digest: content.digest }))
    }
}

/// A file that an instance has written: no link is followed.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// The longest manifest of a copy, in bytes: some millions of files.
pub(super) const LONGEST_MANIFEST: u64 = 1 << 30;

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(open(path)?, LONGEST_MANIFEST), &mut bytes)?;
    Ok(bytes)
}

/// An empty directory, whatever was there.
pub(super) fn empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
