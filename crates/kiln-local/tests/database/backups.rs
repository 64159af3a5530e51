//! Backups of a real PostgreSQL: its log is archived, copies are made and proved, a moment is restored,
//! and what is damaged is found and named.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_engine::backup::{Answer, Ask, Backups, Verification};
use kiln_model::data::DataOrigin;
use kiln_model::name::InstanceId;
use kiln_model::quantity::{Millis, Timestamp};
use kiln_model::spec::backup::{Backup, Destination};

use crate::site::Site;

/// What is done to a file that is stored; the second one is another of its sort.
type Harm = fn(&Path, &Path);

fn to(directory: &Path) -> Backup {
    Backup {
        every: Millis::seconds(3600),
        keep: Millis::seconds(24 * 3600),
        to: Destination::Directory(directory.to_str().unwrap().to_owned()),
        encrypt: None,
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

fn proved(backups: &Backups) -> bool {
    backups.backups.last().is_some_and(|backup| backup.state == "proved")
}

async fn rows(site: &Site, id: &InstanceId) -> String {
    site.run(id, "SELECT count(*) || ':' || coalesce(sum(n), 0) FROM t").await.unwrap().remove(0)
}

/// A site whose database is archived, has a table, and is backed up to a directory.
async fn begun(test: &str, encrypt: bool) -> Option<(Site, InstanceId, tempfile::TempDir)> {
    let mut site = Site::new(test).await?;
    site.identity.archived = true;
    let first = site.first().await;
    site.run(&first, "CREATE TABLE t (n int)").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let encrypt = encrypt.then(|| "secret.age".parse().unwrap());
    site.back_up(Backup { encrypt, ..to(directory.path()) });
    Some((site, first, directory))
}

async fn insert(site: &Site, id: &InstanceId, n: u32) {
    site.run(id, &format!("INSERT INTO t VALUES ({n})")).await.unwrap();
}

async fn restore(site: &Site, at: &str) -> Result<PathBuf, String> {
    let into = site.root().join(format!("restored-{}", now().0));
    let ask = Ask::Restore { at: at.to_owned(), into: into.clone() };
    match site.ask(ask).await {
        Ok(Answer::Restored(restored)) => {
            assert!(restored.proved.iter().any(|what| what == "recovery"), "{restored:?}");
            Ok(into)
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

async fn verify(site: &Site) -> Verification {
    match site.ask(Ask::Verify { backup: None }).await.unwrap() {
        Answer::Verified(verification) => verification,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_is_restored_to_the_row_from_sealed_backups() {
    let name = "a_moment_is_restored_to_the_row_from_sealed_backups";
    let Some((site, first, directory)) = begun(name, true).await else { return };
    let backups = site.until_backups("a proved copy", proved).await;
    let copy = backups.backups.last().unwrap();
    for what in [
        "each file of the copy",
        "the files of its manifest",
        "recovery",
        "a dump of all rows",
        "the checksums of all pages",
    ] {
        assert!(copy.proved.iter().any(|it| it == what), "{what}: {:?}", copy.proved);
    }
    let mut moments = Vec::new();
    for n in 1..=30 {
        insert(&site, &first, n).await;
        if n % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            moments.push((now(), rows(&site, &first).await));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    moments.push((now(), rows(&site, &first).await));
    for (at, wanted) in moments {
        let into = restore(&site, &at.to_string()).await.unwrap();
        let id = site.serve(&into).await;
        assert_eq!(rows(&site, &id).await, wanted, "at {at}");
        site.destroy(&id).await;
    }
    let id = copy.id.clone();
    let into = restore(&site, &id).await.unwrap();
    let id = site.serve(&into).await;
    assert_eq!(rows(&site, &id).await, "0:0");
    site.destroy(&id).await;
    let early = restore(&site, "2020-01-01T00:00:00Z").await.unwrap_err();
    assert!(early.contains("nothing before"), "{early}");
    // Nothing in it can be read without the identity.
    for object in walk(directory.path()) {
        let bytes = fs::read(&object).unwrap();
        let open = object.extension().is_some_and(|it| it == "json");
        assert!(open || bytes.starts_with(b"age-encryption.org/v1"), "{}", object.display());
    }
    let found = verify(&site).await;
    assert_eq!(found.faults, Vec::<String>::new());
    assert!(found.log_files > 0);
    assert_eq!(site.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_on_over_promotions_and_losses() {
    let name = "the_log_goes_on_over_promotions_and_losses";
    let Some((site, first, _directory)) = begun(name, false).await else { return };
    site.until_backups("a proved copy", proved).await;
    insert(&site, &first, 1).await;
    let second = site.standby(&first).await;
    site.route(Some(&second), false).await.unwrap();
    insert(&site, &second, 2).await;
    site.destroy(&first).await;
    let third = site.standby(&second).await;
    insert(&site, &second, 3).await;
    site.route(Some(&third), false).await.unwrap();
    insert(&site, &third, 4).await;
    site.destroy(&second).await;
    site.kill(&third).await;
    site.destroy(&third).await;
    let fourth = site.create(DataOrigin::Volume { volume: third }).await.unwrap();
    site.ready(&fourth).await;
    site.route(Some(&fourth), false).await.unwrap();
    insert(&site, &fourth, 5).await;
    let into = restore(&site, "latest").await.unwrap();
    let id = site.serve(&into).await;
    assert_eq!(rows(&site, &id).await, "5:15");
    let found = verify(&site).await;
    assert_eq!(found.faults, Vec::<String>::new());
    assert_eq!(site.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_away_loses_nothing() {
    let name = "a_place_that_is_away_loses_nothing";
    let Some(mut site) = Site::new(name).await else { return };
    site.identity.archived = true;
    let first = site.first().await;
    site.run(&first, "CREATE TABLE t (n int)").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    site.back_up(to(&place));
    site.until_backups("a proved copy", proved).await;
    // A file stands where the directory was.
    let aside = directory.path().join("aside");
    fs::rename(&place, &aside).unwrap();
    fs::write(&place, "not here").unwrap();
    for n in 1..=5 {
        insert(&site, &first, n).await;
        site.run_as(&first, "kiln", "postgres", "SELECT pg_switch_wal()").await.unwrap();
    }
    // The instance with what waits goes, and its volume with the one after it.
    let second = site.standby(&first).await;
    site.route(Some(&second), false).await.unwrap();
    site.destroy(&first).await;
    let third = site.standby(&second).await;
    site.route(Some(&third), false).await.unwrap();
    site.destroy(&second).await;
    insert(&site, &third, 6).await;
    let left = || {
        let entries = fs::read_dir(site.volumes()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log")).count()
    };
    assert_eq!(left(), 1, "the log of the volume that went");
    // Another daemon goes on.
    site.reopen();
    site.ready(&third).await;
    site.back_up(to(&place));
    fs::remove_file(&place).unwrap();
    fs::rename(&aside, &place).unwrap();
    let into = restore(&site, "latest").await.unwrap();
    let id = site.serve(&into).await;
    assert_eq!(rows(&site, &id).await, "6:21");
    let entries = fs::read_dir(site.volumes()).unwrap().flatten();
    let left = entries.filter(|it| it.file_name().to_string_lossy().ends_with(".log")).count();
    assert_eq!(left, 0, "all of it is archived");
    assert_eq!(verify(&site).await.faults, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_found_and_named() {
    let name = "what_is_damaged_is_found_and_named";
    let Some((site, first, directory)) = begun(name, false).await else { return };
    site.until_backups("a proved copy", proved).await;
    for n in 1..=3 {
        insert(&site, &first, n).await;
        site.run_as(&first, "kiln", "postgres", "SELECT pg_switch_wal()").await.unwrap();
    }
    restore(&site, "latest").await.unwrap();
    let segments: Vec<PathBuf> = walk(directory.path())
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.len() == 27))
        .collect();
    assert!(segments.len() >= 3, "{segments:?}");
    let base = walk(directory.path()).into_iter().find(|path| path.ends_with("data.tar.gz"));
    let base = base.unwrap();
    let last = segments.last().unwrap();
    let before = &segments[segments.len() - 2];
    let harm: [(&str, &Path, Harm); 5] = [
        ("flipped", &base, |path, _| {
            let mut bytes = fs::read(path).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("cut off", &base, |path, _| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
        }),
        ("missing", &base, |path, _| fs::remove_file(path).unwrap()),
        ("swapped", before, |path, other| assert!(fs::copy(other, path).unwrap() > 0)),
        ("missing", before, |path, _| fs::remove_file(path).unwrap()),
    ];
    for (what, path, harm) in harm {
        let sound = fs::read(path).unwrap();
        harm(path, last);
        let found = verify(&site).await;
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.strip_suffix(".gz").filter(|name| name.len() == 24).unwrap_or(name);
        let told = found.faults.join("; ");
        assert!(told.contains(name), "{what} {name}: {told}");
        assert!(site.alarms().iter().any(|alarm| alarm.contains(name)), "{what} {name}");
        fs::write(path, sound).unwrap();
    }
    assert_eq!(verify(&site).await.faults, Vec::<String>::new());
}

/// All files below a directory, in order.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(walk(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}
