//! Kiln's gateway beside Debian's haproxy and nginx: the same backend, the same clients, turn by
//! turn.
//!
//! The backend is an nginx that answers 200 with a few bytes. All proxies have one thread, on the
//! first processor; backend and clients (`wrk`, `h2load`) have the others. Since those may be
//! what bounds the rate, each figure has beside it how many requests a second of the proxy's
//! processor time is good for.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_gateway::{Gateway, ensure_running};
use kiln_model::certificate::{Certificate, CertificatePair, Key};
use kiln_model::handling::Handling;
use kiln_model::route::{Backend, EndpointRoute, Protocol, RouteTable, Rule};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::figures::{Figures, Table, digits};

/// Turns of each measurement.
const TURNS: usize = 3;

/// How long one measurement lasts, seconds.
const SECONDS: u32 = 5;

/// Clients' connections.
const CONNECTIONS: u32 = 64;

/// Idle connections whose memory is measured.
const IDLE: usize = 2000;

/// Connections for which a peer is made ready under load.
const MANY: usize = 8192;

/// Connections for which a peer is made ready whose memory without them is measured.
const FEW: usize = 64;

/// Rules of the table that is swapped.
const RULES: usize = 1000;

/// The programs that are needed beside Kiln.
const PROGRAMS: [&str; 5] = ["haproxy", "nginx", "wrk", "h2load", "openssl"];

/// One proxy, with an address for each way of speaking to it.
struct Proxy {
    name: &'static str,
    pid: u32,
    http: SocketAddr,
    /// For HTTP/2 in the clear: nginx wants an address of its own for it.
    http2: SocketAddr,
    tls: SocketAddr,
    tcp: SocketAddr,
}

/// Prints the tables.
pub(crate) fn bench(kiln: &Path) -> Result {
    if !rustix::process::geteuid().is_root() {
        println!("\ngateway: must be run as root: not run");
        return Ok(());
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|program| which(program).is_none()).collect();
    if !missing.is_empty() {
        println!("\ngateway: {missing:?} not on the PATH: not run");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let others: Vec<usize> = (1..std::thread::available_parallelism()?.get()).collect();
    if others.is_empty() {
        println!("\ngateway: needs two processors: not run");
        return Ok(());
    }
    let site = on_processors(&others, || Site::start(kiln, directory.path()))??;
    let measured = on_processors(&others, || site.measure())?;
    site.retire();
    measured
}

pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())?;
    Some(found)
}

/// Does something, and starts processes, on these processors alone.
fn on_processors<T>(processors: &[usize], work: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    for processor in processors {
        only.set(*processor);
    }
    sched_setaffinity(None, &only)?;
    let done = work();
    sched_setaffinity(None, &before)?;
    Ok(done)
}

pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The backend, the proxies, and where their files are.
struct Site {
    gateway: Gateway,
    table: RouteTable,
    proxies: Vec<Proxy>,
    children: Vec<Child>,
    backend: SocketAddr,
    directory: PathBuf,
    /// Where the namespace of this process is pinned.
    pinned: PathBuf,
}

impl Site {
    fn start(kiln: &Path, directory: &Path) -> Result<Self> {
        make_certificate(directory)?;
        let backend = free_port()?;
        let mut children = vec![backend_nginx(directory, backend)?];
        let (nginx, child) = on_processors(&[0], || nginx(directory, backend, MANY))??;
        children.push(child);
        let (haproxy, child) = on_processors(&[0], || haproxy(directory, backend, MANY))??;
        children.push(child);
        let root = directory.join("root");
        let pinned = pin_own_namespace(&root)?;
        let gateway = on_processors(&[0], || ensure_running(&root, kiln))??;
        let table = table(backend, directory, 1);
        let bound = gateway.set_table(table.clone())?.bound;
        let pid = gateway.status()?.pid;
        let at = |index: usize| bound[index].address;
        let own = Proxy { name: "kiln", pid, http: at(0), http2: at(0), tls: at(2), tcp: at(1) };
        let (proxies, directory) = (vec![own, haproxy, nginx], directory.to_owned());
        Ok(Self { gateway, table, proxies, children, backend, directory, pinned })
    }

