//! What cannot be made says why, and leaves nothing.

use std::fs;

use kiln_model::data::DataOrigin;
use kiln_model::name::InstanceId;
use kiln_model::observed::{ObservedInstance, Verdict};
use kiln_model::spec::postgres;

use crate::image::VERSION;
use crate::site::Site;

/// Why an instance is of no use.
async fn reason(site: &Site, id: &InstanceId) -> String {
    let dead = |seen: &ObservedInstance| matches!(seen.health, Verdict::Dead { .. });
    let seen = site.until("its end", id, dead).await;
    assert_eq!(seen.pid, None);
    seen.health.complaint().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_is_quoted_and_leaves_nothing() {
    let name = "a_program_that_fails_is_quoted_and_leaves_nothing";
    let lacks = format!("/usr/share/postgresql/{VERSION}/postgres.bki");
    let Some(site) = Site::with_image(name, &[&lacks]).await else { return };
    let id = site.create(DataOrigin::Empty).await.unwrap();
    let reason = reason(&site, &id).await;
    assert!(reason.starts_with("initdb exited with status 1: "), "{reason}");
    assert!(reason.contains("postgres.bki"), "{reason}");
    let words = kiln_engine::Target::last_words(&site.local, &id, 20).await.join("\n");
    assert!(words.contains("postgres.bki"), "{words}");
    site.destroy(&id).await;
    assert!(site.volume_names().await.is_empty());
    assert!(!site.volumes().exists(), "a directory is left");
    let left = fs::read_dir(site.root().join("run/instances")).unwrap().count();
    assert_eq!(left, 0, "an instance is left");
    assert_eq!(fs::read_dir(site.root().join("run/making")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_the_places_says_what_it_lacks() {
    let name = "an_image_without_the_places_says_what_it_lacks";
    let Some(site) = Site::with_image(name, &[postgres::DATA]).await else { return };
    let id = site.create(DataOrigin::Empty).await.unwrap();
    let reason = reason(&site, &id).await;
    let wanted = format!("a directory to mount on at {}", postgres::DATA);
    assert!(reason.contains(&wanted), "{reason}");
    site.destroy(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_the_primary_serves_on() {
    let name = "a_full_disk_is_named_and_the_primary_serves_on";
    let Some(site) = Site::new(name).await else { return };
    let first = site.first().await;
    site.run(&first, "CREATE TABLE t AS SELECT g AS n FROM generate_series(1, 1000) g")
        .await
        .unwrap();
    // The next volume is on a disk that is too small for it.
    let next = site.next();
    let at = site.volumes().join(next.as_str());
    let disk = crate::site::SmallDisk::at(&at, "12m");
    let id = site.create(DataOrigin::Standby { of: first.clone() }).await.unwrap();
    assert_eq!(id, next);
    let reason = reason(&site, &id).await;
    assert!(reason.contains("pg_basebackup exited with status 1"), "{reason}");
    assert!(reason.contains("No space left on device"), "{reason}");
    drop(disk);
    site.destroy(&id).await;
    assert_eq!(site.volume_names().await, [first.as_str()]);
    assert_eq!(site.run(&first, "SELECT count(*) FROM t").await.unwrap(), ["1000"]);
    site.standby(&first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_making_can_be_called_off_and_one_that_was_cut_off_is_seen() {
    let name = "a_making_can_be_called_off_and_one_that_was_cut_off_is_seen";
    let Some(mut site) = Site::new(name).await else { return };
    let id = site.create(DataOrigin::Empty).await.unwrap();
    let seen = site.see(&id).await.unwrap();
    assert!(seen.is_running() && !seen.is_ready());
    site.destroy(&id).await;
    assert!(site.volume_names().await.is_empty());
    // Another daemon takes over while something is being made.
    let id = site.create(DataOrigin::Empty).await.unwrap();
    site.copy_record_of_making(&id);
    site.destroy(&id).await;
    site.put_record_back(&id);
    site.reopen();
    let reason = reason(&site, &id).await;
    assert!(reason.contains("the daemon ended"), "{reason}");
    site.destroy(&id).await;
    assert!(site.see(&id).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_is_not_in_the_image_keeps_a_standby_from_being_ready() {
    let name = "an_extension_that_is_not_in_the_image_keeps_a_standby_from_being_ready";
    let Some(mut site) = Site::new(name).await else { return };
    let first = site.first().await;
    site.identity.extensions.insert("telepathy".to_owned());
    let second = site.create(DataOrigin::Standby { of: first.clone() }).await.unwrap();
    let says = |seen: &ObservedInstance| {
        seen.health.complaint().is_some_and(|said| said.contains("telepathy"))
    };
    let seen = site.until("a complaint", &second, says).await;
    assert!(!seen.is_ready(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_major_version_cannot_serve_a_volume() {
    let Some(mut site) = Site::new("another_major_version_cannot_serve_a_volume").await else {
        return;
    };
    let first = site.first().await;
    site.destroy(&first).await;
    site.identity.version = 17;
    let refused = site.create(DataOrigin::Volume { volume: first }).await.unwrap_err();
    assert!(refused.permanent && refused.cause.contains("written by version 15"), "{refused}");
}
