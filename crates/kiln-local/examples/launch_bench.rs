//! How long an instance takes to start and to end: medians over many, one after the other, and a
//! hundred at once.
//!
//! `launch_bench [COUNT]`, as root. The image holds two programs of a few instructions, so that
//! what is measured is the launcher and the kernel. Every instance has memory, processor and
//! process bounds, a tmpfs and, in the second part, its interface on a network.

use std::error::Error;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use kiln_local::instance::client::Client;
use kiln_local::launcher::protocol::{
    Labels, LaunchSpec, Limits, NetworkAttachment, WritableMount,
};
use kiln_local::launcher::{IDLE_LIMIT, ensure_running, run};
use kiln_local::network::{NetworkSpec, Networks};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// `exit(0)`, in x86-64 machine code.
const TRUE: &[u8] = b"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05";
/// `for (;;) pause()`, in x86-64 machine code.
const PAUSE: &[u8] = b"\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, option, root, verb] = arguments.as_slice()
        && option == "--root"
        && verb == "launcher"
    {
        return run(Path::new(root), IDLE_LIMIT);
    }
    let count = arguments.get(1).and_then(|count| count.parse().ok()).unwrap_or(200);
    match bench(count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("launch_bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(count: u32) -> Result {
    let root = tempfile::tempdir()?;
    fs::write(root.path().join("id"), format!("{:08x}", std::process::id()))?;
    let image = image(root.path())?;
    let mut client = ensure_running(root.path(), &std::env::current_exe()?)?;
    client.subscribe()?;
    let networks = Networks::new(root.path().join("run/net"), "bench")?;
    let network = NetworkSpec {
        id: "bench".to_owned(),
        cidr: "10.99.0.0/22".parse()?,
        egress: vec![],
        label: String::new(),
    };
    networks.create(&network)?;
    let result = [None, Some(networks.path("bench"))].into_iter().try_for_each(|network| {
        println!("with{} network", if network.is_some() { "" } else { "out" });
        let bench = Bench { image: image.clone(), network };
        let before = processor_time(root.path())?;
        bench.one_after_the_other(&mut client, count)?;
        let used = processor_time(root.path())?.saturating_sub(before) / count;
        println!("  processor time of launcher and child  {:>8.3} ms each", millis(used));
        bench.all_at_once(&mut client, 100)
    });
    end_all(&mut client)?;
    networks.destroy("bench")?;
    client.shutdown()?;
    result
}

/// Ends what a failed measurement has left running.
fn end_all(client: &mut Client) -> Result {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let instances = client.list()?;
        for instance in &instances {
            match instance.exit {
                Some(_) => client.forget(&instance.instance)?,
                None => client.kill(&instance.instance)?,
            }
        }
        if instances.is_empty() || Instant::now() > deadline {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the instances are made from.
struct Bench {
    image: PathBuf,
    network: Option<PathBuf>,
}

impl Bench {
    fn one_after_the_other(&self, client: &mut Client, count: u32) -> Result {
        let (mut starts, mut wholes) = (Vec::new(), Vec::new());
        for number in 0..count {
            let spec = self.spec(&format!("bench-{number}"), number, "/bin/true");
            let begin = Instant::now();
            client.launch(spec)?;
            starts.push(begin.elapsed());
            client.next_event(Some(Duration::from_secs(5)))?.ok_or("no exit was reported")?;
            client.forget(&format!("bench-{number}"))?;
            wholes.push(begin.elapsed());
        }
        println!("  create to running program   {}", summary(&mut starts));
        println!("  create to destroyed         {}", summary(&mut wholes));
        Ok(())
    }

    fn all_at_once(&self, client: &mut Client, count: u32) -> Result {
        let names: Vec<String> = (0..count).map(|number| format!("many-{number}")).collect();
        let specs =
            (0..).zip(&names).map(|(number, name)| self.spec(name, number, "/bin/pause")).collect();
        let begin = Instant::now();
        for result in client.launch_all(specs)? {
            result?;
        }
        println!("  {count} at once, all running   {:>8.2} ms", millis(begin.elapsed()));
        let begin = Instant::now();
        for name in &names {
            client.kill(name)?;
        }
        for _ in &names {
            client.next_event(Some(Duration::from_secs(5)))?.ok_or("no exit was reported")?;
        }
        for name in &names {
            client.forget(name)?;
        }
        println!("  {count} at once, all destroyed {:>8.2} ms", millis(begin.elapsed()));
        Ok(())
    }

    fn spec(&self, instance: &str, number: u32, program: &str) -> LaunchSpec {
        LaunchSpec {
            instance: instance.to_owned(),
            labels: Labels::default(),
            image: self.image.clone(),
            argv: vec![program.to_owned()],
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
            files: vec![],
            limits: Limits {
                memory_bytes: Some(64 << 20),
                cpu_millis: Some(500),
                pids: Some(64),
                open_files: Some(1024),
                oom_score_adjust: 100,
            },
            network: self.network.as_ref().map(|namespace| NetworkAttachment {
                namespace: namespace.clone(),
                // The upper half of the range belongs to instances.
                address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 99, 2, 0)) + number % 500),
                prefix_bits: 22,
                gateway: Ipv4Addr::new(10, 99, 0, 1),
            }),
        }
    }
}

/// User and system time of the launcher and of the children it has reaped.
fn processor_time(root: &Path) -> Result<Duration> {
    let pid = fs::read_to_string(root.join("run/launcher.pid"))?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("unexpected /proc/PID/stat")?;
    // utime, stime, cutime, cstime are fields 14 to 17, in ticks of 10 ms.
    let ticks = fields.split(' ').skip(11).take(4).map(str::parse::<u64>);
    Ok(Duration::from_millis(10 * ticks.sum::<std::result::Result<u64, _>>()?))
}

fn summary(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| millis(times[(times.len() - 1) * percent / 100]);
    format!("{:>8.3} ms median, {:>8.3} p10, {:>8.3} p90", at(50), at(10), at(90))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Makes the image in `root`.
fn image(root: &Path) -> Result<PathBuf> {
    let tree = root.join("tree");
    for directory in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    for (name, code) in [("true", TRUE), ("pause", PAUSE)] {
        let path = tree.join("bin").join(name);
        fs::write(&path, executable(code))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let image = root.join("bench.erofs");
    let output = Command::new("mkfs.erofs").arg(&image).arg(&tree).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(image)
}

/// The smallest ELF file that runs `code`: a header, one segment, the code (see elf(5)).
fn executable(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    file.extend(5_u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}
