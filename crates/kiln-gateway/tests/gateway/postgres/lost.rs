//! An instance is gone without anybody having said that it would be.

use std::time::Duration;

use kiln_gateway::control::Event;
use tokio_postgres::NoTls;

use super::{Gated, Instance, block_on, one};
use crate::world::{component, event, eventually};

#[test]
fn idle_sessions_go_on_at_the_standby_and_busy_ones_are_told() {
    let Some(gated) = Gated::start("idle_sessions_go_on") else { return };
    let mut old = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&old), false);
    let new = old.standby(&gated.world, "orders-2");
    let mut watch = gated.world.gateway.watch().unwrap();
    block_on(async {
        let idle = gated.connect().await;
        one(&idle, "CREATE TABLE t (a int)").await;
        one(&idle, "SET work_mem = '9MB'; SET application_name = 'me'").await;
        one(&idle, "PREPARE twice AS SELECT 2").await;
        let statement = idle.prepare("SELECT $1::int4 + 1").await.unwrap();
        let mut others = Vec::new();
        for sql in ["BEGIN; INSERT INTO t VALUES (1)", "CREATE TEMP TABLE x (a int)"] {
            let (client, connection) = gated.config().connect(NoTls).await.unwrap();
            let ended = tokio::spawn(connection);
            one(&client, sql).await;
            others.push((client, ended));
        }
        new.catch_up(&old);
        old.kill();
        for ((_client, ended), expected) in
            others.into_iter().zip(["the database's instance is gone", "temporary tables"])
        {
            let error = ended.await.unwrap().unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "57P01");
            assert!(error.message().contains(expected), "{}", error.message());
        }
        eventually(Duration::from_secs(5), "held", || gated.gate().held_since.is_some());
        let lost = Event::Lost {
            stack: "shop".parse().unwrap(),
            component: component("database.orders"),
            instance: "orders-1".parse().unwrap(),
        };
        assert_eq!(event(&mut watch, Duration::from_secs(5)).unwrap(), Some(lost));
        // What is asked meanwhile waits; the table names the standby before it is promoted.
        let asked = tokio::spawn(async move {
            let name = one(&idle, "SHOW work_mem").await;
            (idle, name)
        });
        gated.set(Some(&new), false);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!asked.is_finished());
        new.promote();
        let (idle, memory) = asked.await.unwrap();
        assert_eq!(memory, "9MB");
        assert_eq!(one(&idle, "SHOW application_name").await, "me");
        assert_eq!(one(&idle, "EXECUTE twice").await, "2");
        let row = idle.query_one(&statement, &[&4]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 5);
        assert_eq!(one(&idle, "SELECT count(*) FROM t").await, "0");
    });
}

#[test]
fn a_primary_that_comes_back_is_asked_again() {
    let Some(gated) = Gated::start("a_primary_that_comes_back") else { return };
    let old = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&old), false);
    block_on(async {
        let idle = gated.connect().await;
        one(&idle, "SELECT 1").await;
        let old = old.restart();
        assert_eq!(one(&idle, "SELECT 2").await, "2");
        // The daemon may have connections cut: idle sessions come again by themselves.
        let pid = one(&idle, "SELECT pg_backend_pid()").await;
        gated.world.gateway.sever(old.id.parse().unwrap()).unwrap();
        gated.set(Some(&old), false);
        assert_ne!(one(&idle, "SELECT pg_backend_pid()").await, pid);
    });
}
