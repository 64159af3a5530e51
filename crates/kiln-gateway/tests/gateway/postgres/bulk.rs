//! Much data, both ways.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use super::{Gated, Instance, block_on, one, run};
use crate::world::eventually;

#[test]
fn large_results_and_copies_pass_whole() {
    let Some(gated) = Gated::start("large_results_and_copies") else { return };
    let primary = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&primary), false);
    gated.psql("CREATE TABLE t (a int, b text)").unwrap();
    // A hundred megabytes in small rows and in one large.
    let rows = "SELECT count(*) FROM (SELECT repeat('x', 90) FROM generate_series(1, 1000000)) s";
    assert_eq!(gated.psql(rows).unwrap(), "1000000");
    let all = gated.psql("SELECT repeat('x', 99) FROM generate_series(1, 1000000)").unwrap();
    assert_eq!(all.len(), 99_999_999);
    assert_eq!(gated.psql("SELECT repeat('y', 50000000)").unwrap().len(), 50_000_000);
    // In by COPY, and out again.
    let mut copy = gated.client("psql");
    let mut copy = copy
        .args(["-Xqc", "COPY t FROM STDIN"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = copy.stdin.take().unwrap();
    let line = "z".repeat(100);
    for number in 0..300_000 {
        writeln!(input, "{number}\t{line}").unwrap();
    }
    drop(input);
    assert!(copy.wait_with_output().unwrap().status.success());
    assert_eq!(gated.psql("SELECT count(*), sum(a) FROM t").unwrap(), "300000|44999850000");
    let out = run(gated.client("psql").args(["-Xqc", "COPY t TO STDOUT"])).unwrap();
    assert_eq!(out.lines().count(), 300_000);
    // A text that is longer than what is waited for.
    block_on(async {
        let client = gated.connect().await;
        let long = format!("SELECT length('{}')", "w".repeat(3_000_000));
        assert_eq!(one(&client, &long).await, "3000000");
        let row = client.query_one("SELECT length($1::text)", &[&"v".repeat(3_000_000)]).await;
        assert_eq!(row.unwrap().get::<_, i32>(0), 3_000_000);
        assert_eq!(one(&client, "SELECT 1").await, "1");
    });
    eventually(Duration::from_secs(5), "nothing is under way", || gated.gate().busy == 0);
    assert!(gated.world.memory() < 64 << 20, "{}", gated.world.memory());
}

#[test]
fn a_copy_delays_a_hold_until_it_ends() {
    let Some(gated) = Gated::start("a_copy_delays_a_hold") else { return };
    let primary = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&primary), false);
    gated.psql("CREATE TABLE t (a int)").unwrap();
    let mut copy = gated.client("psql");
    let mut copy = copy.args(["-Xqc", "COPY t FROM STDIN"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = copy.stdin.take().unwrap();
    eventually(Duration::from_secs(5), "it has begun", || gated.gate().busy == 1);
    gated.set(Some(&primary), true);
    for number in 0..10_000 {
        writeln!(input, "{number}").unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(gated.gate().settled_since, None);
    drop(input);
    assert!(copy.wait().unwrap().success());
    gated.settle();
    gated.set(Some(&primary), false);
    assert_eq!(gated.psql("SELECT count(*) FROM t").unwrap(), "10000");
}
