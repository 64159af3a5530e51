//! How writes go over from one instance to another.

use std::time::Duration;

use kiln_model::data::Role;

use crate::site::{Site, said};

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_over_and_nothing_is_lost() {
    let Some(site) = Site::new("writes_go_over_and_nothing_is_lost").await else { return };
    let first = site.first().await;
    let data = site.ready(&first).await.data.unwrap();
    assert_eq!(data.volume, first);
    let says = data.said.unwrap();
    assert_eq!((says.role, says.follows), (Role::Primary, None));
    assert_eq!(site.head().await.as_ref(), Some(&first));
    site.run(&first, "CREATE TABLE ledger (n int PRIMARY KEY); INSERT INTO ledger VALUES (1)")
        .await
        .unwrap();

    let second = site.standby(&first).await;
    let follows = |seen: &_| said(seen).is_some_and(|said| said.follows.is_some());
    let data = site.until("it to follow", &second, follows).await.data.unwrap().said.unwrap();
    assert_eq!((data.role, data.follows.as_ref()), (Role::Standby, Some(&first)));
    assert!(!data.synchronous);
    site.run(&first, "INSERT INTO ledger VALUES (2)").await.unwrap();
    assert!(site.run(&second, "INSERT INTO ledger VALUES (3)").await.is_err());

    site.route(Some(&first), true).await.unwrap();
    let before = site.said(&first).await.position;
    site.until("it to catch up", &second, |seen| {
        said(seen).is_some_and(|said| said.position >= before)
    })
    .await;
    site.route(Some(&second), false).await.unwrap();
    assert_eq!(site.head().await.as_ref(), Some(&second));
    assert_eq!(site.said(&second).await.role, Role::Primary);
    site.run(&second, "INSERT INTO ledger VALUES (3)").await.unwrap();
    let rows = site.run(&second, "SELECT n FROM ledger ORDER BY n").await.unwrap();
    assert_eq!(rows, ["1", "2", "3"]);

    site.destroy(&first).await;
    // What it had is kept until there is another that took writes before.
    assert_eq!(site.volume_names().await, [first.as_str(), second.as_str()]);
    let third = site.standby(&second).await;
    site.route(Some(&third), false).await.unwrap();
    site.destroy(&second).await;
    assert_eq!(site.volume_names().await, [second.as_str(), third.as_str()]);
    let rows = site.run(&third, "SELECT n FROM ledger ORDER BY n").await.unwrap();
    assert_eq!(rows, ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_ended_before_another_takes_over() {
    let Some(site) = Site::new("one_that_hangs_is_ended_before_another_takes_over").await else {
        return;
    };
    let first = site.first().await;
    let second = site.standby(&first).await;
    let frozen = stop_all(&site, &first);
    assert!(frozen > 0);
    site.until("it to be given up", &first, |seen| {
        matches!(seen.health, kiln_model::observed::Verdict::Dead { .. })
    })
    .await;
    site.route(Some(&second), false).await.unwrap();
    let seen = site.see(&first).await.unwrap();
    assert!(!seen.is_running(), "{seen:?}");
    site.run(&second, "CREATE TABLE after (n int)").await.unwrap();
}

/// The process of a standby that receives.
fn receiver(site: &Site, id: &kiln_model::name::InstanceId) -> rustix::process::Pid {
    let processes = site.cgroups().group(id.as_str()).processes();
    let receiver = processes.into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("walreceiver")
    });
    rustix::process::Pid::from_raw(receiver.unwrap()).unwrap()
}

/// Stops every process of an instance.
fn stop_all(site: &Site, id: &kiln_model::name::InstanceId) -> usize {
    let processes = site.cgroups().group(id.as_str()).processes();
    for pid in &processes {
        let pid = rustix::process::Pid::from_raw(*pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }
    processes.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_not_all_does_not_take_over() {
    let Some(site) = Site::new("one_that_has_not_all_does_not_take_over").await else { return };
    let first = site.first().await;
    let second = site.standby(&first).await;
    // It receives nothing from now on.
    let receiver = receiver(&site, &second);
    rustix::process::kill_process(receiver, rustix::process::Signal::STOP).unwrap();
    site.run(&first, "CREATE TABLE late (n int)").await.unwrap();
    let error = site.route(Some(&second), false).await.unwrap_err();
    assert!(error.to_string().contains("it lacks"), "{error}");
    assert_eq!(site.head().await.as_ref(), Some(&first), "nothing has changed");
    assert_eq!(site.said(&second).await.role, Role::Standby);
    site.run(&first, "INSERT INTO late VALUES (1)").await.unwrap();
    rustix::process::kill_process(receiver, rustix::process::Signal::CONT).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    site.route(Some(&second), false).await.unwrap();
    assert_eq!(site.run(&second, "SELECT n FROM late").await.unwrap(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_standby_has_each_write() {
    let Some(mut site) = Site::new("a_synchronous_standby_has_each_write").await else { return };
    site.identity.synchronous = true;
    let first = site.first().await;
    let second = site.standby(&first).await;
    site.until("it to be synchronous", &second, |seen| {
        said(seen).is_some_and(|said| said.synchronous)
    })
    .await;
    site.run(&first, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)").await.unwrap();
    site.kill(&first).await;
    let alone = |seen: &_| said(seen).is_some_and(|said| said.follows.is_none());
    let seen = site.until("it to be alone", &second, alone).await;
    assert!(said(&seen).unwrap().synchronous, "it has all that was acknowledged");
    site.destroy(&first).await;
    assert!(site.said(&second).await.synchronous);
    site.route(Some(&second), false).await.unwrap();
    assert_eq!(site.run(&second, "SELECT n FROM t").await.unwrap(), ["7"]);
}