    fn measure(&self) -> Result {
        // First: what a load has once needed is kept by the allocator, and hides what comes.
        self.idle()?;
        self.throughput()?;
        self.swap()
    }

    fn throughput(&self) -> Result {
        let title = format!(
            "Through the gateway, one thread each, {CONNECTIONS} connections, {SECONDS} s: \
             requests/s, 99th percentile, requests per second of processor time"
        );
        let mut table = Table::new(&title, &["what", "kiln", "haproxy", "nginx"]);
        let ways: [(&str, Ask); 5] = [
            ("HTTP/1.1, kept alive", |p| wrk(&format!("http://{}/", p.http))),
            ("HTTP/2, 8 streams each", |p| h2load(&format!("http://{}/", p.http2))),
            ("TLS, HTTP/1.1", |p| wrk(&format!("https://{}/", p.tls))),
            ("TLS, HTTP/2", |p| h2load(&format!("https://{}/", p.tls))),
            ("TCP", |p| wrk(&format!("http://{}/", p.tcp))),
        ];
        for (what, ask) in ways {
            let mut taken: Vec<Vec<Load>> = self.proxies.iter().map(|_| Vec::new()).collect();
            for _ in 0..TURNS {
                for (proxy, taken) in self.proxies.iter().zip(&mut taken) {
                    eprintln!("gateway: {what}, {}", proxy.name);
                    taken.push(measured(proxy, ask)?);
                }
            }
            let mut cells = vec![what.to_owned()];
            cells.extend(taken.iter().map(|loads| shown(loads)));
            table.row(&cells);
        }
        table.print();
        Ok(())
    }

    /// Each proxy is measured anew, by the difference between none and all of the connections.
    /// haproxy and nginx take memory for connections when they start, as many as they are told:
    /// so each is started for few, and once more for as many as come.
    fn idle(&self) -> Result {
        let title = format!("Memory of {IDLE} idle kept connections, KiB for each 1,000");
        let mut table = Table::new(&title, &["what", "kiln", "haproxy", "nginx"]);
        let own = &self.proxies[0];
        let (without, with) = (memory_after(own, 1)?, memory_after(own, IDLE)?);
        let mut grown = vec![with - without];
        let peers: [Start; 2] = [haproxy, nginx];
        for start in peers {
            let mut memory = [0.0; 2];
            for (memory, (room, held)) in memory.iter_mut().zip([(FEW, 1), (IDLE + FEW, IDLE)]) {
                let (proxy, mut child) =
                    on_processors(&[0], || start(&self.directory, self.backend, room))??;
                let measured = memory_after(&proxy, held);
                end(&mut child);
                *memory = measured?;
            }
            grown.push(memory[1] - memory[0]);
        }
        let thousands = f64::from(u32::try_from(IDLE)?) / 1000.0;
        let mut cells = vec!["HTTP/1.1, after one request each".to_owned()];
        cells.extend(grown.into_iter().map(|kib| digits(kib / thousands)));
        table.row(&cells);
        table.print();
        Ok(())
    }

