//! A connection to a running PostgreSQL, as its superuser.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use kiln_model::data::Role;
use kiln_model::name::InstanceId;
use kiln_model::spec::database::DatabaseIdentity;
use kiln_model::spec::postgres::SUPERUSER;
use rustix::fs::{FileType, Mode, OFlags};
use tokio::net::UnixStream;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::SOCKET;
use super::settings::BOUNDS;
use crate::{Answer, EngineError, Follower, Session, State, file};

/// The database that is always there.
const OWN_DATABASE: &str = "postgres";
/// How long a promotion may take.
const PROMOTION: u32 = 10;
/// How long sessions that are ended may take to go.
const GOING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// One row: whether it is in recovery, position, whether it receives the log, a line for each who
/// receives from it, whether it is to receive rows, and whether it does. Asking for the latter has
/// what was received become durable at once, as only that is confirmed.
const STATE: &str = "\
SELECT pg_is_in_recovery(),
  (CASE WHEN pg_is_in_recovery()
    THEN GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
    ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::bigint,
  EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'),
  (SELECT string_agg(concat_ws(E'\\t', application_name, r.state, sync_state,
      coalesce((flush_lsn - '0/0'::pg_lsn)::bigint, -1),
      EXISTS (SELECT FROM pg_replication_slots s
        WHERE s.active_pid = r.pid AND s.slot_type = 'logical')), E'\\n')
    FROM pg_stat_replication r),
  NOT pg_is_in_recovery() AND EXISTS (SELECT FROM pg_subscription),
  EXISTS (SELECT FROM pg_stat_subscription WHERE relid IS NULL AND pid IS NOT NULL
    AND received_lsn IS NOT NULL)";

/// Has what was written without waiting for the disk be durable.
const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'kiln', 'flush')
    WHERE pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()";

/// See the module.
pub(super) struct PostgresSession {
    client: Client,
    sockets: std::path::PathBuf,
}

impl PostgresSession {
    pub(super) async fn open(sockets: &Path) -> Result<Self, EngineError> {
        let client = connect(sockets, OWN_DATABASE).await?;
        Ok(Self { client, sockets: sockets.to_owned() })
    }

    async fn rows(&self, query: &str) -> Result<Vec<SimpleQueryRow>, EngineError> {
        rows(&self.client, query).await
    }

    async fn run(&self, statement: &str) -> Result<(), EngineError> {
        self.rows(statement).await.map(drop)
    }

    /// The first column of all rows.
    async fn names(&self, query: &str) -> Result<Vec<String>, EngineError> {
        let rows = self.rows(query).await?;
        Ok(rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect())
    }

    async fn number(&self, query: &str) -> Result<u64, EngineError> {
        let names = self.names(query).await?;
        let number = names.first().and_then(|text| text.parse().ok());
        number.ok_or_else(|| EngineError::Senseless(format!("{names:?} to {query}")))
    }

    async fn state_now(&self) -> Result<State, EngineError> {
        let rows = self.rows(STATE).await?;
        let row = rows.first();
        let column = |index| row.and_then(|row: &SimpleQueryRow| row.get(index));
        let senseless = || EngineError::Senseless("no position".to_owned());
        let takes_over = column(4) == Some("t");
        let standby = takes_over || column(0) == Some("t");
        let role = if standby { Role::Standby } else { Role::Primary };
        if takes_over {
            self.run(FLUSH).await?;
        }
        let followers = column(3).unwrap_or_default();
        Ok(State {
            role,
            // A standby that has neither received nor replayed anything is at no position yet.
            position: column(1).unwrap_or("0").parse().map_err(|_| senseless())?,
            receives: column(if takes_over { 5 } else { 2 }) == Some("t"),
            takes_over,
            followers: followers.lines().filter_map(follower).collect(),
        })
    }

