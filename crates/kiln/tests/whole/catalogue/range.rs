//! Where the catalogue is tried: a stack under load, and the clock.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::load::Load;
use crate::site::{Site, eventually};

/// Three web servers behind an endpoint.
pub const STACK: &str = r#"
image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080"]
  directory "/tmp" { mode = "1777" }
}

network "front" { cidr = "10.61.0.0/24" }

server "web" {
  image    = image.probe
  network  = network.front
  memory   = "32MiB"
  cpu      = 0.5
  pids     = 64
  replicas = 3
  writable = { "/tmp" = "4MiB" }
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "5s" }
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
}
"#;

/// When something is really wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which failures of requests a row may bring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Losses {
    /// None.
    None,
    /// What is in flight on the instance: it is gone at once.
    InFlight,
}

/// A stack that is there to be tampered with.
pub struct Range {
    pub site: Site,
    rows: Vec<String>,
}

/// An instance that something is done to.
pub struct Victim {
    pub id: String,
    pub pid: i32,
}

impl Range {
    pub fn new(site: Site) -> Self {
        Self::with(site, STACK)
    }

    /// With another stack, of three web servers as well.
    pub fn with(site: Site, stack: &str) -> Self {
        site.write(stack);
        site.must(&["apply", "--yes"]);
        Self { site, rows: Vec::new() }
    }

    /// One row: `tamper` is done to an instance, and must be found and answered.
    pub fn row(&mut self, name: &str, losses: Losses, mut tamper: impl FnMut(&Range, &Victim)) {
        let (mut found, mut replaced, mut failed, mut false_alarms) = (vec![], vec![], 0, 0);
        for _ in 0..rounds() {
            let victim = self.victim();
            let (instances, networks) = (self.names("instances"), self.names("networks"));
            let load = Load::start(self.site.address(), 4);
            std::thread::sleep(Duration::from_millis(50));
            let began = Instant::now();
            tamper(self, &victim);
            self.until(name, "is not found", || {
                self.is_condemned(&victim.id)
                    || self.names("instances") != instances
                    || self.names("networks") != networks
            });
            found.push(began.elapsed());
            self.until(name, "is not answered", || {
                !self.names("instances").contains(&victim.id) && self.is_whole()
            });
            replaced.push(began.elapsed());
            let (answered, failures) = load.end();
            assert!(answered > 0, "{name}: nobody was served");
            if losses == Losses::None {
                assert!(failures.is_empty(), "{name}: {failures:?}");
            }
            failed += failures.len();
            // Those in the same network are replaced with it.
            let same_network = self.names("networks") == networks;
            let others = instances.difference(&self.names("instances")).count();
            false_alarms += if same_network { others.saturating_sub(1) } else { 0 };
        }
        assert_eq!(false_alarms, 0, "{name}: others were replaced, too");
        self.note(name, found, replaced, failed, false_alarms);
    }

    /// One row of what is not done to an instance: `tamper` is done, `is_found` must tell of it,
    /// `answer` is what becomes of it, and nothing that runs is touched.
    pub fn fact(
        &mut self,
        name: &str,
        mut tamper: impl FnMut(&Range),
        is_found: impl Fn(&Range) -> bool,
        mut answer: impl FnMut(&Range),
    ) {
        let (mut found, mut answered, mut failed) = (vec![], vec![], 0);
        for _ in 0..rounds() {
            eventually("all are whole", || self.is_whole());
            let (instances, networks) = (self.names("instances"), self.names("networks"));
            let load = Load::start(self.site.address(), 4);
            std::thread::sleep(Duration::from_millis(50));
            let began = Instant::now();
            tamper(self);
            self.until(name, "is not found", || is_found(self));
            found.push(began.elapsed());
            answer(self);
            answered.push(began.elapsed());
            let (served, failures) = load.end();
            assert!(served > 0 && failures.is_empty(), "{name}: {served} served, {failures:?}");
            failed += failures.len();
            assert_eq!((self.names("instances"), self.names("networks")), (instances, networks));
        }
        self.note(name, found, answered, failed, 0);
    }

