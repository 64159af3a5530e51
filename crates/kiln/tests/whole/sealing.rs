//! Root filesystems stay what they are while instances run from them, or it is known at once.
//!
//! How they are kept so depends on the machine: fs-verity, dm-verity, or watching. Each test says
//! what it needs. `tests/guest` runs them where there is everything; there `KILN_INTEGRITY` is what
//! must be chosen.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags};

use crate::replace::SHOP;
use crate::site::{Site, get, site_or_skip, told};

/// A shop of one server, with a file that no instance reads unless it is asked to.
fn shop() -> String {
    let one = SHOP.replace("replicas = 3", "replicas = 1");
    one.replace("  entrypoint =", "  copy \"treasure\" { to = \"/treasure\" }\n  entrypoint =")
}

/// Text by which the file's place is found in the image, or on the disk below.
fn treasure() -> String {
    (0..32_768).fold(String::new(), |text, n| text + &format!("gold {n:010}\n"))
}

fn bring_up(site: &Site) {
    fs::write(site.stack().join("treasure"), treasure()).unwrap();
    site.write(&shop());
    site.must(&["apply", "--yes"]);
}

fn integrity(site: &Site) -> String {
    let all = site.instances("web", "integrity");
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0].clone()
}

/// The EROFS file of the only image.
fn erofs(site: &Site) -> PathBuf {
    let blobs = fs::read_dir(site.root().join("images/blobs/sha256")).unwrap();
    let sized = |path: PathBuf| (fs::metadata(&path).unwrap().len(), path);
    blobs.map(|entry| sized(entry.unwrap().path())).max().unwrap().1
}

/// Where the middle of the treasure is, which begins a block: in an image once, on a disk also
/// where the image was made of it.
fn places_in(path: &Path) -> Vec<u64> {
    const BLOCK: usize = 4096;
    let needle = treasure();
    let needle = &needle.as_bytes()[needle.len() / 2..][..BLOCK];
    let mut file = BufReader::with_capacity(256 * BLOCK, File::open(path).unwrap());
    let (mut block, mut found) = ([0; BLOCK], Vec::new());
    for number in 0.. {
        if file.read_exact(&mut block).is_err() {
            break;
        }
        if block == needle {
            found.push(number * BLOCK as u64);
        }
    }
    assert!(!found.is_empty(), "the file is there");
    found
}

fn flip(path: &Path, place: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(place))?;
    file.write_all(&[byte[0] ^ 1])?;
    file.sync_all()
}

fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

#[test]
fn status_names_what_keeps_each_instance_whole() {
    let site = site_or_skip!("status_names_what_keeps_each_instance_whole");
    bring_up(&site);
    let found = integrity(&site);
    assert!(["watched", "dm-verity", "fs-verity"].contains(&found.as_str()), "{found}");
    if let Ok(expected) = std::env::var("KILN_INTEGRITY") {
        assert_eq!(found, expected);
    }
    assert!(site.must(&["status"]).contains(&found));
    assert_eq!(site.get("/read?path=/treasure"), (200, treasure()));
}

#[test]
fn nothing_that_was_altered_is_ever_read() {
    let site = site_or_skip!("nothing_that_was_altered_is_ever_read");
    bring_up(&site);
    let (kept, file) = (integrity(&site), erofs(&site));
    let (place, ids) = (places_in(&file)[0], site.instances("web", "id"));
    drop_caches();
    let written = flip(&file, place);
    match kept.as_str() {
        "fs-verity" => {
            assert!(written.is_err(), "nobody can write to it");
            assert_eq!(site.get("/read?path=/treasure"), (200, treasure()));
        }
        "dm-verity" => {
            written.unwrap();
            let (status, text) = site.get("/read?path=/treasure");
            assert_eq!(status, 502, "{}", text.len());
            assert!(text.contains("os error 5"), "{text}");
            assert_replaced(&site, &ids);
            assert_told(&site, "dm-verity");
        }
        _ => {
            written.unwrap();
            assert_replaced(&site, &ids);
        }
    }
}

