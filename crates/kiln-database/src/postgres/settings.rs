//! `postgresql.conf`: what Kiln sets, and over it what is declared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kiln_model::spec::database::check_setting;
use kiln_model::spec::postgres::{CONFIGURATION, DATA, SOCKETS, SUPERUSER};

use super::{ARCHIVE_TIMEOUT, ARCHIVED, PRIMARY};
use crate::Instance;

const MIB: u64 = 1 << 20;

/// Bounds of which a standby must have at least as much as its primary, to replay what that did.
pub(super) const BOUNDS: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// The content of the file.
pub(super) fn file(instance: &Instance<'_>) -> String {
    let mut all = chosen(instance);
    let declared = instance.identity.settings.iter();
    // What cannot be declared was refused before; whatever came by is left out.
    let declared = declared.filter(|(name, value)| check_setting(name, value).is_ok());
    all.extend(declared.map(|(name, value)| (name.clone(), value.clone())));
    for (name, least) in &instance.at_least {
        let least = *least;
        let own = all.get(name).and_then(|value| value.parse::<u64>().ok());
        if own.is_none_or(|own| own < least) {
            all.insert(name.clone(), least.to_string());
        }
    }
    let mut text = String::new();
    for (name, value) in all {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} = '{value}'");
    }
    text
}

/// What Kiln chooses.
fn chosen(instance: &Instance<'_>) -> BTreeMap<String, String> {
    let (id, identity) = (instance.id, instance.identity);
    let (memory, size) = (identity.memory.0 / MIB, identity.size.0 / MIB);
    let mib = |count: u64| format!("{count}MB");
    // One that does not take writes yet is led to by nothing but its name.
    let beside = instance.beside.map(|of| format!("{SOCKETS}/{of},")).unwrap_or_default();
    let conninfo = format!(
        "host={beside}{SOCKETS}/{PRIMARY} user={SUPERUSER} application_name={id} \
         gssencmode=disable"
    );
    let settings = [
        // Where it is, and who gets in.
        ("cluster_name", id.to_string()),
        ("data_directory", DATA.to_owned()),
        ("hba_file", format!("{CONFIGURATION}/pg_hba.conf")),
        ("ident_file", format!("{CONFIGURATION}/pg_ident.conf")),
        ("listen_addresses", String::new()),
        ("max_connections", "100".to_owned()),
        ("unix_socket_directories", format!("{SOCKETS}/{id}")),
        ("unix_socket_permissions", "0777".to_owned()),
        // What it takes.
        ("dynamic_shared_memory_type", "posix".to_owned()),
        ("huge_pages", "off".to_owned()),
        ("shared_buffers", mib((memory / 4).clamp(16, 16 << 10))),
        ("shared_memory_type", "mmap".to_owned()),
        // Data that is acknowledged is there.
        ("fsync", "on".to_owned()),
        ("full_page_writes", "on".to_owned()),
        // Kiln replaces; a process that has crashed may have left anything in memory.
        ("restart_after_crash", "off".to_owned()),
        // Its log of changes, and who receives it.
        ("hot_standby", "on".to_owned()),
        ("max_replication_slots", "10".to_owned()),
        ("max_wal_senders", "10".to_owned()),
        // A slot that nobody reads from must not fill the disk.
        ("max_slot_wal_keep_size", mib(size.clamp(1 << 10, 64 << 10))),
        ("max_wal_size", mib((size / 8).clamp(64, 4 << 10))),
        ("min_wal_size", mib((size / 32).clamp(32, 80))),
        ("primary_conninfo", conninfo),
        ("recovery_target_timeline", "latest".to_owned()),
        ("wal_keep_size", mib((size / 16).clamp(64, 1 << 10))),
        ("wal_level", "logical".to_owned()),
        ("wal_receiver_status_interval", "1s".to_owned()),
        ("wal_receiver_timeout", "10s".to_owned()),
        ("wal_retrieve_retry_interval", "100ms".to_owned()),
        ("wal_sender_timeout", "10s".to_owned()),
        // What it says.
        ("log_destination", "stderr".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("timezone", "UTC".to_owned()),
    ];
    let mut all: BTreeMap<String, String> =
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if identity.synchronous {
        all.insert("synchronous_standby_names".to_owned(), "ANY 1 (*)".to_owned());
    }
    all.extend(archiving(instance).into_iter().flatten());
    all
}

/// Where the log is archived: a standby does it as well, so that nothing is missing when it takes over.
/// The engine keeps a file of its log until the command succeeds; it does when Kiln, from outside, has
/// the file where it belongs.
fn archiving(instance: &Instance<'_>) -> Option<[(String, String); 3]> {
    let line = instance.line.as_ref().filter(|_| instance.identity.archived)?;
    let settings = [
        ("archive_mode", "always".to_owned()),
        ("archive_command", format!("test -e {SOCKETS}/{ARCHIVED}/{line}/%f")),
        ("archive_timeout", format!("{}s", ARCHIVE_TIMEOUT.as_secs())),
    ];
    Some(settings.map(|(name, value)| (name.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use crate::fixture::identity;

    use super::*;

    fn text(at_least: &[(&str, u64)], settings: &[(&str, &str)]) -> String {
        let mut identity = identity();
        let declared = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        identity.settings = declared.collect();
        let at_least = at_least.iter().map(|(name, least)| ((*name).to_owned(), *least)).collect();
        let id = "database-x-1".parse().unwrap();
        let line = Some("42".to_owned());
        file(&Instance { id: &id, identity: &identity, at_least, beside: None, line })
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|found| found == line)
    }

    #[test]
    fn what_is_declared_stands_over_what_is_chosen() {
        let text = text(&[], &[("shared_buffers", "20MB"), ("search_path", "it's")]);
        assert!(has(&text, "shared_buffers = '20MB'"));
        assert!(has(&text, "search_path = 'it''s'"));
        assert!(has(&text, "listen_addresses = ''"));
        assert!(!text.contains("synchronous_standby_names"));
    }

    #[test]
    fn what_would_break_it_is_left_out() {
        let text = text(&[], &[("fsync", "off"), ("listen_addresses", "*")]);
        assert!(has(&text, "fsync = 'on'") && has(&text, "listen_addresses = ''"));
    }

    #[test]
    fn a_log_is_archived_where_that_is_declared() {
        assert!(!text(&[], &[]).contains("archive_"));
        let id = "database-x-1".parse().unwrap();
        let identity =
            kiln_model::spec::database::DatabaseIdentity { archived: true, ..identity() };
        let (at_least, line) = (BTreeMap::new(), Some("42".to_owned()));
        let text = file(&Instance { id: &id, identity: &identity, at_least, beside: None, line });
        assert!(has(&text, "archive_mode = 'always'"), "{text}");
        assert!(has(&text, "archive_command = 'test -e /run/postgresql/archived/42/%f'"), "{text}");
    }

    #[test]
    fn a_standby_has_no_less_than_its_primary() {
        let text = text(&[("max_connections", 300), ("max_wal_senders", 5)], &[]);
        assert!(has(&text, "max_connections = '300'") && has(&text, "max_wal_senders = '10'"));
    }
}
