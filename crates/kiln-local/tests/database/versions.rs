//! The images that Kiln builds for databases: `KILN_POSTGRES_IMAGES=13=FILE,15=FILE` names their
//! filesystems, where they were built.

use std::path::Path;

use kiln_model::data::DataOrigin;

use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn every_image_serves_follows_and_recovers() {
    let named = std::env::var("KILN_POSTGRES_IMAGES").unwrap_or_default();
    if named.is_empty() {
        println!("skipped: every_image_serves_follows_and_recovers: no KILN_POSTGRES_IMAGES");
        return;
    }
    for image in named.split(',') {
        let (version, file) = image.split_once('=').unwrap();
        let site = Site::of(version.parse().unwrap(), Path::new(file)).await;
        let first = site.first().await;
        site.run(&first, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").await.unwrap();
        let found = site.run(&first, "SELECT current_setting('server_version')").await.unwrap();
        assert!(found[0].starts_with(version), "{found:?}");
        let second = site.standby(&first).await;
        site.route(Some(&second), false).await.unwrap();
        site.kill(&second).await;
        site.destroy(&second).await;
        let third = site.create(DataOrigin::Volume { volume: second }).await.unwrap();
        site.ready(&third).await;
        site.route(Some(&third), false).await.unwrap();
        assert_eq!(site.run(&third, "SELECT count(*) FROM t").await.unwrap(), ["1000"]);
        println!("{version} is well");
    }
}
