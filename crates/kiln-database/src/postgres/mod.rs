//! PostgreSQL, versions 13 to 17.
//!
//! It is reached over its unix socket alone, and lets in whoever gets there: the directory of the
//! sockets is root's on the host, and clients come through the gateway, which knows their password.
//! Configuration stands in files that the instance cannot write; what it has written in its data
//! directory (`ALTER SYSTEM`) is taken out before each start.

mod carry;
mod catalog;
pub mod copy;
mod session;
mod settings;
mod source;
mod taker;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::time::Duration;

use kiln_model::data::Role;
use kiln_model::name::InstanceId;
use kiln_model::spec::postgres::{CONFIGURATION, DATA, SOCKETS, SUPERUSER, USER, program};

use crate::file;
use crate::{
    Answer, Check, DatabaseEngine, Instance, Layout, Log, Offer, Program, Session, Source, Taker,
    Until,
};

/// What PostgreSQL calls its socket at its port.
pub const SOCKET: &str = ".s.PGSQL.5432";
/// In the directory of the sockets: a link to the directory of the instance that takes writes.
pub const PRIMARY: &str = "primary";

/// In the directory of the sockets: an empty file for each file of the log that is archived, in a
/// directory for each line.
pub const ARCHIVED: &str = "archived";
/// How long what was written waits for more before it is archived.
pub const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// By its being there, the data is served as a standby's.
const STANDBY_SIGNAL: &CStr = c"standby.signal";
/// By its being there, the data is brought to some moment and then served.
const RECOVERY_SIGNAL: &CStr = c"recovery.signal";
/// Where `ALTER SYSTEM` writes.
const OWN_SETTINGS: &CStr = c"postgresql.auto.conf";
/// The process that holds the data; what is left of one says nothing in another instance.
const PROCESS: &CStr = c"postmaster.pid";
/// How much of its own settings is looked at.
const MUCH: usize = 64 << 10;

/// Least space for what parallel queries share, in bytes.
const SHARED_MEMORY: u64 = 64 << 20;

/// PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub struct Postgres;

impl DatabaseEngine for Postgres {
    fn layout(&self) -> Layout {
        Layout { user: USER, data: DATA, sockets: SOCKETS }
    }

    fn create(&self, instance: &Instance<'_>) -> Program {
        let mut argv = vec![program(instance.identity.version, "initdb")];
        argv.extend(initdb());
        Program { argv, ..program_of(instance) }
    }

    fn replicate(&self, instance: &Instance<'_>, of: &InstanceId) -> Program {
        let from = format!(
            "host={SOCKETS}/{of} user={SUPERUSER} application_name={}",
            quoted_in_connection(&format!("copy of {}", instance.id))
        );
        let argv = [
            program(instance.identity.version, "pg_basebackup"),
            format!("--pgdata={DATA}"),
            format!("--dbname={from}"),
            "--wal-method=stream".to_owned(),
            "--checkpoint=fast".to_owned(),
            "--write-recovery-conf".to_owned(),
            "--no-password".to_owned(),
            "--no-manifest".to_owned(),
        ];
        Program { argv: argv.to_vec(), ..program_of(instance) }
    }

    fn copy(&self, instance: &Instance<'_>, of: &InstanceId) -> Program {
        copy::copy(instance, of)
    }

    fn recover(&self, instance: &Instance<'_>, until: Until) -> Program {
        let mut program = self.serve(instance);
        let files = program.directories.get_mut(CONFIGURATION);
        if let Some(file) = files.and_then(|files| files.get_mut("postgresql.conf")) {
            // What stands last is in force.
            file.push_str(&copy::recovery(until));
        }
        program
    }

    fn ended_early(&self, lines: &[String]) -> bool {
        lines.iter().any(|line| line.contains(copy::ENDED_EARLY))
    }

    fn checks_of_copy(&self, instance: &Instance<'_>) -> Vec<Check> {
        copy::checks_of_copy(instance)
    }

    fn checks_of_rows(&self, instance: &Instance<'_>) -> Vec<Check> {
        copy::checks_of_rows(instance)
    }

    fn checks_of_pages(&self, instance: &Instance<'_>) -> Vec<Check> {
        copy::checks_of_pages(instance)
    }

    fn upgrade(&self, instance: &Instance<'_>, offer: &Offer) -> Program {
        carry::program(instance, offer, program_of(instance))
    }

    fn serve(&self, instance: &Instance<'_>) -> Program {
        let files = [
            ("postgresql.conf", settings::file(instance)),
            ("pg_hba.conf", HBA.to_owned()),
            ("pg_ident.conf", String::new()),
        ];
        let argv = [
            program(instance.identity.version, "postgres"),
            "-D".to_owned(),
            DATA.to_owned(),
            "-c".to_owned(),
            format!("config_file={CONFIGURATION}/postgresql.conf"),
        ];
        let files = files.map(|(name, content)| (name.to_owned(), content)).into();
        Program {
            argv: argv.to_vec(),
            directories: [(CONFIGURATION.to_owned(), files)].into(),
            ..program_of(instance)
        }
    }