    /// A row of what a program may do: nothing is replaced for it.
    pub fn harmless(&mut self, name: &str, mut act: impl FnMut(&Range, &Victim)) {
        for _ in 0..rounds() {
            let victim = self.victim();
            let before = self.names("instances");
            act(self, &victim);
            // More than a round of the sweep, and what it would begin.
            std::thread::sleep(Duration::from_millis(1500));
            let events = || self.site.must(&["events"]);
            assert_eq!(self.names("instances"), before, "{name}: a false alarm\n{}", events());
            assert!(!before.iter().any(|id| self.is_condemned(id)), "{name}: a false alarm");
        }
        println!("{name:44} let be");
    }

    fn note(
        &mut self,
        name: &str,
        mut found: Vec<Duration>,
        mut replaced: Vec<Duration>,
        failed: usize,
        false_alarms: usize,
    ) {
        found.sort();
        replaced.sort();
        let at = |all: &[Duration], part: usize| all[(all.len() - 1) * part / 100].as_millis();
        let line = format!(
            "{name:44} found {:>4} / {:>4} ms  replaced {:>5} / {:>5} ms  failed {failed}  false \
             alarms {false_alarms}",
            at(&found, 50),
            at(&found, 99),
            at(&replaced, 50),
            at(&replaced, 99),
        );
        println!("{line}");
        self.rows.push(line);
    }

    fn until(&self, name: &str, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() >= deadline {
                let status = crate::site::told(&self.site.run(&["status"]));
                panic!("{name}: {what} within {PATIENCE:?}\n{status}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The instance that is next, which is ready.
    fn victim(&self) -> Victim {
        eventually("all are whole", || self.is_whole());
        let id = self.names("instances").into_iter().next().unwrap();
        let pid = self.record(&id)["pid"].as_i64().unwrap();
        Victim { id, pid: i32::try_from(pid).unwrap() }
    }

    /// What was written down of an instance when it was made.
    pub fn record(&self, id: &str) -> Value {
        let path = self.site.root().join("run/instances").join(id).join("record.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn is_condemned(&self, id: &str) -> bool {
        self.site.root().join("run/instances").join(id).join("drift.json").exists()
    }

    /// Whether there are three instances in one network, ready and as they should be.
    pub fn is_whole(&self) -> bool {
        if self.names("instances").len() != 3 || self.names("networks").len() != 1 {
            return false;
        }
        let status = self.site.status();
        let components = status["components"].as_array().unwrap();
        let web = components.iter().find(|c| c["name"] == "web").unwrap();
        let all = web["instances"].as_array().unwrap();
        let is_sound =
            |i: &Value| i["state"] == "ready" && i["drift"].as_array().is_some_and(Vec::is_empty);
        all.len() == 3 && all.iter().all(is_sound)
    }

    /// The names of what there is of a kind.
    pub fn names(&self, kind: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.site.root().join("run").join(kind)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| Path::new(name).extension().is_none_or(|kind| kind != "tmp")).collect()
    }

    /// Where the network is pinned.
    pub fn network(&self) -> PathBuf {
        let record = self.names("networks").into_iter().next().unwrap();
        self.site.root().join("run/net").join(record.trim_end_matches(".json"))
    }

    /// The file `name` of an instance's control group, in whatever hierarchy has it.
    pub fn group_file(&self, victim: &Victim, names: &[&str]) -> PathBuf {
        self.find_group_file(victim, names).unwrap_or_else(|| panic!("none of {names:?}"))
    }

    /// The same, where it is there.
    pub fn find_group_file(&self, victim: &Victim, names: &[&str]) -> Option<PathBuf> {
        let root_id = fs::read_to_string(self.site.root().join("id")).unwrap();
        let group = Path::new(&format!("kiln-{}", root_id.trim())).join(&victim.id);
        let tops = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let tops: Vec<PathBuf> = tops.chain([PathBuf::from("/sys/fs/cgroup")]).collect();
        for name in names {
            let files = tops.iter().map(|top| top.join(&group).join(name));
            if let Some(file) = files.into_iter().find(|file| file.exists()) {
                return Some(file);
            }
        }
        None
    }
}

/// How often each row is done.
fn rounds() -> usize {
    let told = std::env::var("KILN_CATALOGUE_ROUNDS").ok();
    told.and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}
