//! Crashes, and what is there after them.

use kiln_model::data::{DataOrigin, Role};
use kiln_model::observed::ObservedInstance;

use crate::site::{Site, said};

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_served_again_with_every_row_after_a_crash() {
    let name = "a_volume_is_served_again_with_every_row_after_a_crash";
    let Some(mut site) = Site::new(name).await else { return };
    let first = site.first().await;
    site.run(&first, "CREATE TABLE ledger (n int PRIMARY KEY)").await.unwrap();
    for n in 0..50 {
        site.run(&first, &format!("INSERT INTO ledger VALUES ({n})")).await.unwrap();
    }
    let held = DataOrigin::Volume { volume: first.clone() };
    let refused = site.create(held.clone()).await.unwrap_err();
    assert!(refused.cause.contains("is held by"), "{refused}");
    site.kill(&first).await;
    site.destroy(&first).await;
    assert_eq!(site.head().await.as_ref(), Some(&first), "data outlives instances");

    let second = site.create(held).await.unwrap();
    let data = site.ready(&second).await.data.unwrap();
    assert_eq!((data.said.unwrap().role, &data.volume), (Role::Primary, &first));
    site.route(Some(&second), false).await.unwrap();
    let count = "SELECT count(*) FROM ledger";
    assert_eq!(site.run(&second, count).await.unwrap(), ["50"]);

    // Another daemon finds it as it is.
    site.reopen();
    let seen = site.ready(&second).await;
    assert_eq!(seen.drift, []);
    assert_eq!(seen.data.unwrap().volume, first);
    assert_eq!(site.head().await.as_ref(), Some(&first));
    assert_eq!(site.run(&second, count).await.unwrap(), ["50"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_primary_is_gone_stays_ready_for_another_daemon() {
    let name = "a_standby_whose_primary_is_gone_stays_ready_for_another_daemon";
    let Some(mut site) = Site::new(name).await else { return };
    let first = site.first().await;
    let second = site.standby(&first).await;
    let third = site.standby(&first).await;
    site.kill(&first).await;
    site.reopen();
    assert!(site.data(&second).await.follows.is_none());
    site.route(Some(&second), false).await.unwrap();
    // The other one follows whoever takes the writes.
    let follows = |seen: &ObservedInstance| {
        said(seen).is_some_and(|data| data.follows.as_ref() == Some(&second))
    };
    site.until("it to follow the next one", &third, follows).await;
    site.run(&second, "CREATE TABLE t (n int); INSERT INTO t VALUES (5)").await.unwrap();
    let written = site.data(&second).await.position;
    site.until("it to have the row", &third, |seen| {
        said(seen).is_some_and(|data| data.position >= written)
    })
    .await;
    site.until_row(&third, "SELECT n FROM t", "5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_is_there() {
    let Some(mut site) = Site::new("what_is_declared_is_there").await else { return };
    site.identity.extensions.insert("plpgsql".to_owned());
    let first = site.first().await;
    let setting = site.run(&first, "SHOW work_mem").await.unwrap();
    assert_eq!(setting, ["5MB"]);
    let collation = "SELECT datcollate || ' ' || datctype || ' ' || pg_encoding_to_char(encoding)
        FROM pg_database WHERE datname = current_database()";
    assert_eq!(site.run(&first, collation).await.unwrap(), ["C C.UTF-8 UTF8"]);
    let rights = "SELECT rolsuper OR rolreplication OR rolcreaterole FROM pg_roles
        WHERE rolname = current_user";
    assert_eq!(site.run(&first, rights).await.unwrap(), ["f"]);
    assert_eq!(site.run(&first, "SHOW data_checksums").await.unwrap(), ["on"]);
    // Fewer connections than the one that it follows has: a standby cannot, and has as many.
    site.identity.settings.insert("max_connections".to_owned(), "40".to_owned());
    let second = site.standby(&first).await;
    assert_eq!(site.run(&second, "SHOW max_connections").await.unwrap(), ["100"]);
    site.route(Some(&second), false).await.unwrap();
    site.run(&second, "CREATE TABLE t (n int)").await.unwrap();
}