    fn ready(&self, data: &Path, as_: Role) -> io::Result<()> {
        let data = file::open(data)?;
        file::remove(&data, PROCESS)?;
        file::remove(&data, RECOVERY_SIGNAL)?;
        file::make_empty(&data, OWN_SETTINGS)?;
        match as_ {
            Role::Primary => file::remove(&data, STANDBY_SIGNAL),
            Role::Standby => file::make_empty(&data, STANDBY_SIGNAL),
        }
    }

    fn ready_to_recover(&self, data: &Path) -> io::Result<()> {
        let data = file::open(data)?;
        file::remove(&data, PROCESS)?;
        file::remove(&data, STANDBY_SIGNAL)?;
        file::make_empty(&data, OWN_SETTINGS)?;
        file::make_empty(&data, RECOVERY_SIGNAL)
    }

    fn system(&self, data: &Path) -> io::Result<u64> {
        let control = file::open_in(&file::open(data)?, c"global")?;
        let bytes = file::read(&control, c"pg_control", 8).unwrap_or_default();
        let bytes = bytes.try_into().map_err(|_| io::Error::other("it has no control file"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn log(&self, data: &Path) -> io::Result<Log> {
        Log::of(&file::open_in(&file::open(data)?, c"pg_wal")?, c"archive_status", ".ready")
    }

    fn role(&self, data: &Path) -> io::Result<Role> {
        let standby = file::exists(&file::open(data)?, STANDBY_SIGNAL)?;
        Ok(if standby { Role::Standby } else { Role::Primary })
    }

    fn strange_settings(&self, data: &Path) -> Option<String> {
        let text = file::read(&file::open(data).ok()?, OWN_SETTINGS, MUCH)?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(str::trim);
        let set: Vec<&str> = lines.filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
        (!set.is_empty()).then(|| set.join("; "))
    }

    fn connect<'a>(&'a self, sockets: &'a Path) -> Answer<'a, Box<dyn Session>> {
        Box::pin(async move {
            let session = session::PostgresSession::open(sockets).await?;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }

    fn source<'a>(&'a self, sockets: &'a Path, database: &'a str) -> Answer<'a, Box<dyn Source>> {
        Box::pin(async move {
            let source = source::PostgresSource::open(sockets, database).await?;
            Ok(Box::new(source) as Box<dyn Source>)
        })
    }

    fn taker<'a>(&'a self, sockets: &'a Path, database: &'a str) -> Answer<'a, Box<dyn Taker>> {
        Box::pin(async move {
            let taker = taker::PostgresTaker::open(sockets, database).await?;
            Ok(Box::new(taker) as Box<dyn Taker>)
        })
    }
}

/// Whoever gets to the socket is trusted.
const HBA: &str = "local all all trust\nlocal replication all trust\n";

/// Arguments of `initdb`.
fn initdb() -> [String; 7] {
    [
        format!("--pgdata={DATA}"),
        format!("--username={SUPERUSER}"),
        "--encoding=UTF8".to_owned(),
        "--locale=C.UTF-8".to_owned(),
        // The order of texts must not follow from the library of an image.
        "--lc-collate=C".to_owned(),
        "--auth=trust".to_owned(),
        "--data-checksums".to_owned(),
    ]
}

/// What all programs are started with.
fn program_of(instance: &Instance<'_>) -> Program {
    let env = [("LANG", "C.UTF-8"), ("TZ", "UTC")];
    let shared = instance.identity.memory.0.max(SHARED_MEMORY);
    Program {
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        writable: BTreeMap::from([("/dev/shm".to_owned(), shared)]),
        ..Program::default()
    }
}

/// A value in a connection string, as libpq reads it.
fn quoted_in_connection(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_left_in_a_data_directory_is_taken_out() {
        let directory = tempfile::tempdir().unwrap();
        let (data, outside) = (directory.path().join("data"), directory.path().join("outside"));
        fs::create_dir(&data).unwrap();
        fs::write(&outside, "precious").unwrap();
        fs::write(data.join("postmaster.pid"), "1\n").unwrap();
        fs::write(data.join("standby.signal"), "").unwrap();
        symlink(&outside, data.join("postgresql.auto.conf")).unwrap();
        assert_eq!(Postgres.role(&data).unwrap(), Role::Standby);
        assert_eq!(Postgres.strange_settings(&data), None);
        Postgres.ready(&data, Role::Primary).unwrap();
        assert_eq!(Postgres.role(&data).unwrap(), Role::Primary);
        assert!(!data.join("postmaster.pid").exists());
        assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
        assert_eq!(fs::read_to_string(data.join("postgresql.auto.conf")).unwrap(), "");
        Postgres.ready(&data, Role::Standby).unwrap();
        assert_eq!(Postgres.role(&data).unwrap(), Role::Standby);
    }

    #[test]
    fn settings_by_hand_are_seen() {
        let data = tempfile::tempdir().unwrap();
        let write = |text| fs::write(data.path().join("postgresql.auto.conf"), text).unwrap();
        write("# Do not edit this file manually!\n# It is overwritten by ALTER SYSTEM.\n");
        assert_eq!(Postgres.strange_settings(data.path()), None);
        write("# Do not edit\nwork_mem = '1GB'\n");
        assert_eq!(Postgres.strange_settings(data.path()), Some("work_mem = '1GB'".to_owned()));
    }
}
