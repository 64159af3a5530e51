//! What somebody changes by hand.

use std::time::{Duration, Instant};

use kiln_model::drift::Aspect;
use kiln_model::name::InstanceId;
use kiln_model::spec::postgres::SUPERUSER;

use crate::site::Site;

async fn drifts(site: &Site, id: &InstanceId) -> Vec<(Aspect, String)> {
    let seen = site.until("drift", id, |seen| !seen.drift.is_empty()).await;
    seen.drift.into_iter().map(|drift| (drift.what, drift.found)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_by_hand_are_found_and_gone_in_the_next() {
    let Some(site) = Site::new("settings_by_hand_are_found_and_gone_in_the_next").await else {
        return;
    };
    let first = site.first().await;
    site.run_as(&first, SUPERUSER, "postgres", "ALTER SYSTEM SET work_mem = '77MB'").await.unwrap();
    let found = drifts(&site, &first).await;
    assert_eq!(found, [(Aspect::Settings, "work_mem = '77MB'".to_owned())]);
    let second = site.standby(&first).await;
    site.route(Some(&second), false).await.unwrap();
    assert_eq!(site.run(&second, "SHOW work_mem").await.unwrap(), ["5MB"]);
    assert_eq!(site.ready(&second).await.drift, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn superusers_are_found_and_none_in_the_next() {
    let Some(site) = Site::new("superusers_are_found_and_none_in_the_next").await else { return };
    let first = site.first().await;
    site.run_as(&first, SUPERUSER, "postgres", "CREATE ROLE mallory SUPERUSER").await.unwrap();
    let found = drifts(&site, &first).await;
    assert_eq!(found, [(Aspect::Superusers, "mallory".to_owned())]);
    let second = site.standby(&first).await;
    site.route(Some(&second), false).await.unwrap();
    let query = "SELECT rolname FROM pg_roles WHERE rolsuper";
    assert_eq!(site.run(&second, query).await.unwrap(), [SUPERUSER]);
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(site.ready(&second).await.drift, []);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_database_does_not_drift() {
    let Some(site) = Site::new("a_working_database_does_not_drift").await else { return };
    let first = site.first().await;
    let second = site.standby(&first).await;
    site.run(&first, "CREATE TABLE t AS SELECT g AS n FROM generate_series(1, 100000) g")
        .await
        .unwrap();
    // With processes of its own, and files for what does not fit.
    let parallel = "SET work_mem = '64kB'; SET parallel_setup_cost = 0;
        SET min_parallel_table_scan_size = 0;
        SELECT count(*) FROM (SELECT n FROM t ORDER BY -n) x";
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        assert!(site.run(&first, parallel).await.unwrap().contains(&"100000".to_owned()));
        for id in [&first, &second] {
            assert_eq!(site.ready(id).await.drift, []);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
