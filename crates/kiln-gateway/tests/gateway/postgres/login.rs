//! Who gets a session, and who gets which error.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tokio_postgres::NoTls;

use super::{Gated, Instance, block_on, one, run};
use crate::world::eventually;

#[test]
fn psql_logs_in_with_the_password_and_nobody_else_does() {
    let Some(gated) = Gated::start("psql_logs_in") else { return };
    let primary = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&primary), false);
    assert_eq!(gated.psql("SELECT current_user || ' ' || current_database()").unwrap(), "app app");
    let with = |key: &str, value: &str| {
        let mut psql = gated.client("psql");
        run(psql.env(key, value).args(["-XAtq", "-c", "SELECT 1"])).unwrap_err()
    };
    let wrong = with("PGPASSWORD", "wrong");
    assert!(wrong.contains("password authentication failed for user \"app\""), "{wrong}");
    let unknown = with("PGUSER", "postgres");
    assert!(unknown.contains("password authentication failed for user \"postgres\""), "{unknown}");
    let database = with("PGDATABASE", "postgres");
    assert!(database.contains("database \"postgres\" does not exist"), "{database}");
    // A second version of the password is accepted beside the first, which need not be told again.
    let set = |passwords: &[&str]| {
        gated.set_with(Some(&primary), false, |_, route| {
            let first = route.passwords[0].clone();
            let version = |v: &&str| {
                let mut one = first.clone();
                one.version = Some((*v).to_owned());
                one
            };
            route.passwords = passwords.iter().map(version).collect();
        });
    };
    set(&["v1"]);
    assert_eq!(gated.psql("SELECT 1").unwrap(), "1");
    let log = std::fs::read_to_string(gated.world.root.path().join("logs/gateway.log"));
    assert!(!log.unwrap_or_default().contains(super::PASSWORD));
}

#[test]
fn errors_have_the_codes_that_drivers_know() {
    let Some(gated) = Gated::start("errors_have_the_codes") else { return };
    let primary = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&primary), false);
    block_on(async {
        let code = async |config: tokio_postgres::Config| {
            let error = config.connect(NoTls).await.err().unwrap();
            error.code().unwrap().code().to_owned()
        };
        let mut config = gated.config();
        assert_eq!(code(config.password("x").clone()).await, "28P01");
        let mut config = gated.config();
        assert_eq!(code(config.user("x").clone()).await, "28P01");
        let mut config = gated.config();
        assert_eq!(code(config.dbname("x").clone()).await, "3D000");
    });
}

#[test]
fn what_is_asked_can_be_cancelled() {
    let Some(gated) = Gated::start("what_is_asked_can_be_cancelled") else { return };
    let primary = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&primary), false);
    block_on(async {
        let client = gated.connect().await;
        let cancel = client.cancel_token();
        let asked = async { super::failure(&client, "SELECT pg_sleep(30)").await.0 };
        let cancelled = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel.cancel_query(NoTls).await.unwrap();
        };
        let (code, ()) = tokio::join!(asked, cancelled);
        assert_eq!(code, "57014");
        assert_eq!(one(&client, "SELECT 1").await, "1");
    });
}

#[test]
fn slow_and_malformed_clients_harm_nobody() {
    let Some(gated) = Gated::start("slow_and_malformed_clients") else { return };
    let primary = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&primary), false);
    let say = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(gated.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 7, 0, 0, 0, 0], &[0xff; 64]] {
        assert!(say(bytes).contains("08P01"), "{bytes:?}");
    }
    assert!(say(&[0, 0, 0, 9, 0, 2, 0, 0, 0]).contains("0A000"));
    assert!(say(&[0, 0, 0, 9, 0, 3, 0, 0, 0]).contains("28000"));
    // No password, but a question.
    let mut bytes = b"\0\0\0\x12\0\x03\0\0user\0app\0\0".to_vec();
    bytes[3] = u8::try_from(bytes.len()).unwrap();
    bytes.extend(b"Q\0\0\0\x0dSELECT 1\0");
    assert!(say(&bytes).contains("08P01"));
    // One that says nothing is let go, and keeps nobody from asking meanwhile.
    let began = std::time::Instant::now();
    let mut slow = TcpStream::connect(gated.address).unwrap();
    slow.write_all(&[0, 0]).unwrap();
    assert_eq!(gated.psql("SELECT 1").unwrap(), "1");
    slow.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(slow.read(&mut [0]).unwrap(), 0);
    assert!(began.elapsed() > Duration::from_secs(10));
    eventually(Duration::from_secs(5), "no session is left", || gated.gate().sessions == 0);
}

#[test]
fn by_tls_where_the_endpoint_has_it_and_not_without() {
    let Some(gated) = Gated::start("by_tls_where_the_endpoint_has_it") else { return };
    let primary = Instance::primary(&gated.world, "orders-1");
    let files = crate::tls::certificate(gated.world.root.path(), "db", &["localhost"]);
    let Some(files) = files else { return };
    gated.set_with(Some(&primary), false, |endpoint, _| {
        endpoint.handling.tls = vec![files.pair()];
    });
    let with = |mode: &str| {
        let mut psql = gated.client("psql");
        let sql = "SELECT 42";
        run(psql.env("PGSSLMODE", mode).args(["-XAtq", "-c", sql]))
    };
    assert_eq!(with("require").unwrap(), "42");
    let refused = with("disable").unwrap_err();
    assert!(refused.contains("by TLS only: use sslmode=require"), "{refused}");
    gated.set(Some(&primary), false);
    assert_eq!(with("prefer").unwrap(), "42");
    let refused = with("require").unwrap_err();
    assert!(refused.contains("server does not support SSL"), "{refused}");
}
