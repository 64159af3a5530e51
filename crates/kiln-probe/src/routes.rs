//! What each path answers.
//!
//! | path | answer |
//! |-|-|
//! | `/` | the body given, else the host name |
//! | `/healthz` | `ok`, or 503 when started with `--unhealthy` or turned off |
//! | `/livez` | `ok`, or 503 when turned off |
//! | `/turn?what=ready\|live&to=on\|off` | the host name; from then on `/healthz` (and gRPC) or `/livez` answers so |
//! | `/env`, `/mounts`, `/status` | environment, `/proc/self/mounts`, `/proc/self/status` |
//! | `/id` | the host name |
//! | `/read?path=P` | the file's content, or 502 and the error |
//! | `/write?path=P[&bytes=N]` | `ok` or the error's name |
//! | `/connect?addr=IP:PORT` | `open`, `refused`, `timeout` or the error's name |
//! | `/resolve?name=N` | addresses, a line each, or why there are none |
//! | `/get?url=http://HOST[:PORT]/…` | the body, or 502 and why not |
//! | `/syscall?name=N` | `ok`, the error's name, or `killed by signal S` |
//! | `/breakouts` | for every way out that is known, a line: its name, a tab, what came of it |
//! | `/fork?n=N` | how many processes could be there at once, and what refused more |
//! | `/eat?mb=N` | `ok`, once so much more memory is in use; it stays so |
//! | `/spin?ms=N` | `ok` at once; one thread then works for so long |
//! | `/leak?mb=N&every=MS` | the host name; from then on so much more memory is in use every MS |
//! | `/slow?ms=N` | `at last`, so much later |
//! | `/download?bytes=N&ms=N` | so many bytes over so long: each its place modulo 251 |
//! | `/echo` | a WebSocket that sends messages back |
//! | `/exit?code=N` | nothing: the process exits |
//! | `/crash` | nothing: the process reads where nothing is |

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::arguments::Serve;
use crate::health::{LIVE, READY};
use crate::http::{Answer, Request};
use crate::{attempts, client, dns, syscalls};

/// Answers a request.
pub(crate) fn answer(request: &Request, options: &Serve) -> Answer {
    match request.path.as_str() {
        "/" => home(options),
        "/healthz" if options.unhealthy => Answer::failed(503, "unhealthy"),
        "/healthz" => health(&READY),
        "/livez" => health(&LIVE),
        "/turn" => with(request, "what", |what| {
            let to = request.parameter("to") == Some("on");
            if what == "live" { &LIVE } else { &READY }.store(to, Ordering::Relaxed);
            Answer::ok(attempts::host_name())
        }),
        "/env" => Answer::ok(environment()),
        "/id" => Answer::ok(attempts::host_name()),
        "/mounts" => file("/proc/self/mounts"),
        "/status" => file("/proc/self/status"),
        "/read" => with(request, "path", file),
        "/write" => with(request, "path", |path| {
            Answer::ok(attempts::write(path, number(request, "bytes").unwrap_or(1)))
        }),
        "/connect" => with(request, "addr", |address| Answer::ok(client::connect(address))),
        "/resolve" => with(request, "name", |name| Answer::ok(resolve(name))),
        "/get" => with(request, "url", |url| match client::get(url) {
            Ok(body) => Answer::ok(body),
            Err(error) => Answer::failed(502, error.to_string()),
        }),
        "/syscall" => with(request, "name", |name| match syscalls::attempt(name) {
            Some(outcome) => Answer::ok(outcome),
            None => Answer::failed(400, format!("unknown system call {name}")),
        }),
        // In a process with one thread, which each attempt can leave behind.
        "/breakouts" => {
            match std::process::Command::new("/proc/self/exe").arg("breakouts").output() {
                Ok(output) => Answer::ok(String::from_utf8_lossy(&output.stdout).into_owned()),
                Err(error) => Answer::failed(502, error.to_string()),
            }
        }
        "/fork" => Answer::ok(attempts::fork(number(request, "n").unwrap_or(1))),
        "/eat" => Answer::ok(attempts::eat(number(request, "mb").unwrap_or(1))),
        "/spin" => Answer::ok(attempts::spin(number(request, "ms").unwrap_or(10_000))),
        "/leak" => {
            let every = number(request, "every").unwrap_or(20);
            attempts::leak(number(request, "mb").unwrap_or(1), every);
            Answer::ok(attempts::host_name())
        }
        "/crash" => attempts::crash(),
        "/slow" => {
            let pause = number(request, "ms").unwrap_or(1000).min(60_000);
            std::thread::sleep(std::time::Duration::from_millis(pause));
            Answer::ok("at last")
        }
        "/exit" => {
            let code = number(request, "code").and_then(|code| i32::try_from(code).ok());
            std::process::exit(code.unwrap_or(0))
        }
        _ => Answer::failed(404, "no such path"),
    }
}

/// The page: as often as it was told to, a failure.
fn home(options: &Serve) -> Answer {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    if options.leaks > 0 {
        attempts::hoard(options.leaks);
    }
    // Spread evenly: of any hundred in a row, so many.
    if (asked * options.fails) % 100 + options.fails >= 100 {
        return Answer::failed(500, "failed, as it was told to");
    }
    Answer::ok(options.body.clone().unwrap_or_else(attempts::host_name))
}

fn health(flag: &AtomicBool) -> Answer {
    if flag.load(Ordering::Relaxed) { Answer::ok("ok") } else { Answer::failed(503, "turned off") }
}

fn with(request: &Request, parameter: &str, answer: impl FnOnce(&str) -> Answer) -> Answer {
    match request.parameter(parameter) {
        Some(value) => answer(value),
        None => Answer::failed(400, format!("the parameter {parameter} is missing")),
    }
}

fn number(request: &Request, parameter: &str) -> Option<u64> {
    request.parameter(parameter)?.parse().ok()
}

fn environment() -> String {
    let lines = std::env::vars_os();
    let mut lines: Vec<_> =
        lines.map(|(name, value)| format!("{}={}\n", name.display(), value.display())).collect();
    lines.sort();
    lines.concat()
}

fn file(path: &str) -> Answer {
    match fs::read_to_string(path) {
        Ok(text) => Answer::ok(text),
        Err(error) => Answer::failed(502, format!("{path}: {error}")),
    }
}

fn resolve(name: &str) -> String {
    match dns::resolve(name) {
        Ok(addresses) => {
            addresses.iter().fold(String::new(), |text, address| text + &format!("{address}\n"))
        }
        Err(error) => error.to_string(),
    }
}
