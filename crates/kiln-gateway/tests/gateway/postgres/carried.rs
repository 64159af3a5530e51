//! What goes with a session to another instance, and what cannot.

use std::time::Duration;

use tokio_postgres::{AsyncMessage, NoTls};

use super::{Gated, Instance, block_on, failure, one};

#[test]
fn settings_statements_and_listeners_are_carried() {
    let Some(gated) = Gated::start("settings_statements_and_listeners") else { return };
    let old = Instance::primary(&gated.world, "orders-1");
    old.sql("postgres", "CREATE ROLE reader; GRANT reader TO app");
    gated.set(Some(&old), false);
    let new = old.standby(&gated.world, "orders-2");
    block_on(async {
        let (client, mut connection) = gated.config().connect(NoTls).await.unwrap();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|cx| connection.poll_message(cx)).await
            {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = told.send(notification.payload().to_owned());
                }
            }
        });
        let pid = one(&client, "SELECT pg_backend_pid()").await;
        for sql in [
            "SET work_mem = '7MB'",
            "SET search_path = \"$user\", public, pg_temp",
            "SELECT set_config('app.name', 'it''s \\ me', false)",
            "SET TIME ZONE 'Europe/Vienna'",
            "SET client_encoding = 'LATIN1'",
            "SET ROLE reader",
            "PREPARE twice(int) AS SELECT 2 * $1; -- ;",
            "LISTEN \"Some News\"",
        ] {
            one(&client, sql).await;
        }
        one(&client, "SET client_encoding = 'UTF8'").await;
        let statement = client.prepare("SELECT $1::int4 + 1").await.unwrap();
        gated.switch(&old, &new);
        assert_ne!(one(&client, "SELECT pg_backend_pid()").await, pid);
        for (sql, expected) in [
            ("SHOW work_mem", "7MB"),
            ("SHOW search_path", "\"$user\", public, pg_temp"),
            ("SHOW app.name", "it's \\ me"),
            ("SHOW timezone", "Europe/Vienna"),
            ("SELECT current_user::text", "reader"),
            ("EXECUTE twice(21)", "42"),
            ("SHOW transaction_read_only", "off"),
        ] {
            assert_eq!(one(&client, sql).await, expected, "{sql}");
        }
        let row = client.query_one(&statement, &[&4]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 5);
        new.sql("app", "NOTIFY \"Some News\", 'hello'");
        let news = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await;
        assert_eq!(news.unwrap().unwrap(), "hello");
        one(&client, "RESET ROLE").await;
        assert_eq!(one(&client, "SELECT current_user::text").await, "app");
    });
}

#[test]
fn what_cannot_be_carried_ends_with_its_reason() {
    let Some(gated) = Gated::start("what_cannot_be_carried") else { return };
    let old = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&old), false);
    let cases = [
        ("CREATE TEMP TABLE mine (a int)", "the temporary table mine"),
        ("SELECT pg_advisory_lock(7)", "the advisory lock 7"),
        ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "the cursor WITH HOLD c"),
    ];
    block_on(async {
        for (sql, reason) in cases {
            let (client, connection) = gated.config().connect(NoTls).await.unwrap();
            let ended = tokio::spawn(connection);
            one(&client, sql).await;
            // A hold alone takes nothing away.
            gated.set(Some(&old), true);
            gated.settle();
            gated.set(Some(&old), false);
            one(&client, "SELECT 1").await;
            gated.set(Some(&old), true);
            gated.settle();
            gated.set(None, false);
            let error = ended.await.unwrap().unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "57P01", "{sql}");
            assert!(error.message().contains(reason), "{sql}: {}", error.message());
            gated.set(Some(&old), false);
        }
        // What has ended is no reason.
        let client = gated.connect().await;
        for (sql, _) in cases {
            one(&client, sql).await;
        }
        one(&client, "DISCARD ALL").await;
        gated.set(None, false);
        gated.set(Some(&old), false);
        assert_eq!(one(&client, "SELECT 1").await, "1");
        assert_eq!(failure(&client, "SELECT * FROM mine").await.0, "42P01");
    });
}