    async fn declare_all(&self, identity: &DatabaseIdentity) -> Result<(), EngineError> {
        for name in self.names(STRANGE_SUPERUSERS).await? {
            self.run(&format!("ALTER ROLE {} NOSUPERUSER", identifier(&name))).await?;
        }
        let (user, database) = (identifier(&identity.user), identifier(&identity.database));
        let who = literal(&identity.user);
        let rights = "LOGIN NOSUPERUSER NOREPLICATION NOBYPASSRLS";
        let here = self.names(&format!("SELECT 1 FROM pg_roles WHERE rolname = {who}")).await?;
        if here.is_empty() {
            self.run(&format!("CREATE ROLE {user} {rights}")).await?;
        } else {
            let right = format!(
                "SELECT 1 FROM pg_roles WHERE rolname = {who}
                    AND rolcanlogin AND NOT rolreplication AND NOT rolbypassrls"
            );
            if self.names(&right).await?.is_empty() {
                self.run(&format!("ALTER ROLE {user} {rights}")).await?;
            }
        }
        let owner = format!(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {}",
            literal(&identity.database)
        );
        match self.names(&owner).await?.first() {
            None => self.run(&format!("CREATE DATABASE {database} OWNER {user}")).await?,
            Some(owner) if *owner != identity.user => {
                self.run(&format!("ALTER DATABASE {database} OWNER TO {user}")).await?;
            }
            Some(_) => {}
        }
        self.extend(identity).await
    }

    async fn extend(&self, identity: &DatabaseIdentity) -> Result<(), EngineError> {
        if identity.extensions.is_empty() {
            return Ok(());
        }
        let client = connect(&self.sockets, &identity.database).await?;
        let here = rows(&client, "SELECT extname FROM pg_extension").await?;
        let here: BTreeSet<&str> = here.iter().filter_map(|row| row.get(0)).collect();
        for name in identity.extensions.iter().filter(|name| !here.contains(name.as_str())) {
            rows(&client, &format!("CREATE EXTENSION {} CASCADE", identifier(name))).await?;
        }
        Ok(())
    }

    async fn fence_now(&self, next: &InstanceId) -> Result<u64, EngineError> {
        // What is being copied from it is left: its standby is of no use yet, and not in the way.
        let others = format!(
            "SELECT count(pg_terminate_backend(one.pid)) FROM pg_stat_activity one
                LEFT JOIN pg_stat_replication sent ON sent.pid = one.pid
                WHERE one.backend_type = 'client backend' AND one.usename <> {}
                OR sent.state IN ('startup', 'catchup', 'streaming')
                    AND sent.application_name <> {}",
            literal(SUPERUSER),
            literal(next.as_str())
        );
        let deadline = tokio::time::Instant::now() + GOING;
        loop {
            let left = self.number(&others).await?;
            if left == 0 {
                break;
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(EngineError::Refused(format!("{left} sessions do not end")));
            }
            tokio::time::sleep(LOOK).await;
        }
        // With this, all that was written before is durable too, whatever sessions had chosen.
        self.run("SELECT pg_logical_emit_message(true, 'kiln', 'fence')").await?;
        self.number("SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint").await
    }

    async fn promote_now(&self) -> Result<(), EngineError> {
        let promoted = self.names(&format!("SELECT pg_promote(true, {PROMOTION})")).await?;
        if promoted.first().is_none_or(|answer| answer != "t") {
            let text = format!("it does not take writes {PROMOTION} s after it was told to");
            return Err(EngineError::Refused(text));
        }
        match self.state_now().await?.role {
            Role::Primary => Ok(()),
            Role::Standby => Err(EngineError::Refused("it still takes no writes".to_owned())),
        }
    }
}