    /// Swaps a table with many rules while requests run.
    fn swap(&self) -> Result {
        let mut epoch = self.table.epoch;
        let mut offered = self.table.clone();
        let backends = offered.endpoints[0].backends.clone();
        offered.endpoints[0].rules = (0..RULES)
            .map(|n| Rule {
                host: Some(format!("host-{n}.example")),
                path: String::new(),
                to: offered.endpoints[0].to.clone(),
                backends: backends.clone(),
                sleeps: false,
            })
            .collect();
        let quiet = measured(&self.proxies[0], |p| wrk(&format!("http://{}/", p.http)))?;
        let url = format!("http://{}/", self.proxies[0].http);
        let load = std::thread::spawn(move || wrk(&url).map_err(|error| error.to_string()));
        let (mut times, until) = (Vec::new(), Instant::now() + Duration::from_secs(4));
        while Instant::now() < until {
            epoch += 1;
            offered.epoch = epoch;
            let next = offered.clone();
            let begun = Instant::now();
            self.gateway.set_table(next)?;
            times.push(begun.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
        let swapped = load.join().map_err(|_| "the load panicked")??;
        let title = format!("A table of {RULES} routes exchanged every 50 ms under load");
        let mut table = Table::new(&title, &["what", "figure"]);
        let times = Figures::of_times(times);
        table.row(&["one exchange, from the request to its answer".to_owned(), times.seconds()]);
        let loads = |l: &Load| format!("{} /s, 99 %: {}", digits(l.per_second), ms(l.p99));
        table.row(&["requests without exchanges".to_owned(), loads(&quiet)]);
        table.row(&["requests with exchanges".to_owned(), loads(&swapped)]);
        table.row(&["failed requests".to_owned(), swapped.failed.to_string()]);
        table.print();
        Ok(())
    }

    /// Ends everything that was started.
    fn retire(mut self) {
        let empty = RouteTable {
            epoch: u64::MAX,
            endpoints: Vec::new(),
            networks: Vec::new(),
            splits: Vec::new(),
            ..self.table
        };
        if let Err(error) = self.gateway.set_table(empty) {
            eprintln!("gateway: {error}");
        }
        self.children.iter_mut().for_each(end);
        let _ = Command::new("umount").arg(&self.pinned).status();
    }
}

/// Ends a program and waits until it is gone.
pub(crate) fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = child.wait();
}

/// Starts a peer before a backend, for so many connections; its files are in the directory.
type Start = fn(&Path, SocketAddr, usize) -> Result<(Proxy, Child)>;

/// One measurement of a proxy.
type Ask = fn(&Proxy) -> Result<Load>;

/// What a client has measured.
#[derive(Default)]
struct Load {
    per_second: f64,
    p99: Duration,
    failed: u64,
    /// Requests for each second of the proxy's processor time.
    per_processor_second: f64,
}

fn measured(proxy: &Proxy, ask: Ask) -> Result<Load> {
    let (before, begun) = (processor_seconds(proxy.pid)?, Instant::now());
    let mut load = ask(proxy)?;
    let used = processor_seconds(proxy.pid)? - before;
    load.per_processor_second = load.per_second * begun.elapsed().as_secs_f64() / used;
    Ok(load)
}

fn shown(loads: &[Load]) -> String {
    let middle = |of: fn(&Load) -> f64| Figures::new(loads.iter().map(of)).median();
    let failed: u64 = loads.iter().map(|load| load.failed).sum();
    let p99 = Duration::from_secs_f64(middle(|load| load.p99.as_secs_f64()));
    let mut text = format!(
        "{} /s, {}, {} /core·s",
        digits(middle(|load| load.per_second)),
        ms(p99),
        digits(middle(|load| load.per_processor_second)),
    );
    if failed > 0 {
        let _ = write!(text, ", {failed} failed");
    }
    text
}

fn ms(time: Duration) -> String {
    format!("{} ms", digits(time.as_secs_f64() * 1e3))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The word after `name` in a program's output.
fn word<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.split_once(name)?.1.split_whitespace().next()
}

fn wrk(url: &str) -> Result<Load> {
    let text = output(Command::new("wrk").args(["-t1", "--latency"]).args([
        format!("-c{CONNECTIONS}"),
        format!("-d{SECONDS}s"),
        url.to_owned(),
    ]))?;
    let failed = text.lines().filter(|l| l.contains("Non-2xx") || l.contains("Socket errors"));
    let numbers =
        failed.flat_map(|line| line.split([' ', ',']).filter_map(|w| w.parse::<u64>().ok()));
    Ok(Load {
        per_second: word(&text, "Requests/sec:").ok_or("wrk says no rate")?.parse()?,
        p99: time(word(&text, "99%").ok_or("wrk says no percentile")?)?,
        failed: numbers.sum(),
        per_processor_second: 0.0,
    })
}

/// h2load prints no percentile, so each request's time is written to a file.
fn h2load(url: &str) -> Result<Load> {
    let log = tempfile::NamedTempFile::new()?;
    let text = output(
        Command::new("h2load")
            .args(["-t1", "-m8", "--warm-up-time=1"])
            .args([format!("-c{CONNECTIONS}"), format!("-D{SECONDS}")])
            .arg(format!("--log-file={}", log.path().display()))
            .arg(url),
    )?;
    let times = fs::read_to_string(log.path())?;
    let micros = times.lines().filter_map(|line| line.split('\t').nth(2)?.parse::<f64>().ok());
    let mut micros: Vec<f64> = micros.collect();
    micros.sort_by(f64::total_cmp);
    let p99 = micros.get(micros.len() * 99 / 100).copied().unwrap_or(0.0);
    let rate = word(&text, "finished in").and(text.split_once("s, ")).map(|(_, rest)| rest);
    let rate = rate.and_then(|rest| rest.split(' ').next()).ok_or("h2load says no rate")?;
    let failed = text.split_once(" done, ").map(|(_, rest)| rest);
    let failed = failed.and_then(|rest| rest.split(", ").nth(1)?.split(' ').next()?.parse().ok());
    Ok(Load {
        per_second: rate.parse()?,
        p99: Duration::from_secs_f64(p99 / 1e6),
        failed: failed.unwrap_or(0),
        per_processor_second: 0.0,
    })
}

/// `1.23ms`, `456.00us`, `1.02s`.
fn time(text: &str) -> Result<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let value: f64 = text[..text.len() - unit.len()].parse()?;
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        _ => 1.0,
    };
    Ok(Duration::from_secs_f64(value * scale))
}

