//! What Kiln asks of an image for PostgreSQL, and what it leaves to whoever declares a database.

use std::collections::BTreeSet;

use crate::spec::image::{Base, Recipe, Step};

/// The superuser, by whom Kiln alone does what it does.
pub const SUPERUSER: &str = "kiln";
/// Where an instance has its data, in the image.
pub const DATA: &str = "/var/lib/postgresql/data";
/// Where the sockets of a database's instances are, in the image.
pub const SOCKETS: &str = "/run/postgresql";
/// Where the files of configuration are, in the image.
pub const CONFIGURATION: &str = "/etc/postgresql";
/// The user in the image as whom PostgreSQL runs.
pub const USER: &str = "postgres";

/// The versions that there is a recipe for, with the suite of Debian that has each.
const SUITES: [(u32, &str); 3] = [(13, "bullseye"), (15, "bookworm"), (17, "trixie")];

/// Settings that are Kiln's to make: what they decide is declared elsewhere, or holds the data
/// together.
const RESERVED: [&str; 44] = [
    "allow_system_table_mods",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
    "bonjour",
    "cluster_name",
    "config_file",
    "data_directory",
    "dynamic_shared_memory_type",
    "event_source",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "huge_pages",
    "ident_file",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "include",
    "include_dir",
    "include_if_exists",
    "listen_addresses",
    "log_destination",
    "logging_collector",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "restart_after_crash",
    "restore_command",
    "shared_memory_type",
    "ssl",
    "stats_temp_directory",
    "superuser_reserved_connections",
    "synchronous_standby_names",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_level",
    "wal_log_hints",
    "zero_damaged_pages",
];

/// The beginnings of further such settings.
const RESERVED_BEGINNINGS: [&str; 4] = ["recovery_", "ssl_", "krb_", "syslog_"];

/// Why a setting cannot be declared, where it can't. Whether PostgreSQL knows it, only that says.
pub fn check_setting(name: &str, value: &str) -> Result<(), String> {
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    if !name.split('.').all(plain) || name.matches('.').count() > 1 {
        return Err(format!(
            "`{name}` is no name of a setting: write it in lower case, as in `work_mem`"
        ));
    }
    if RESERVED.contains(&name) || RESERVED_BEGINNINGS.iter().any(|begin| name.starts_with(begin)) {
        return Err(format!("`{name}` is Kiln's to set"));
    }
    if value.chars().any(char::is_control) {
        return Err(format!("the value of `{name}` holds a control character"));
    }
    Ok(())
}

/// Why a user of this name cannot be declared, where it can't.
pub fn check_user(name: &str) -> Result<(), String> {
    check_name(name)?;
    if name == SUPERUSER || name.starts_with("pg_") || ["public", "none"].contains(&name) {
        return Err(format!("`{name}` is a name that PostgreSQL or Kiln needs for itself"));
    }
    Ok(())
}

/// Why a database of this name cannot be declared, where it can't.
pub fn check_database(name: &str) -> Result<(), String> {
    check_name(name)?;
    if ["template0", "template1", "postgres", "replication", "all"].contains(&name) {
        return Err(format!("`{name}` is a name that PostgreSQL needs for itself"));
    }
    Ok(())
}

/// Longer names PostgreSQL cuts off.
const LONGEST_NAME: usize = 63;

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(format!("`{name}` is not 1 to {LONGEST_NAME} bytes of text"));
    }
    Ok(())
}

/// The image of a version, where there is one: packages of the Debian release that has it.
pub fn recipe(version: u32) -> Option<Recipe> {
    let (_, suite) = SUITES.iter().find(|(known, _)| *known == version)?;
    let directory = |path: &str, owner: Option<&str>| Step::Directory {
        path: path.to_owned(),
        owner: owner.map(str::to_owned),
        mode: None,
    };
    let suite = (*suite).to_owned();
    Some(Recipe {
        // `initdb` has its programs started by a shell.
        packages: BTreeSet::from([format!("postgresql-{version}"), "dash".to_owned()]),
        steps: vec![
            directory(DATA, Some(USER)),
            directory(SOCKETS, None),
            directory(CONFIGURATION, None),
        ],
        user: Some(USER.to_owned()),
        entrypoint: vec![program(version, "postgres")],
        ..Recipe::on(Base::Debian { suite })
    })
}

/// Where a program of PostgreSQL is, in the image.
pub fn program(version: u32, name: &str) -> String {
    format!("/usr/lib/postgresql/{version}/bin/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_hold_the_data_together_are_refused() {
        assert_eq!(check_setting("work_mem", "8MB"), Ok(()));
        assert_eq!(check_setting("auto_explain.log_min_duration", "1s"), Ok(()));
        for name in ["listen_addresses", "archive_mode", "recovery_target_time", "fsync"] {
            assert!(check_setting(name, "x").unwrap_err().contains(name));
        }
        for name in ["", "Work_Mem", "a b", "a.b.c", "a=b", ".x", "9x"] {
            assert!(check_setting(name, "x").is_err(), "{name}");
        }
        assert!(check_setting("work_mem", "8MB'\nfsync=off").is_err());
    }

    #[test]
    fn the_lists_are_in_order() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn names_that_are_taken_are_refused() {
        assert_eq!(check_user("orders"), Ok(()));
        assert_eq!(check_user("postgres"), Ok(()));
        assert!(check_user(SUPERUSER).is_err() && check_user("pg_monitor").is_err());
        assert_eq!(check_database("Orders of 2026"), Ok(()));
        assert!(check_database("postgres").is_err() && check_database("").is_err());
    }

    #[test]
    fn there_is_a_recipe_for_what_debian_has() {
        let versions: Vec<u32> = (9..20).filter(|version| recipe(*version).is_some()).collect();
        assert_eq!(versions, [13, 15, 17]);
        let packages = recipe(15).unwrap().packages;
        assert!(packages.contains("postgresql-15"));
    }
}
