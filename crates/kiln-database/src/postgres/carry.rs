//! The program that makes a data directory of a newer major version with the definitions of an
//! older one, and has it receive the rows.

use kiln_model::spec::postgres::{DATA, SOCKETS, SUPERUSER, program as path};

use super::session::{identifier, literal};
use super::source::ROWS;
use super::{PRIMARY, initdb, quoted_in_connection};
use crate::{Instance, Offer, Program};

/// Where the server of that moment has its socket, and what is read from the other one is kept: in
/// memory, and as large as the definitions are as text.
const HERE: &str = "/dev/shm";

/// It begins nothing of its own, and says only why it cannot go on.
const QUIET: &str = "-c listen_addresses= -c unix_socket_directories=/dev/shm \
    -c unix_socket_permissions=0700 -c max_logical_replication_workers=0 -c autovacuum=off \
    -c log_min_messages=fatal -c log_min_error_statement=panic";

/// `$1` and so on are arguments of the program; the shell of the image has what is built in.
const SCRIPT: &str = r#"set -eu
"$INITDB" "$@" >&2
"$PG_CTL" --pgdata="$DATA" --silent --wait --timeout=60 --options="$QUIET" start >&2
run() {
  "$PSQL" --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --output=/dev/null \
    --host="$HERE" --username="$SUPERUSER" "$@"
}
"$PG_DUMPALL" --globals-only --no-password --dbname="$FROM" --file="$HERE/globals"
while IFS= read -r line; do
  [ "$line" = "CREATE ROLE $SUPERUSER;" ] || printf '%s\n' "$line"
done <"$HERE/globals" >"$HERE/roles"
run --dbname=template1 --file="$HERE/roles"
"$PG_DUMP" --schema-only --create --clean --if-exists --no-subscriptions --no-password \
  --lock-wait-timeout=30000 --dbname="$FROM" --file="$HERE/schema"
run --dbname=template1 --file="$HERE/schema"
printf '%s\n' "$EMPTY" | run --dbname="$TO"
run --dbname="$TO" --command="$SUBSCRIBE"
"$PG_CTL" --pgdata="$DATA" --silent --wait --timeout=120 --mode=fast stop >&2
"#;

/// Rows that an extension has put into its tables come from the other side, as they are there.
const EMPTY: &str = "SELECT format('TRUNCATE ONLY %s', c.oid::regclass) \
    FROM pg_extension e JOIN pg_class c ON c.oid = ANY (e.extconfig) WHERE c.relkind = 'r' \\gexec";

pub(super) fn program(instance: &Instance<'_>, offer: &Offer, with: Program) -> Program {
    let version = instance.identity.version;
    let database = quoted_in_connection(&offer.database);
    let subscribe = format!(
        "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {ROWS} WITH (slot_name = {}, \
            synchronous_commit = off)",
        identifier(instance.id.as_str()),
        // It finds the one that takes writes also where that was started anew meanwhile.
        literal(format!(
            "host={SOCKETS}/{PRIMARY} user={SUPERUSER} dbname={database} gssencmode=disable"
        )),
        literal(slot(instance.id.as_str())),
    );
    let env = [
        ("INITDB", path(version, "initdb")),
        ("PG_CTL", path(version, "pg_ctl")),
        ("PSQL", path(version, "psql")),
        ("PG_DUMP", path(version, "pg_dump")),
        ("PG_DUMPALL", path(version, "pg_dumpall")),
        ("DATA", DATA.to_owned()),
        ("HERE", HERE.to_owned()),
        ("QUIET", QUIET.to_owned()),
        ("SUPERUSER", SUPERUSER.to_owned()),
        ("FROM", format!("host={SOCKETS}/{} user={SUPERUSER} dbname={database}", offer.of)),
        ("TO", format!("dbname={database}")),
        ("EMPTY", EMPTY.to_owned()),
        ("SUBSCRIBE", subscribe),
    ];
    let mut argv =
        vec!["/bin/sh".to_owned(), "-c".to_owned(), SCRIPT.to_owned(), "upgrade".to_owned()];
    argv.extend(initdb());
    let mut program = Program { argv, ..with };
    program.env.extend(env.map(|(name, value)| (name.to_owned(), value)));
    program
}

/// The name of the slot for an instance: small letters, digits and underscores.
fn slot(id: &str) -> String {
    let own = id.rsplit('-').next().unwrap_or(id);
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    format!("kiln_{}", own.chars().filter(|c| fits(*c)).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_are_quoted_once_for_each_reader() {
        let identity = crate::fixture::identity();
        let (id, of) = ("database-x-2b".parse().unwrap(), "database-x-1a".parse().unwrap());
        let instance = Instance {
            id: &id,
            identity: &identity,
            at_least: BTreeMap::new(),
            beside: None,
            line: None,
        };
        let offer = Offer { of, database: "it's".to_owned() };
        let program = program(&instance, &offer, Program::default());
        assert_eq!(program.env["TO"], "dbname='it\\'s'");
        let subscribe = &program.env["SUBSCRIBE"];
        assert!(subscribe.contains("dbname=''it\\''s'' gssencmode"), "{subscribe}");
        assert!(subscribe.contains("slot_name = 'kiln_2b'"), "{subscribe}");
    }
}
