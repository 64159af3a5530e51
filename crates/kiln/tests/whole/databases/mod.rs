//! Databases: clients write numbered rows through the endpoint and note what was acknowledged, while
//! instances are replaced and lost. Every row that was acknowledged is there, once, in its order, and
//! no two instances ever took writes at a time.

mod branches;
mod changes;
mod disks;
mod hangs;
mod inside;
mod kills;
mod late;
mod losses;
mod majors;
mod programs;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_load::ledger::{Ledger, Plan, Report};
use rustix::process::Signal;
use serde_json::Value;

use crate::site::{Site, send, told};

/// How long a database may take to be whole again.
const PATIENCE: Duration = Duration::from_secs(60);

fn stack(work_mem: u32, replicas: u32) -> String {
    format!(
        r#"
network "back" {{ cidr = "10.61.0.0/24" }}
secret "ledger" {{ value = "opensesame" }}
database "ledger" {{
  engine   = "postgres"
  version  = "15"
  network  = network.back
  password = secret.ledger
  settings = {{ work_mem = "{work_mem}MB" }}
  replicas = {replicas}
}}
endpoint "db" {{
  listen = "127.0.0.1:PORT"
  to     = database.ledger
}}
"#
    )
}

/// How the database is reached.
fn parameters(site: &Site) -> String {
    let port = site.port;
    format!("host=127.0.0.1 port={port} user=ledger dbname=ledger password=opensesame")
}

/// Runs statements with psql; a line for each row, as it prints them unaligned.
fn sql(site: &Site, statements: &str) -> Vec<String> {
    let mut psql = Command::new("/usr/lib/postgresql/15/bin/psql");
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
    psql.args(["--set", "ON_ERROR_STOP=1", "--command", statements]);
    let output = psql.arg(parameters(site)).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{statements}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Has clients write.
fn open(site: &Site) -> Ledger {
    Ledger::open(Plan::at(parameters(site))).unwrap()
}

/// Stops the clients: nothing that must never be has been. Prints how long they waited.
fn close(ledger: Ledger, what: &str) -> Report {
    let report = ledger.close().unwrap();
    assert_eq!(report.violations, Vec::<String>::new(), "{what}: told {:?}", report.told);
    assert!(report.acknowledged > 0, "{what}: nothing was written");
    let (rows, told, longest) = (report.acknowledged, report.told.len(), report.longest());
    println!("{what}: {rows} rows acknowledged, none lost, {told} errors, longest {longest:?}");
    for told in &report.told {
        println!("told: {told}");
    }
    println!("{}", report.waits());
    report
}

/// The instance that takes the writes: its name and its process.
fn primary(site: &Site) -> (String, i32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let component = site.component("database", "ledger");
        let first = &component["instances"][0];
        if first["role"] == "primary" {
            return (first["id"].as_str().unwrap().to_owned(), pid(first));
        }
        // A daemon that has just begun has not asked it yet.
        assert!(Instant::now() < deadline, "{component:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The standbys: their names and processes.
fn standbys(site: &Site) -> Vec<(String, i32)> {
    let component = site.component("database", "ledger");
    let instances = component["instances"].as_array().unwrap();
    let standbys = instances.iter().filter(|instance| instance["role"] == "standby");
    standbys.map(|it| (it["id"].as_str().unwrap().to_owned(), pid(it))).collect()
}

fn pid(instance: &Value) -> i32 {
    i32::try_from(instance["pid"].as_i64().unwrap()).unwrap()
}

/// Waits until the database has all its instances, all ready, and none of those in `gone`.
fn recovered(site: &Site, gone: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let component = site.component("database", "ledger");
        let instances = component["instances"].as_array().unwrap();
        let whole = component["replicas"]["ready"] == component["replicas"]["wanted"];
        let wanted = component["replicas"]["wanted"].as_u64();
        let settled = wanted == Some(instances.len() as u64)
            && instances
                .iter()
                .all(|i| i["state"] == "ready" && !gone.iter().any(|g| i["id"] == *g));
        if whole && settled && instances[0]["role"] == "primary" {
            return;
        }
        assert!(Instant::now() < deadline, "{}\n{component:#}", site.must(&["status"]));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until clients have been acknowledged more rows than now.
fn written(ledger: &Ledger) {
    let (before, deadline) = (ledger.acknowledged(), Instant::now() + PATIENCE);
    while ledger.acknowledged() < before + 20 {
        assert!(Instant::now() < deadline, "nobody writes any more: {:?}", ledger.told());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The volumes there are.
fn volumes(site: &Site) -> Vec<String> {
    let place = site.root().join("volumes/shop.ledger");
    let entries = std::fs::read_dir(place).unwrap().flatten();
    let directories = entries.filter(|entry| entry.path().is_dir());
    directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn kill(pid: i32) {
    send(pid, Signal::KILL);
}

/// All processes of the instance whose main process this is: those in its namespace of processes.
fn processes(pid: i32) -> Vec<i32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    // One that has ended meanwhile has none.
    let Some(own) = namespace(&pid.to_string()) else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let within = names.filter(|name| namespace(name).as_ref() == Some(&own));
    within.filter_map(|name| name.parse().ok()).collect()
}

fn rounds(usual: u32, full: u32) -> u32 {
    if crate::measured::full() { full } else { usual }
}

/// Moments that are the same in every run: a linear congruential generator (Knuth's MMIX).
struct Moments(u64);

impl Moments {
    /// A time below so many milliseconds.
    fn below(&mut self, milliseconds: u64) -> Duration {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((self.0 >> 33) % milliseconds)
    }
}