/// That an alteration, or a block that can't be read, is noticed and answered: another instance serves, from a file that was made
/// again from the image's layers. How soon it is noticed is tested where nothing else takes time.
fn assert_replaced(site: &Site, ids: &[String]) {
    let replaced = || {
        let now = site.instances("web", "id");
        let ready = site.instances("web", "state").iter().all(|state| state == "ready");
        now.len() == ids.len() && now.iter().all(|id| !ids.contains(id)) && ready
    };
    // Long, as everything is slow where the processor is not one of its own.
    let deadline = Instant::now() + Duration::from_secs(100);
    while !replaced() {
        let log = || fs::read_to_string(site.root().join("logs/daemon.log"));
        assert!(Instant::now() < deadline, "nothing is replaced: {} {:?}", site.status(), log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(site.get("/read?path=/treasure"), (200, treasure()));
    site.must(&["image", "verify"]);
}

/// That whoever asks why an instance was replaced is told what was refused by what.
fn assert_told(site: &Site, way: &str) {
    let told = fs::read_to_string(site.root().join("logs/daemon.log")).unwrap();
    let refused = format!("is not what was sealed, and {way} refuses it");
    assert!(told.contains(&refused), "{refused:?} is not in {told}");
}

#[test]
fn a_write_through_a_mapping_is_noticed_and_answered() {
    let name = "a_write_through_a_mapping_is_noticed_and_answered";
    let site = site_or_skip!("a_write_through_a_mapping_is_noticed_and_answered");
    bring_up(&site);
    if integrity(&site) != "watched" {
        println!("skipped: {name}: this machine has something better than watching");
        return;
    }
    let (file, ids) = (erofs(&site), site.instances("web", "id"));
    let place = places_in(&file)[0];
    let mapped = OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let length = usize::try_from(place + 1).unwrap();
    // SAFETY: a new mapping of a file that is longer, of which one byte is written.
    unsafe {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let memory = rustix::mm::mmap(std::ptr::null_mut(), length, access, flags, &mapped, 0);
        let byte = memory.unwrap().cast::<u8>().add(length - 1);
        byte.write(byte.read() ^ 1);
    }
    assert_replaced(&site, &ids);
}

/// How many places are written to, one after the other.
const PLACES: u64 = 8;

#[test]
fn a_write_to_any_place_is_noticed_and_answered() {
    let name = "a_write_to_any_place_is_noticed_and_answered";
    let site = site_or_skip!(name);
    bring_up(&site);
    if integrity(&site) != "watched" {
        println!("skipped: {name}: this machine has something better than watching");
        return;
    }
    for number in 0..PLACES {
        let (file, ids) = (erofs(&site), site.instances("web", "id"));
        // Scattered over the file, and the same each time (Knuth's multiplicative hash).
        let place = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        flip(&file, place % fs::metadata(&file).unwrap().len()).unwrap();
        assert_replaced(&site, &ids);
    }
}

#[test]
fn what_changes_no_byte_is_no_drift() {
    let site = site_or_skip!("what_changes_no_byte_is_no_drift");
    bring_up(&site);
    let ids = site.instances("web", "id");
    let file = erofs(&site);
    let link = site.root().join("link");
    fs::hard_link(&file, &link).unwrap();
    fs::remove_file(link).unwrap();
    drop(OpenOptions::new().append(true).open(&file));
    std::thread::sleep(Duration::from_millis(500));
    site.must(&["drift"]);
    assert_eq!(site.instances("web", "id"), ids);
    assert_eq!(site.status()["healthy"], true);
}

#[test]
fn a_machine_that_can_do_less_than_is_demanded_starts_nothing() {
    let name = "a_machine_that_can_do_less_than_is_demanded_starts_nothing";
    let site = site_or_skip!("a_machine_that_can_do_less_than_is_demanded_starts_nothing");
    bring_up(&site);
    if integrity(&site) == "fs-verity" {
        println!("skipped: {name}: this machine has the strongest");
        return;
    }
    let ids = site.instances("web", "id");
    let demanding = format!("stack {{ require_integrity = \"fs-verity\" }}\n{}", shop());
    site.write(&demanding.replace("default = \"v1\"", "default = \"v2\""));
    let output = site.run(&["apply", "--yes"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["fs-verity", "verity`"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(site.instances("web", "id"), ids, "the old one was never touched");
    assert_eq!(site.status()["generation"], 1);
}

#[test]
fn what_rots_on_the_disk_is_an_error_and_never_wrong() {
    let name = "what_rots_on_the_disk_is_an_error_and_never_wrong";
    let disk = match Disk::new() {
        Ok(disk) => disk,
        Err(lack) => {
            println!("skipped: {name}: {lack}");
            return;
        }
    };
    let site = match Site::below(&disk.place) {
        Ok(site) => site,
        Err(lack) => {
            println!("skipped: {name}: {lack}");
            return;
        }
    };
    bring_up(&site);
    if integrity(&site) != "fs-verity" {
        println!("skipped: {name}: this kernel has no fs-verity");
        return;
    }
    let ids = site.instances("web", "id");
    drop_caches();
    let file = disk.directory.path().join("disk");
    for place in places_in(&file) {
        flip(&file, place).unwrap();
    }
    drop_caches();
    let (status, text) = get(site.address(), "/read?path=/treasure").unwrap();
    assert_eq!(status, 502, "{} bytes were read", text.len());
    assert!(text.contains("os error 5"), "{text}");
    assert_replaced(&site, &ids);
    assert_told(&site, "fs-verity");
}

/// An ext4 filesystem with fs-verity on a file, mounted.
struct Disk {
    directory: tempfile::TempDir,
    place: PathBuf,
}

impl Disk {
    fn new() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let (disk, place) = (directory.path().join("disk"), directory.path().join("mounted"));
        File::create(&disk).and_then(|f| f.set_len(256 << 20)).map_err(|e| e.to_string())?;
        fs::create_dir(&place).map_err(|e| e.to_string())?;
        let run = |line: &[&str]| {
            let output = Command::new(line[0]).args(&line[1..]).output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(format!("{line:?}: {}", told(&output))),
                Err(error) => Err(format!("needs {}: {error}", line[0])),
            }
        };
        let [file, at] = [&disk, &place].map(|path| path.display().to_string());
        run(&["mkfs.ext4", "-q", "-b", "4096", "-O", "verity", &file])?;
        run(&["mount", "-o", "loop", &file, &at])
            .map_err(|_| "this kernel mounts no ext4 with fs-verity".to_owned())?;
        Ok(Self { directory, place })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The site below is gone by now, and its processes are about to be; were they not, its
        // files must not be removed with this.
        let unmounted = (0..100).any(|_| {
            let output = Command::new("umount").arg(&self.place).output();
            let done = output.is_ok_and(|output| output.status.success());
            if !done {
                std::thread::sleep(Duration::from_millis(100));
            }
            done
        });
        assert!(unmounted || std::thread::panicking());
    }
}
