//! Clients of databases, with real instances of PostgreSQL behind the gate.

mod bulk;
mod carried;
mod cluster;
mod login;
mod lost;
mod planned;
mod upgrade;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kiln_gateway::control::{Applied, Keys};
use kiln_model::certificate::SecretKey;
use kiln_model::data::ObservedGate;
use kiln_model::route::{DatabaseRoute, EndpointRoute, Protocol};
use kiln_model::spec::database::Engine;
use tokio_postgres::{Client, Config, NoTls};

use crate::world::{World, component, endpoint, eventually, free_port, table};

pub(crate) use cluster::{Instance, program, run};

/// The password that clients have.
const PASSWORD: &str = "correct horse";

/// A gateway with a database behind it.
pub(crate) struct Gated {
    pub(crate) world: World,
    pub(crate) address: SocketAddr,
    endpoint: EndpointRoute,
}

impl Gated {
    pub(crate) fn start(name: &str) -> Option<Self> {
        if !cluster::can_run(name) {
            return None;
        }
        let world = World::start(name)?;
        let mut endpoint = endpoint("db", free_port(), Protocol::Database, vec![]);
        endpoint.to = component("database.orders");
        Some(Self { world, address: endpoint.listen, endpoint })
    }

    /// Puts a table in force that names this primary.
    pub(crate) fn set(&self, primary: Option<&Instance>, holds: bool) -> Applied {
        self.set_with(primary, holds, |_, _| {})
    }

    pub(crate) fn set_with(
        &self,
        primary: Option<&Instance>,
        holds: bool,
        change: impl FnOnce(&mut EndpointRoute, &mut DatabaseRoute),
    ) -> Applied {
        let secret = component("secret.orders");
        let mut route = DatabaseRoute {
            component: component("database.orders"),
            engine: Engine::Postgres,
            primary: primary.map(|instance| instance.id.parse().unwrap()),
            holds,
            user: "app".to_owned(),
            database: "app".to_owned(),
            passwords: vec![SecretKey { secret, version: Some("v1".to_owned()) }],
        };
        let mut endpoint = self.endpoint.clone();
        change(&mut endpoint, &mut route);
        let mut table = table(vec![endpoint], vec![]);
        table.databases = vec![route];
        let keys: Keys = [("v1".to_owned(), PASSWORD.to_owned())].into_iter().collect();
        self.world.gateway.set_table_with(table, keys).unwrap()
    }

    /// How the gate is.
    pub(crate) fn gate(&self) -> ObservedGate {
        self.world.gateway.status().unwrap().databases[0].gate.clone()
    }

    pub(crate) fn settle(&self) {
        eventually(Duration::from_secs(10), "the gate is settled", || {
            self.gate().settled_since.is_some()
        });
    }

    /// Takes writes from one instance to the other, as the daemon would. Returns for how long
    /// clients were held.
    pub(crate) fn switch(&self, from: &Instance, to: &Instance) -> Duration {
        self.set(Some(from), true);
        let held = Instant::now();
        self.settle();
        self.set(None, false);
        to.catch_up(from);
        to.promote();
        self.set(Some(to), false);
        held.elapsed()
    }

    /// `psql` or `pgbench`, for this database.
    pub(crate) fn client(&self, name: &str) -> std::process::Command {
        let mut client = program(name);
        client.env("PGPASSWORD", PASSWORD).env("PGUSER", "app").env("PGDATABASE", "app");
        client
            .env("HOME", "/nonexistent")
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.address.port().to_string());
        client
    }

    pub(crate) fn psql(&self, sql: &str) -> Result<String, String> {
        run(self.client("psql").args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.address.port()).user("app").dbname("app");
        config.password(PASSWORD);
        config
    }

    /// A session, with its messages taken care of.
    pub(crate) async fn connect(&self) -> Client {
        let (client, connection) = self.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// Runs what is asynchronous of a test.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// The first column of the first row, as text.
pub(crate) async fn one(client: &Client, sql: &str) -> String {
    for message in client.simple_query(sql).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            return row.get(0).unwrap_or_default().to_owned();
        }
    }
    String::new()
}

/// The code of the error that a question ends with.
pub(crate) async fn failure(client: &Client, sql: &str) -> (String, String) {
    let error = client.simple_query(sql).await.unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    (error.code().code().to_owned(), error.message().to_owned())
}
