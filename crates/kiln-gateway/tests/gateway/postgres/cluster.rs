//! Real instances of PostgreSQL, where the gateway looks for them.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln_model::data::sockets;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, component, eventually};

/// Where Debian puts the programs of version 15.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// The user as whom they run.
fn account() -> Option<(u32, u32)> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = accounts.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2).map_while(|field| field.parse().ok());
    Some((fields.next()?, fields.next()?))
}

/// Whether there is a PostgreSQL to test with; says so when there is none.
pub(crate) fn can_run(name: &str) -> bool {
    let there = Path::new(PROGRAMS).join("postgres").exists() && account().is_some();
    if !there {
        println!("skipped: {name}: needs the Debian package postgresql-15");
    }
    there
}

/// A program of PostgreSQL, run as its user.
pub(crate) fn program(name: &str) -> Command {
    let (uid, gid) = account().unwrap();
    let mut command = Command::new(Path::new(PROGRAMS).join(name));
    command.uid(uid).gid(gid).current_dir("/").stdin(Stdio::null());
    command
}

/// Runs a program to its end; returns what it says.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    if output.status.success() { Ok(out) } else { Err(format!("{out}\n{errors}")) }
}

/// An instance; ended and forgotten when dropped.
pub(crate) struct Instance {
    pub(crate) id: String,
    data: PathBuf,
    pub(crate) sockets: PathBuf,
    server: Child,
}

impl Instance {
    /// One with the database `app` of the user `app`.
    pub(crate) fn primary(world: &World, id: &str) -> Self {
        let (data, directory) = places(world, id);
        run(program("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"])
            .arg(&data))
        .unwrap();
        let instance = Self::start(id, data, directory);
        instance.sql("postgres", "CREATE ROLE app LOGIN");
        instance.sql("postgres", "CREATE DATABASE app OWNER app");
        instance
    }

    /// One that receives from it.
    pub(crate) fn standby(&self, world: &World, id: &str) -> Self {
        let (data, directory) = places(world, id);
        let mut copy = program("pg_basebackup");
        copy.args(["--no-sync", "-c", "fast", "-X", "stream", "-R", "-U", "postgres", "-h"]);
        run(copy.arg(&self.sockets).arg("-D").arg(&data)).unwrap();
        Self::start(id, data, directory)
    }

    fn start(id: &str, data: PathBuf, sockets: PathBuf) -> Self {
        let log = std::fs::File::create(sockets.join("log")).unwrap();
        let mut command = program("postgres");
        command.arg("-D").arg(&data).arg("-k").arg(&sockets);
        for setting in
            ["listen_addresses=", "fsync=off", "max_connections=300", "shared_buffers=32MB"]
        {
            command.args(["-c", setting]);
        }
        let server = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let instance = Self { id: id.to_owned(), data, sockets, server };
        eventually(Duration::from_secs(30), "an instance answers", || {
            run(&mut instance.psql("postgres", "SELECT 1")).is_ok()
        });
        instance
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut psql = program("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"]);
        psql.arg(&self.sockets).args(["-c", sql]);
        psql
    }

    /// Asks it without the gateway.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        run(&mut self.psql(database, sql)).unwrap()
    }

    /// Waits until it has all that `other` has written.
    pub(crate) fn catch_up(&self, other: &Self) {
        let position = other.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
        let has = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
        eventually(Duration::from_secs(20), "a standby catches up", || {
            self.sql("postgres", &has) == "t"
        });
    }

    pub(crate) fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote()"), "t");
    }

    /// Ends all of its processes at once.
    pub(crate) fn kill(&mut self) {
        let server = self.server.id();
        let mut all = vec![server];
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2));
            if parent == Some(&server.to_string()) {
                all.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
            }
        }
        for pid in all {
            let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.server.wait();
    }

    /// Starts it again after it was ended.
    pub(crate) fn restart(mut self) -> Self {
        self.kill();
        let (id, data, sockets) = (self.id.clone(), self.data.clone(), self.sockets.clone());
        drop(self);
        Self::start(&id, data, sockets)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the data and the socket of an instance are.
fn places(world: &World, id: &str) -> (PathBuf, PathBuf) {
    let root = world.root.path();
    let (uid, gid) = account().unwrap();
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
    let stack = "shop".parse().unwrap();
    let directory = root.join(sockets(&stack, &component("database.orders"))).join(id);
    let data = root.join("data");
    for path in [&directory, &data] {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(root.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
        chown(path, Some(uid), Some(gid)).unwrap();
    }
    (data.join(id), directory)
}
