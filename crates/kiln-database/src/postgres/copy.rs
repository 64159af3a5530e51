//! Copies of PostgreSQL's data as files that are kept, and how they are brought back.
//!
//! A copy is what `pg_basebackup --format=tar` writes: [`DATA_TAR`] with the data directory, [`LOG_TAR`]
//! with the log that it needs to be whole, and [`MANIFEST`] with the checksum of each file.

use kiln_model::name::InstanceId;
use kiln_model::spec::postgres::{DATA, SOCKETS, SUPERUSER, program};

use super::{program_of, quoted_in_connection};
use crate::{Check, Instance, Program, Until};

/// The data directory, a tar archive compressed by gzip.
pub const DATA_TAR: &str = "base.tar.gz";
/// The log that was written while it was copied, likewise.
pub const LOG_TAR: &str = "pg_wal.tar.gz";
/// The files of the data directory with their checksums, as JSON.
pub const MANIFEST: &str = "backup_manifest";

/// What is said when the log ends before the moment that was asked for.
pub(super) const ENDED_EARLY: &str = "recovery ended before configured recovery target was reached";

pub(super) fn copy(instance: &Instance<'_>, of: &InstanceId) -> Program {
    let name = quoted_in_connection(&format!("backup of {of}"));
    let from = format!("host={SOCKETS}/{of} user={SUPERUSER} application_name={name}");
    let argv = [
        program(instance.identity.version, "pg_basebackup"),
        format!("--pgdata={DATA}"),
        format!("--dbname={from}"),
        "--format=tar".to_owned(),
        "--compress=1".to_owned(),
        "--wal-method=stream".to_owned(),
        "--checkpoint=fast".to_owned(),
        "--manifest-checksums=SHA256".to_owned(),
        format!("--label=kiln {}", instance.id),
        "--no-password".to_owned(),
    ];
    Program { argv: argv.to_vec(), ..program_of(instance) }
}

/// What stands at the end of the configuration of an instance that is brought to a moment.
pub(super) fn recovery(until: Until) -> String {
    let mut lines = vec![
        // All that there is of the log stands where the engine looks after its archive.
        "restore_command = 'false'".to_owned(),
        "recovery_target_timeline = 'latest'".to_owned(),
        "recovery_target_action = 'promote'".to_owned(),
        // Nobody asks before it is done, so no bound of another instance matters.
        "hot_standby = 'off'".to_owned(),
        "archive_mode = 'off'".to_owned(),
        "synchronous_standby_names = ''".to_owned(),
        "max_wal_senders = '0'".to_owned(),
        "primary_conninfo = ''".to_owned(),
    ];
    match until {
        Until::End => {}
        Until::At(at) => {
            // Its `Z` is an abbreviation, and these are not known yet when it is read.
            let at = at.to_string().replace('Z', "+00");
            lines.push(format!("recovery_target_time = '{at}'"));
        }
        Until::Whole => lines.push("recovery_target = 'immediate'".to_owned()),
    }
    lines.push(String::new());
    lines.join("\n")
}

pub(super) fn checks_of_copy(instance: &Instance<'_>) -> Vec<Check> {
    let argv = ["--no-parse-wal".to_owned(), "--exit-on-error".to_owned(), DATA.to_owned()];
    vec![check(instance, "pg_verifybackup", "the files of its manifest", &argv)]
}

pub(super) fn checks_of_rows(instance: &Instance<'_>) -> Vec<Check> {
    let argv = [
        format!("--dbname=host={SOCKETS}/{} user={SUPERUSER} dbname=postgres", instance.id),
        "--file=/dev/null".to_owned(),
        "--no-sync".to_owned(),
        "--no-password".to_owned(),
    ];
    vec![check(instance, "pg_dumpall", "a dump of all rows", &argv)]
}

pub(super) fn checks_of_pages(instance: &Instance<'_>) -> Vec<Check> {
    let argv = ["--check".to_owned(), format!("--pgdata={DATA}")];
    vec![check(instance, "pg_checksums", "the checksums of all pages", &argv)]
}

fn check(instance: &Instance<'_>, name: &str, what: &'static str, more: &[String]) -> Check {
    let mut argv = vec![program(instance.identity.version, name)];
    argv.extend(more.iter().cloned());
    Check { what, program: Program { argv, ..program_of(instance) } }
}
