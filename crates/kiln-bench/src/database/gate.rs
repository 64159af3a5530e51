//! pgbench through Kiln's gate, through `PgBouncer`, and directly, at one instance.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::figures::{Figures, Table, digits};
use crate::gateway::{end, free_port};
use crate::idle::processor_seconds;

use super::own::Own;
use super::{BIN, System as _, eventually};

/// Turns of each measurement.
const TURNS: usize = 3;
/// How long one lasts, seconds.
const SECONDS: u32 = 5;
/// Clients of each.
const CLIENTS: u32 = 8;
/// `pgbench_accounts` has so many times 100,000 rows.
const SCALE: u32 = 10;

/// One way to the instance.
struct Way {
    name: &'static str,
    parameters: String,
    /// The process in between.
    proxy: Option<i32>,
}

/// What was measured of one way.
#[derive(Default)]
struct Taken {
    per_second: Vec<f64>,
    /// Microseconds of the proxy's processor time, for each transaction.
    processor: Vec<f64>,
}

/// Prints the table.
pub(super) fn bench(own: &Own, directory: &Path) -> Result {
    let socket = own.socket()?;
    let bouncer = Bouncer::start(&socket, directory)?;
    let direct = format!("host={} user=bench dbname=bench", socket.display());
    let (gateway, through) = (own.process("gateway")?, bouncer.child.id());
    let ways = [
        Way { name: "direct", parameters: direct, proxy: None },
        Way { name: "Kiln's gate", parameters: own.parameters(), proxy: Some(gateway) },
        Way {
            name: "PgBouncer",
            parameters: bouncer.parameters(),
            proxy: Some(i32::try_from(through)?),
        },
    ];
    eprintln!("database: filling the tables of pgbench");
    pgbench(&ways[0], &["--initialize", "--quiet", "--scale", &SCALE.to_string()])?;
    let title = format!(
        "pgbench, scale {SCALE}, {CLIENTS} clients, {SECONDS} s: transactions a second, and in brackets \
         processor time of the proxy for each"
    );
    let heads = [
        "what",
        "direct (unix socket)",
        "Kiln's gate",
        "PgBouncer 1.18, session pooling",
        "gate beside direct",
        "gate beside PgBouncer",
    ];
    let mut table = Table::new(&title, &heads);
    for (what, builtin, mode) in [
        ("select-only, prepared", "select-only", "prepared"),
        ("select-only, simple", "select-only", "simple"),
        ("tpcb-like, prepared", "tpcb-like", "prepared"),
        ("tpcb-like, simple", "tpcb-like", "simple"),
    ] {
        let mut taken =
            [const { Vec::new() }; 3].map(|per_second| Taken { per_second, processor: Vec::new() });
        for _ in 0..TURNS {
            for (way, taken) in ways.iter().zip(&mut taken) {
                eprintln!("database: {what}, {}", way.name);
                measure(way, builtin, mode, taken)?;
            }
        }
        let figures = taken.map(|it| (Figures::new(it.per_second), Figures::new(it.processor)));
        let [direct, gate, bouncer] = &figures;
        let ratio = |peer: &Figures| digits(gate.0.median() / peer.median());
        let mut cells = vec![what.to_owned(), digits(direct.0.median())];
        for (per_second, processor) in [gate, bouncer] {
            let (tps, micros) = (digits(per_second.median()), digits(processor.median()));
            cells.push(format!("{tps} ({micros} µs)"));
        }
        cells.extend([ratio(&direct.0), ratio(&bouncer.0)]);
        table.row(&cells);
    }
    table.print();
    Ok(())
}

fn measure(way: &Way, builtin: &str, mode: &str, taken: &mut Taken) -> Result {
    let before = way.proxy.map(processor_seconds).transpose()?;
    let (clients, seconds) = (CLIENTS.to_string(), SECONDS.to_string());
    let arguments = ["-b", builtin, "-M", mode, "-c", &clients, "-T", &seconds, "--no-vacuum"];
    let said = pgbench(way, &arguments)?;
    let after = way.proxy.map(processor_seconds).transpose()?;
    let figure = |line: &str| -> Result<f64> {
        let found = said.lines().find_map(|it| it.strip_prefix(line));
        let figure = found.and_then(|rest| rest.split_whitespace().next());
        Ok(figure.ok_or_else(|| format!("pgbench does not say {line:?}: {said}"))?.parse()?)
    };
    let count = figure("number of transactions actually processed: ")?;
    taken.per_second.push(figure("tps = ")?);
    if let (Some(before), Some(after)) = (before, after) {
        taken.processor.push((after - before) * 1e6 / count);
    }
    Ok(())
}

fn pgbench(way: &Way, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(Path::new(BIN).join("pgbench"));
    let output = command.args(arguments).arg(&way.parameters).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && !said.contains("failed transactions: 1") {
        return Ok(said);
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("pgbench through {}: {said}{errors}", way.name).into())
}

/// `PgBouncer` before an instance.
struct Bouncer {
    child: Child,
    port: u16,
    /// Where the instance's socket is mounted, since only root gets to it otherwise.
    mounted: PathBuf,
}

impl Bouncer {
    fn start(socket: &Path, directory: &Path) -> Result<Self> {
        let place = directory.join("pgbouncer");
        let mounted = place.join("socket");
        fs::create_dir_all(&mounted)?;
        for path in [directory, &place] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        run(Command::new("mount").arg("--bind").arg(socket).arg(&mounted))?;
        let port = free_port()?.port();
        fs::write(place.join("users"), "\"bench\" \"opensesame\"\n")?;
        let configuration = format!(
            "[databases]\nbench = host={} user=bench dbname=bench\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = session\n\
             default_pool_size = 50\nlog_connections = 0\nlog_disconnections = 0\n",
            mounted.display(),
            place.join("users").display(),
        );
        let file = place.join("pgbouncer.ini");
        fs::write(&file, configuration)?;
        let log = fs::File::create(place.join("log"))?;
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg("-u").arg("postgres").arg(&file).stdout(Stdio::null()).stderr(log);
        let bouncer = Self { child: command.spawn()?, port, mounted };
        eventually("PgBouncer listens", || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(bouncer)
    }

    fn parameters(&self) -> String {
        let port = self.port;
        format!("host=127.0.0.1 port={port} user=bench dbname=bench password=opensesame")
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        end(&mut self.child);
        if let Err(error) = run(Command::new("umount").arg(&self.mounted)) {
            eprintln!("database: {error}");
        }
    }
}

pub(super) fn run(command: &mut Command) -> Result {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}
