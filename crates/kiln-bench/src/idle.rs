//! What Kiln's own processes cost while nothing happens: processor time with many instances,
//! and memory for each of them. The daemon has no peer with the same task; the bounds that
//! Kiln sets itself stand beside the figures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Result;
use crate::child;
use crate::figures::{Table, digits};

/// Instances of the full stack, beyond the one of the small stack.
const INSTANCES: u32 = 200;

/// How long the idle stack is watched.
const WATCHED: Duration = Duration::from_secs(30);

/// The verbs of Kiln's own processes.
const PROCESSES: [&str; 3] = ["serve", "gateway", "launcher"];

/// Prints the table.
pub(crate) fn bench(kiln: &Path) -> Result {
    let Some(probe) = std::env::var_os("KILN_PROBE").map(PathBuf::from) else {
        println!("\nidle: KILN_PROBE does not name the static probe: not run");
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() {
        println!("\nidle: must be run as root: not run");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let stack = directory.path().join("stack");
    fs::create_dir(&stack)?;
    fs::copy(&probe, stack.join("probe"))?;
    fs::write(stack.join("main.kiln.hcl"), STACK)?;
    let kiln = Kiln { program: kiln.to_owned(), root: directory.path().join("root"), stack };
    let result = kiln.measure();
    kiln.retire();
    let figures = result?;
    let mut table = Table::new(
        &format!("Idle, with {INSTANCES} instances that are probed every 10 s"),
        &["what", "daemon", "gateway", "launcher", "all", "bound"],
    );
    let row = |name: &str, values: [f64; 3], bound: &str| {
        let sum: f64 = values.iter().sum();
        let mut cells = vec![name.to_owned()];
        cells.extend(values.iter().chain([&sum]).map(|value| digits(*value)));
        cells.push(bound.to_owned());
        cells
    };
    table.row(&row("processor, % of one core", figures.processor, "1"));
    table.row(&row("memory for each instance, KiB", figures.memory, "200"));
    table.print();
    Ok(())
}

const STACK: &str = r#"
stack { name = "idle" }
variable "replicas" { default = 1 }
image "probe" {
  base       = scratch()
  copy "probe" { to = "/probe" }
  entrypoint = ["/probe", "serve", "--port", "8080"]
}
network "front" { cidr = "10.0.0.0/20" }
server "web" {
  image    = image.probe
  network  = network.front
  memory   = "8MiB"
  replicas = var.replicas
  health   = { http = { port = 8080, path = "/healthz" }, every = "10s" }
  rollout  = { strategy = "rolling", deadline = "5m" }
}
"#;

/// For the daemon, the gateway and the launcher.
struct Idle {
    /// Processor time, in per cent of one core.
    processor: [f64; 3],
    /// KiB of memory that each further instance adds.
    memory: [f64; 3],
}

struct Kiln {
    program: PathBuf,
    root: PathBuf,
    stack: PathBuf,
}

impl Kiln {
    fn measure(&self) -> Result<Idle> {
        eprintln!("idle: one instance");
        self.apply(1)?;
        std::thread::sleep(Duration::from_secs(2));
        let small = self.each(memory_kib)?;
        eprintln!("idle: {} instances", INSTANCES + 1);
        self.apply(INSTANCES + 1)?;
        std::thread::sleep(Duration::from_secs(5));
        let full = self.each(memory_kib)?;
        eprintln!("idle: watching for {WATCHED:?}");
        let (before, begin) = (self.each(processor_seconds)?, Instant::now());
        std::thread::sleep(WATCHED);
        let (after, elapsed) = (self.each(processor_seconds)?, begin.elapsed().as_secs_f64());
        let processor = [0, 1, 2].map(|i| 100.0 * (after[i] - before[i]) / elapsed);
        let memory = [0, 1, 2].map(|i| (full[i] - small[i]) / f64::from(INSTANCES));
        Ok(Idle { processor, memory })
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--stack").arg(&self.stack).arg(verb);
        command
    }

    fn apply(&self, replicas: u32) -> Result {
        let mut command = self.command("apply");
        command.args(["--yes", "--var"]).arg(format!("replicas={replicas}"));
        child::expect(&mut command, &self.stack.with_extension("out"), 0)?;
        Ok(())
    }

    /// Takes the stack and the daemon away. What can't be is said, and not more.
    fn retire(&self) {
        let mut destroy = self.command("destroy");
        let gone = child::expect(destroy.arg("--yes"), &self.stack.with_extension("out"), 0);
        if let Err(error) = gone {
            eprintln!("idle: {error}");
        }
        for verb in ["serve", "launcher"] {
            if let Ok(pid) = self.pid(verb)
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
                && let Err(error) =
                    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            {
                eprintln!("idle: the {verb} process cannot be ended: {error}");
            }
        }
    }

    fn each(&self, figure: fn(i32) -> Result<f64>) -> Result<[f64; 3]> {
        let mut values = [0.0; 3];
        for (value, verb) in values.iter_mut().zip(PROCESSES) {
            // Without an endpoint there may be no gateway.
            if let Ok(pid) = self.pid(verb) {
                *value = figure(pid)?;
            } else if verb != "gateway" {
                return Err(format!("there is no `kiln {verb}` for {}", self.root.display()).into());
            }
        }
        Ok(values)
    }

    /// The process of this root whose verb is `verb`.
    fn pid(&self, verb: &str) -> Result<i32> {
        let root = self.root.to_string_lossy().into_owned();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let arguments = String::from_utf8_lossy(&arguments).into_owned();
            let mut words = arguments.split('\0').skip(1);
            if words.clone().any(|word| word == root) && words.any(|word| word == verb) {
                return Ok(pid);
            }
        }
        Err(format!("there is no `kiln {verb}`").into())
    }
}

/// The proportional share of memory of a process (see `proc_pid_smaps(5)`).
fn memory_kib(pid: i32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let value = line.ok_or("smaps_rollup has no Pss")?.trim().trim_end_matches(" kB").parse()?;
    Ok(value)
}

/// User and system time of a process.
pub(crate) fn processor_seconds(pid: i32) -> Result<f64> {
    // In nanoseconds, the first field: finer than the ticks of /proc/PID/stat. It is of one
    // thread, so those of all threads are added.
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().unwrap_or("0").parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