/// A connection that has asked once and stays.
fn ask_once(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let mut buffer = [0; 1024];
    if stream.read(&mut buffer)? == 0 {
        return Err("the proxy closed a connection".into());
    }
    Ok(stream)
}

/// The memory of a proxy that holds so many connections, each of which has asked once.
fn memory_after(proxy: &Proxy, held: usize) -> Result<f64> {
    let held: Result<Vec<_>> = (0..held).map(|_| ask_once(proxy.http)).collect();
    std::thread::sleep(Duration::from_millis(500));
    let memory = memory_kib(proxy.pid);
    drop(held?);
    memory
}

/// Memory of a process and its children, which is where nginx and haproxy do their work.
fn memory_kib(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for pid in family(pid)? {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let value = line.ok_or("smaps_rollup has no Pss")?.trim().trim_end_matches(" kB");
        sum += value.parse::<f64>()?;
    }
    Ok(sum)
}

fn processor_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for pid in family(pid)? {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().unwrap_or("0").parse::<f64>()?;
        }
    }
    Ok(nanoseconds / 1e9)
}

fn family(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let children =
        children.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>();
    let mut all: Vec<u32> = children?;
    all.push(pid);
    Ok(all)
}

fn make_certificate(directory: &Path) -> Result {
    output(Command::new("openssl").current_dir(directory).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]))?;
    let both = [fs::read(directory.join("cert.pem"))?, fs::read(directory.join("key.pem"))?];
    fs::write(directory.join("pair.pem"), both.concat())?;
    Ok(())
}

