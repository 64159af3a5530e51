//! A PostgreSQL that receives the rows of one of an older major version.

use std::path::Path;

use tokio_postgres::Client;

use super::session::{connect, identifier, literal, rows};
use super::source::PostgresSource;
use crate::{Answer, EngineError, LastValues, Source as _, Taker};

/// How long what clients wait for may take. A statement beyond it fails, and the change is put off.
const SWITCH: &str = "SET statement_timeout = '4s'";

/// See the module.
pub(super) struct PostgresTaker {
    client: Client,
    own: PostgresSource,
}

impl PostgresTaker {
    pub(super) async fn open(sockets: &Path, database: &str) -> Result<Self, EngineError> {
        let client = connect(sockets, database).await?;
        Ok(Self { client, own: PostgresSource::open(sockets, database).await? })
    }

    async fn run(&self, statement: &str) -> Result<(), EngineError> {
        rows(&self.client, statement).await.map(drop)
    }

    async fn missing_now(&self) -> Result<u64, EngineError> {
        let query = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
        let found = rows(&self.client, query).await?;
        let count = found.first().and_then(|row| row.get(0)?.parse().ok());
        count.ok_or_else(|| EngineError::Senseless(format!("nothing to {query}")))
    }

    async fn settle_now(&mut self, views: &[String]) -> Result<(), EngineError> {
        // What was the old one's way to tell rows apart came over as a definition.
        self.own.withdraw(&|| false).await?;
        for view in self.in_order(views).await? {
            self.run(&format!("REFRESH MATERIALIZED VIEW {view}")).await?;
        }
        self.run("VACUUM (ANALYZE)").await
    }

    /// Views that others are made of before these: as they were made.
    async fn in_order(&self, views: &[String]) -> Result<Vec<String>, EngineError> {
        let query = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' ORDER BY c.oid";
        let found = rows(&self.client, query).await?;
        let names = found.iter().filter_map(|row| row.get(0)).map(str::to_owned);
        Ok(names.filter(|name| views.contains(name)).collect())
    }

    async fn take_now(&self, last: &LastValues, views: &[String]) -> Result<(), EngineError> {
        self.run(SWITCH).await?;
        let set = last.sequences.iter().map(|(name, (value, called))| {
            format!("SELECT setval({}, {value}, {called})", literal(name))
        });
        self.run(&set.collect::<Vec<_>>().join("; ")).await?;
        for view in self.in_order(views).await? {
            self.run(&format!("REFRESH MATERIALIZED VIEW {view}")).await?;
        }
        // From here on a write counts where a standby has it, and so does all that came before.
        self.run("SET synchronous_commit = on").await?;
        self.run("SELECT pg_logical_emit_message(true, 'kiln', 'seat')").await?;
        let subscriptions = rows(&self.client, "SELECT subname FROM pg_subscription").await?;
        for name in subscriptions.iter().filter_map(|row| row.get(0)).map(identifier) {
            // Without a slot none at the other side is asked for: that goes by itself.
            let steps = [
                format!("ALTER SUBSCRIPTION {name} DISABLE"),
                format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"),
                format!("DROP SUBSCRIPTION {name}"),
            ];
            self.run(&steps.join("; ")).await?;
        }
        Ok(())
    }
}

impl Taker for PostgresTaker {
    fn missing_tables(&mut self) -> Answer<'_, u64> {
        Box::pin(self.missing_now())
    }

    fn settle<'a>(&'a mut self, views: &'a [String]) -> Answer<'a, ()> {
        Box::pin(self.settle_now(views))
    }

    fn take<'a>(&'a mut self, last: &'a LastValues, views: &'a [String]) -> Answer<'a, ()> {
        Box::pin(self.take_now(last, views))
    }
}