impl Session for PostgresSession {
    fn state(&mut self) -> Answer<'_, State> {
        Box::pin(self.state_now())
    }

    fn declare<'a>(&'a mut self, identity: &'a DatabaseIdentity) -> Answer<'a, ()> {
        Box::pin(self.declare_all(identity))
    }

    fn lacks<'a>(&'a mut self, identity: &'a DatabaseIdentity) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let here = self.names("SELECT name FROM pg_available_extensions").await?;
            let lacking = identity.extensions.iter().filter(|name| !here.contains(name));
            Ok(lacking.map(|name| format!("the extension {name}")).collect())
        })
    }

    fn strange_superusers(&mut self) -> Answer<'_, Vec<String>> {
        Box::pin(self.names(STRANGE_SUPERUSERS))
    }

    fn bounds(&mut self) -> Answer<'_, BTreeMap<String, u64>> {
        Box::pin(async move {
            let names = BOUNDS.map(literal).join(", ");
            let query = format!("SELECT name, setting FROM pg_settings WHERE name IN ({names})");
            let rows = self.rows(&query).await?;
            let bound = |row: &SimpleQueryRow| {
                Some((row.get(0)?.to_owned(), row.get(1)?.parse::<u64>().ok()?))
            };
            Ok(rows.iter().filter_map(bound).collect())
        })
    }

    fn fence<'a>(&'a mut self, next: &'a InstanceId) -> Answer<'a, u64> {
        Box::pin(self.fence_now(next))
    }

    fn switch_log(&mut self) -> Answer<'_, (u32, u64)> {
        Box::pin(async move {
            let switch = "SELECT (pg_switch_wal() - '0/0'::pg_lsn)::bigint";
            let position = self.number(switch).await?;
            // A name begins with the timeline; which one it is otherwise is of no matter.
            let names = self.names("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await?;
            let timeline =
                names.first().and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok());
            let senseless = || EngineError::Senseless(format!("a log called {names:?}"));
            Ok((timeline.ok_or_else(senseless)?, position))
        })
    }

    fn promote(&mut self) -> Answer<'_, ()> {
        Box::pin(self.promote_now())
    }
}

const STRANGE_SUPERUSERS: &str =
    "SELECT rolname FROM pg_roles WHERE rolsuper AND rolname <> 'kiln' ORDER BY rolname";

/// `name TAB state TAB sync_state TAB position TAB whether by a logical slot`.
fn follower(line: &str) -> Option<Follower> {
    let mut fields = line.split('\t');
    let (name, state) = (fields.next()?, fields.next()?);
    let synchronous = matches!(fields.next()?, "sync" | "quorum");
    let position = fields.next()?.parse().ok();
    let takes_rows = fields.next()? == "t";
    let (name, streams) = (name.to_owned(), state == "streaming");
    Some(Follower { name, streams, synchronous, takes_rows, position })
}

pub(super) async fn rows(client: &Client, query: &str) -> Result<Vec<SimpleQueryRow>, EngineError> {
    let messages = client.simple_query(query).await.map_err(failed)?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

/// Connects to the socket in a directory that belongs to the instance: what is there may be
/// anything, and a path of it too long for a socket's address.
pub(super) async fn connect(sockets: &Path, database: &str) -> Result<Client, EngineError> {
    let silent = |error: io::Error| EngineError::Silent(error.to_string());
    let directory = file::open(sockets).map_err(silent)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = rustix::fs::openat(&directory, SOCKET, flags, Mode::empty())
        .map_err(|error| EngineError::Silent(format!("{SOCKET}: {}", io::Error::from(error))))?;
    let found = rustix::fs::fstat(&socket).map_err(|error| silent(error.into()))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(EngineError::Senseless(format!("{SOCKET} is no socket")));
    }
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let stream = UnixStream::connect(path).await.map_err(silent)?;
    let mut config = Config::new();
    config
        .user(SUPERUSER)
        .dbname(database)
        .application_name("kiln")
        // What Kiln writes must not wait for a standby that is yet to be made.
        .options("-c synchronous_commit=local -c search_path=pg_catalog");
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(failed)?;
    // It ends with the client, or shows there that it has ended.
    tokio::spawn(connection);
    Ok(client)
}

fn failed(error: tokio_postgres::Error) -> EngineError {
    if let Some(said) = error.as_db_error() {
        return EngineError::Refused(format!("{}: {}", said.severity(), said.message()));
    }
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    EngineError::Silent(format!("{error}{cause}"))
}

pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn literal(text: impl AsRef<str>) -> String {
    // A backslash is itself: standard_conforming_strings is on.
    format!("'{}'", text.as_ref().replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_end_a_statement() {
        assert_eq!(identifier("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("it's"), "'it''s'");
    }

    #[test]
    fn followers_are_read() {
        let read = follower("database-x-2\tstreaming\tquorum\t77\tf").unwrap();
        assert!(read.streams && read.synchronous && read.name == "database-x-2");
        assert_eq!((read.position, read.takes_rows), (Some(77), false));
        let read = follower("x\tcatchup\tasync\t-1\tt").unwrap();
        assert!(!read.streams && read.takes_rows && read.position.is_none());
        assert_eq!(follower("x"), None);
    }
}
