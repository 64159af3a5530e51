//! Writes go over to another instance as the daemon has them go over.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use kiln_gateway::control::Event;

use super::{Gated, Instance, block_on, failure, one, run};
use crate::world::{component, event, eventually};

/// `pgbench` throughout a switch; its transactions are all there afterwards.
fn bench(name: &str, mode: &str) {
    let Some(gated) = Gated::start(name) else { return };
    let old = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&old), false);
    run(gated.client("pgbench").args(["-i", "-q", "-s", "1"])).unwrap();
    let new = old.standby(&gated.world, "orders-2");
    new.catch_up(&old);
    let mut bench = gated.client("pgbench");
    bench.args(["-n", "-M", mode, "-c", "8", "-j", "2", "-T", "5"]);
    let mut bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let held = gated.switch(&old, &new);
    let (mut out, mut errors) = (String::new(), String::new());
    bench.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    bench.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let status = bench.wait().unwrap();
    assert!(status.success() && !errors.contains("error"), "{out}\n{errors}");
    let done = out.lines().find(|line| line.contains("actually processed")).unwrap();
    let done = done.rsplit(' ').next().unwrap().split('/').next().unwrap();
    assert_eq!(new.sql("app", "SELECT count(*) FROM pgbench_history"), done, "{out}");
    let after = old.sql("app", "SELECT count(*) FROM pgbench_history").parse::<u64>().unwrap();
    assert!(after < done.parse().unwrap(), "the new one was asked");
    println!("{name}: held for {held:?}, {done} transactions");
}

#[test]
fn pgbench_with_prepared_statements_sees_no_error() {
    bench("pgbench_prepared", "prepared");
}

#[test]
fn pgbench_with_the_extended_protocol_sees_no_error() {
    bench("pgbench_extended", "extended");
}

#[test]
fn pgbench_with_simple_questions_sees_no_error() {
    bench("pgbench_simple", "simple");
}

#[test]
fn a_transaction_ends_before_the_gate_is_settled() {
    let Some(gated) = Gated::start("a_transaction_ends_before") else { return };
    let old = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&old), false);
    let mut watch = gated.world.gateway.watch().unwrap();
    block_on(async {
        let (busy, idle) = (gated.connect().await, gated.connect().await);
        one(&busy, "CREATE TABLE t (a int)").await;
        one(&busy, "BEGIN; INSERT INTO t VALUES (1)").await;
        gated.set(Some(&old), true);
        eventually(Duration::from_secs(5), "one is busy", || gated.gate().busy == 1);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(gated.gate().settled_since, None);
        // What belongs to the transaction goes on; what is new waits.
        one(&busy, "INSERT INTO t VALUES (2)").await;
        let waits = tokio::time::timeout(Duration::from_millis(200), one(&idle, "SELECT 1"));
        assert!(waits.await.is_err());
        one(&busy, "COMMIT").await;
        gated.settle();
        let (stack, component) = ("shop".parse().unwrap(), component("database.orders"));
        let settled = Event::Settled { stack, component };
        assert_eq!(event(&mut watch, Duration::from_secs(5)).unwrap(), Some(settled));
        // A client that comes now is let in and held.
        let config = gated.config();
        let late = tokio::spawn(async move { config.connect(tokio_postgres::NoTls).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!late.is_finished());
        assert!(gated.gate().settled_since.is_some());
        // The same instance again.
        gated.set(Some(&old), false);
        assert_eq!(one(&busy, "SELECT count(*) FROM t").await, "2");
        assert!(late.await.unwrap().is_ok());
        eventually(Duration::from_secs(5), "released", || gated.gate().released_at.is_some());
        assert_eq!(gated.gate().held_since, None);
    });
}

#[test]
fn what_is_busy_at_a_fence_ends_with_an_error() {
    let Some(gated) = Gated::start("what_is_busy_at_a_fence") else { return };
    let old = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&old), false);
    block_on(async {
        let (busy, idle) = (gated.connect().await, gated.connect().await);
        one(&busy, "BEGIN").await;
        assert_eq!(one(&idle, "SELECT 1").await, "1");
        let began = std::time::Instant::now();
        gated.set(None, false);
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        eventually(Duration::from_secs(5), "none is left", || old.sql("app", left) == "0");
        assert!(gated.gate().settled_since.is_some());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(busy.is_closed());
        gated.set(Some(&old), false);
        assert_eq!(one(&idle, "SELECT 2").await, "2");
        let (code, message) = failure(&idle, "SELECT 1/0").await;
        assert_eq!((&*code, &*message), ("22012", "division by zero"));
    });
}
