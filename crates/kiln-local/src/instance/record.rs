//! What is kept of an instance on disk, under `ROOT/run/instances/<instance>/`.
//!
//! `record.json` is written when its process exists, `exit.json` when it has ended. Both replace
//! nothing and are never changed. They outlive the launcher, not the machine's uptime, so they are
//! not synced; a record names the boot it belongs to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::launcher::protocol::{Exit, ImageSource, Labels, Limits, NetworkAttachment};

/// What an instance was made as. Holds no environment and no file contents: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The instance's id.
    pub instance: String,
    /// What it is of.
    pub labels: Labels,
    /// What its root filesystem was mounted from.
    pub image: ImageSource,
    /// Its program, without arguments: those may hold secrets.
    #[serde(default)]
    pub program: String,
    /// User and group of the program, as the image numbers them.
    pub user: (u32, u32),
    /// Its bounds.
    pub limits: Limits,
    /// Where it is attached.
    pub network: Option<NetworkAttachment>,
    /// Whether it has a user namespace of its own.
    pub user_namespace: bool,
    /// Why it has none.
    pub no_user_namespace_because: Option<String>,
    /// The host's id that stands for user 0 of the instance, where it has a user namespace.
    pub first_host_id: Option<u32>,
    /// Process id of the main process, as the host sees it.
    pub pid: i32,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// The kernel's id of the boot in which it was made.
    pub boot: String,
    /// Whether a [`Baseline`](super::baseline::Baseline) is written down once its program runs.
    #[serde(default)]
    pub baseline: bool,
}

/// Where what is kept of all instances is.
pub fn instances_directory(root: &Path) -> PathBuf {
    root.join("run").join("instances")
}

/// Where what is kept of `instance` is.
pub fn directory(root: &Path, instance: &str) -> PathBuf {
    instances_directory(root).join(instance)
}

/// Reads the record of `instance`, if it has one.
pub fn read(root: &Path, instance: &str) -> io::Result<Option<Record>> {
    read_json(&directory(root, instance).join("record.json"))
}

/// Reads how `instance` ended, if it has.
pub fn read_exit(root: &Path, instance: &str) -> io::Result<Option<Exit>> {
    read_json(&directory(root, instance).join("exit.json"))
}

/// Writes the record of a new instance.
pub(crate) fn write(root: &Path, record: &Record) -> io::Result<()> {
    let directory = directory(root, &record.instance);
    fs::create_dir_all(&directory)?;
    write_json(&directory.join("record.json"), record)
}

/// Writes how an instance ended.
pub(crate) fn write_exit(root: &Path, instance: &str, exit: &Exit) -> io::Result<()> {
    let directory = directory(root, instance);
    fs::create_dir_all(&directory)?;
    write_json(&directory.join("exit.json"), exit)
}

/// Removes what is kept of `instance`, if anything is.
pub(crate) fn remove(root: &Path, instance: &str) -> io::Result<()> {
    match fs::remove_dir_all(directory(root, instance)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The instances of which something is kept.
pub fn list(root: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(instances_directory(root)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(serde_json::from_slice(&bytes?)?)),
    }
}

/// A reader sees the whole file or none.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    fs::write(&unfinished, serde_json::to_vec(value)?)?;
    fs::rename(&unfinished, path)
}
