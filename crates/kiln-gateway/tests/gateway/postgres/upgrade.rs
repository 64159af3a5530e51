//! The gateway is replaced while clients are connected.

use std::time::Duration;

use tokio_postgres::NoTls;

use super::{Gated, Instance, block_on, failure, one};
use crate::world::eventually;

#[test]
fn sessions_of_the_process_before_are_held_and_carried_as_well() {
    let Some(mut gated) = Gated::start("sessions_of_the_process_before") else { return };
    let old = Instance::primary(&gated.world, "orders-1");
    gated.set(Some(&old), false);
    let new = old.standby(&gated.world, "orders-2");
    block_on(async {
        let before = gated.connect().await;
        one(&before, "CREATE TABLE t (a int)").await;
        one(&before, "SET work_mem = '5MB'").await;
        one(&before, "BEGIN").await;
        let build = gated.world.root.path().join("another");
        std::fs::copy(crate::world::exe(), &build).unwrap();
        kiln_gateway::ensure_running(gated.world.root.path(), &build).unwrap();
        let pid = gated.world.gateway.status().unwrap().pid;
        assert_ne!(pid, gated.world.pid);
        let predecessor = std::mem::replace(&mut gated.world.pid, pid);
        // Passwords were handed over.
        let after = gated.connect().await;
        assert_eq!(one(&after, "SELECT 1").await, "1");
        let counts = || (gated.gate().sessions, gated.gate().busy);
        eventually(Duration::from_secs(5), "both are counted", || counts() == (2, 1));
        gated.set(Some(&old), true);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(gated.gate().settled_since, None, "the one before is busy");
        one(&before, "INSERT INTO t VALUES (1)").await;
        one(&before, "COMMIT").await;
        gated.settle();
        gated.set(None, false);
        let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        eventually(Duration::from_secs(5), "none is left", || old.sql("app", left) == "0");
        new.catch_up(&old);
        new.promote();
        gated.set(Some(&new), false);
        assert_eq!(one(&before, "SHOW work_mem").await, "5MB");
        assert_eq!(one(&before, "SELECT count(*) FROM t").await, "1");
        assert_eq!(one(&after, "SELECT count(*) FROM t").await, "1");
        // A request to cancel comes to the new process and is for the old one.
        let cancel = before.cancel_token();
        let asked = async { failure(&before, "SELECT pg_sleep(30)").await.0 };
        let cancelled = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel_query(NoTls).await.unwrap();
        };
        let (code, ()) = tokio::join!(asked, cancelled);
        assert_eq!(code, "57014");
        drop(before);
        // Its connection is closed by a task.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let process = format!("/proc/{predecessor}/exe");
        eventually(Duration::from_secs(10), "the one before ends", || {
            std::fs::read_link(&process).is_err()
        });
    });
}