fn spawn(command: &mut Command, ready: &[SocketAddr]) -> Result<Child> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let until = Instant::now() + Duration::from_secs(5);
    while !ready.iter().all(|address| TcpStream::connect(address).is_ok()) {
        if Instant::now() > until {
            return Err(format!("{command:?} does not listen").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}

fn run_nginx(
    directory: &Path,
    name: &str,
    room: usize,
    http: &str,
    ready: &[SocketAddr],
) -> Result<Child> {
    let file = directory.join(format!("{name}.conf"));
    let text = format!(
        "daemon off; master_process on; worker_processes 1; pid {0}/{name}.pid; \
         error_log /dev/null; {1}\n\
         events {{ worker_connections {room}; }}\n{http}",
        directory.display(),
        modules(),
    );
    fs::write(&file, text)?;
    let program = which("nginx").ok_or("no nginx")?;
    spawn(Command::new(program).arg("-c").arg(&file).stderr(Stdio::null()), ready)
}

/// Debian has the proxy of bytes as a module of its own.
fn modules() -> &'static str {
    if stream_module() { "load_module /usr/lib/nginx/modules/ngx_stream_module.so;" } else { "" }
}

fn stream_module() -> bool {
    Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists()
}

fn backend_nginx(directory: &Path, at: SocketAddr) -> Result<Child> {
    let http = format!(
        "http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h; \
         server {{ listen {at} backlog=4096; location / {{ return 200 'hello from behind'; }} }} }}"
    );
    run_nginx(directory, "backend", MANY, &http, &[at])
}

fn nginx(directory: &Path, backend: SocketAddr, room: usize) -> Result<(Proxy, Child)> {
    let [http, http2, tls, tcp] = [free_port()?, free_port()?, free_port()?, free_port()?];
    let pair = directory.join("pair.pem");
    let pair = pair.display();
    let mut text = format!(
        "http {{ access_log off; keepalive_requests 100000000; http2_max_concurrent_streams 256; \
         upstream b {{ server {backend}; keepalive 256; keepalive_requests 100000000; }} \
         server {{ listen {http} backlog=4096; listen {http2} http2 backlog=4096; listen {tls} ssl http2 backlog=4096; \
         ssl_certificate {pair}; ssl_certificate_key {pair}; \
         location / {{ proxy_pass http://b; proxy_http_version 1.1; \
         proxy_set_header Connection ''; proxy_set_header Host $host; \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }} }}\n"
    );
    let mut ready = vec![http, http2, tls];
    if stream_module() {
        let _ = writeln!(
            text,
            "stream {{ server {{ listen {tcp} backlog=4096; proxy_pass {backend}; }} }}"
        );
        ready.push(tcp);
    }
    let child = run_nginx(directory, "proxy", room, &text, &ready)?;
    Ok((Proxy { name: "nginx", pid: child.id(), http, http2, tls, tcp }, child))
}

fn haproxy(directory: &Path, backend: SocketAddr, room: usize) -> Result<(Proxy, Child)> {
    let [http, tls, tcp] = [free_port()?, free_port()?, free_port()?];
    let file = directory.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn {room}\n  nbthread 1\n\
         defaults\n  timeout connect 2s\n  timeout client 75s\n  timeout server 120s\n\
         frontend web\n  mode http\n  option forwardfor\n  bind {http}\n  \
         bind {tls} ssl crt {} alpn h2,http/1.1\n  default_backend b\n\
         backend b\n  mode http\n  http-reuse always\n  balance leastconn\n  server one {backend}\n\
         frontend bytes\n  mode tcp\n  bind {tcp}\n  default_backend c\n\
         backend c\n  mode tcp\n  server one {backend}\n",
        directory.join("pair.pem").display()
    );
    fs::write(&file, text)?;
    let program = which("haproxy").ok_or("no haproxy")?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&file).stderr(Stdio::null());
    let child = spawn(&mut command, &[http, tls, tcp])?;
    Ok((Proxy { name: "haproxy", pid: child.id(), http, http2: http, tls, tcp }, child))
}

/// The gateway reaches instances from pinned namespaces; here that of this process.
fn pin_own_namespace(root: &Path) -> Result<PathBuf> {
    let directory = root.join("run/net");
    fs::create_dir_all(&directory)?;
    let pinned = directory.join("host-1");
    fs::write(&pinned, "")?;
    output(Command::new("mount").args(["--bind", "/proc/self/ns/net"]).arg(&pinned))?;
    Ok(pinned)
}

fn table(backend: SocketAddr, directory: &Path, epoch: u64) -> RouteTable {
    let backend = Backend {
        instance: "web-1".parse().expect("a name"),
        network: "host-1".parse().expect("a name"),
        address: backend.to_string().parse().expect("an IPv4 address"),
        weight: 100,
    };
    let path = |name: &str| directory.join(name).display().to_string();
    let pair = CertificatePair { certificate: path("cert.pem"), key: Key::File(path("key.pem")) };
    let files = Certificate::from(pair);
    let endpoint = |name: &str, protocol, tls: &[Certificate]| EndpointRoute {
        component: format!("endpoint.{name}").parse().expect("an id"),
        listen: ([127, 0, 0, 1], 0).into(),
        protocol,
        to: "server.web".parse().expect("an id"),
        backends: vec![backend.clone()],
        sleeps: false,
        rules: Vec::new(),
        handling: Handling { tls: tls.to_vec(), ..Handling::default() },
    };
    RouteTable {
        databases: Vec::new(),
        stack: "bench".parse().expect("a name"),
        epoch,
        endpoints: vec![
            endpoint("a", Protocol::Http, &[]),
            endpoint("b", Protocol::Tcp, &[]),
            endpoint("c", Protocol::Http, &[files]),
        ],
        networks: Vec::new(),
        splits: Vec::new(),
    }
}
