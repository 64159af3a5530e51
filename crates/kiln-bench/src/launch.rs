//! How long a server takes from its creation to its first instruction and to its end, and a
//! hundred of them at once, beside `crun`. Kiln's servers have a network, an address and rules;
//! crun's have none.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_image::erofs::{self, Options};
use kiln_image::tree::{Inode, Metadata, Tree};
use kiln_local::instance::client::Client;
use kiln_local::launcher::ensure_running;
use kiln_local::launcher::protocol::{
    ImageSource, Labels, LaunchSpec, Limits, NetworkAttachment, WritableMount,
};
use kiln_local::network::{NetworkSpec, Networks};

use crate::Result;
use crate::crun::{self, AT_ONCE, BATCH, Batch};
use crate::figures::{Figures, Table, ratio};
use crate::program::{SAY_AND_EXIT, SAY_AND_STAY, executable};

/// Batches of each, by turns.
const BATCHES: usize = 5;

/// How long an instance may take to end.
const BOUND: Duration = Duration::from_secs(10);

/// Prints the table.
pub(crate) fn bench(kiln: &Path) -> Result {
    if !cfg!(target_arch = "x86_64") {
        println!("\nlaunch: the programs that are started are written for x86-64: not run");
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        println!("\nlaunch: must be run as root: not run");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let crun = crun::version();
    if crun.is_some() {
        crun::prepare(directory.path())?;
    } else {
        println!("\ncrun is not on this machine: there are no figures to compare with");
    }
    let mut kiln = Launcher::start(kiln, directory.path())?;
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for number in 0..BATCHES {
        eprintln!("launch: batch {} of {BATCHES}", number + 1);
        own.push(kiln.batch()?);
        if crun.is_some() {
            peer.push(crun::batch(directory.path())?);
        }
    }
    kiln.end()?;
    print(&own, &peer, crun.as_deref().unwrap_or("–"));
    Ok(())
}

/// One row's times out of a batch.
type Times = fn(&Batch) -> Vec<Duration>;

fn print(own: &[Batch], peer: &[Batch], version: &str) {
    let title = format!("Launching, beside crun {version} with the same isolation and no network");
    let mut table = Table::new(&title, &["what", "Kiln", "crun", "ratio"]);
    let at_once = format!("{AT_ONCE} at once, until the last one runs");
    let rows: [(&str, Times); 3] = [
        ("create to first instruction", |batch| batch.first_word.clone()),
        ("create to destroyed", |batch| batch.gone.clone()),
        (&at_once, |batch| vec![batch.at_once]),
    ];
    for (name, times) in rows {
        let of = |batches: &[Batch]| Figures::of_times(batches.iter().flat_map(times));
        let (own, peer) = (of(own), of(peer));
        let ratio = if peer.median() > 0.0 { ratio(&own, &peer) } else { "–".to_owned() };
        table.row(&[name.to_owned(), own.seconds(), peer.seconds(), ratio]);
    }
    table.print();
}

/// Kiln's launcher with a network.
struct Launcher {
    client: Client,
    networks: Networks,
    images: [ImageSource; 2],
    started: u32,
}

impl Launcher {
    fn start(kiln: &Path, directory: &Path) -> Result<Self> {
        let root = directory.join("root");
        fs::create_dir(&root)?;
        fs::write(root.join("id"), format!("{:08x}", std::process::id()))?;
        let images = [("exit", SAY_AND_EXIT), ("stay", SAY_AND_STAY)]
            .map(|(name, code)| image(&root.join(format!("{name}.erofs")), code));
        let [exit, stay] = images;
        let mut client = ensure_running(&root, kiln)?;
        client.subscribe()?;
        let id = format!("{:08x}", std::process::id());
        let networks = Networks::new(root.join("run/net"), id)?;
        networks.create(&NetworkSpec {
            id: "bench".to_owned(),
            cidr: "10.99.0.0/22".parse()?,
            egress: vec![],
            label: String::new(),
        })?;
        let images = [ImageSource::as_it_is(&exit?)?, ImageSource::as_it_is(&stay?)?];
        Ok(Self { client, networks, images, started: 0 })
    }

    fn end(mut self) -> Result {
        self.networks.destroy("bench")?;
        Ok(self.client.shutdown()?)
    }

    fn batch(&mut self) -> Result<Batch> {
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            let spec = self.spec(0);
            let name = spec.instance.clone();
            let begin = Instant::now();
            self.client.launch(spec)?;
            batch.first_word.push(begin.elapsed());
            self.client.next_event(Some(BOUND))?.ok_or("no end was reported")?;
            self.client.forget(&name)?;
            batch.gone.push(begin.elapsed());
        }
        let specs: Vec<LaunchSpec> = (0..AT_ONCE).map(|_| self.spec(1)).collect();
        let names: Vec<String> = specs.iter().map(|spec| spec.instance.clone()).collect();
        let begin = Instant::now();
        for launched in self.client.launch_all(specs)? {
            launched?;
        }
        batch.at_once = begin.elapsed();
        for name in &names {
            self.client.kill(name)?;
        }
        for _ in &names {
            self.client.next_event(Some(BOUND))?.ok_or("no end was reported")?;
        }
        for name in &names {
            self.client.forget(name)?;
        }
        Ok(batch)
    }

    fn spec(&mut self, image: usize) -> LaunchSpec {
        self.started += 1;
        // The upper half of the range belongs to instances.
        let offset = 1 + self.started % 500;
        LaunchSpec {
            instance: format!("bench-{}", self.started),
            labels: Labels::default(),
            image: self.images[image].clone(),
            argv: vec!["/bin/program".to_owned()],
            env: vec![],
            workdir: "/".to_owned(),
            user: "65534:65534".to_owned(),
            hostname: "bench".to_owned(),
            writable: vec![WritableMount {
                path: "/tmp".to_owned(),
                size_bytes: 1 << 20,
                mode: 0o1777,
                exec: false,
            }],
            volumes: vec![],
            directories: vec![],
            files: vec![],
            seccomp: kiln_model::spec::server::Seccomp::Default,
            learns: false,
            limits: Limits {
                memory_bytes: Some(64 << 20),
                cpu_millis: Some(500),
                pids: Some(64),
                open_files: Some(1024),
                oom_score_adjust: 100,
            },
            network: Some(NetworkAttachment {
                namespace: self.networks.path("bench"),
                address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 99, 2, 0)) + offset),
                prefix_bits: 22,
                gateway: Ipv4Addr::new(10, 99, 0, 1),
            }),
            joins: None,
        }
    }
}

/// An image with `code` as its program.
fn image(path: &Path, code: &[u8]) -> Result<PathBuf> {
    let mut tree = Tree::new();
    let directory = Metadata::new(0o755);
    for inside in ["/bin", "/proc", "/sys", "/dev", "/tmp"] {
        tree.make_directories(inside, &directory)?;
    }
    let content = kiln_image::tree::Content::Bytes(executable(code).into());
    tree.insert("/bin/program", Inode::file(Metadata::new(0o755), content))?;
    let _ = erofs::write(&tree, Options::default(), &mut File::create(path)?)?;
    Ok(path.to_owned())
}
