//! `health` of a server: one check for all, or startup, readiness and liveness apart.

use kiln_model::quantity::Millis;
use kiln_model::spec::server::{Health, Liveness, LogLine, Probe, Startup};

use super::probe::{http_path, http_status, missing};
use super::server::LONGEST;
use crate::diagnostic::Diagnostic;
use crate::stack::decode::{Field, Settings};

/// The ways in which a check can ask.
const WAYS: [&str; 5] = ["http", "tcp", "grpc", "log", "running"];
/// Probes closer to each other would be nothing but load.
const CLOSEST: Millis = Millis(10);
const SHORTEST: Millis = Millis(1);
/// How long an instance may be unready where liveness is asked apart and nothing else is said.
const REPLACE_AFTER: Millis = Millis::seconds(60);
/// Thresholds beyond this would not be noticed as such.
const MAX_IN_A_ROW: u32 = 1000;
/// Bytes of a text or pattern that is looked for in each line.
const MAX_LINE: usize = 1024;

/// What holds where nothing is said.
pub(super) fn default() -> Health {
    Health {
        probe: Probe::Running { after: Millis(250) },
        every: Millis::seconds(1),
        timeout: Millis(500),
        failures: 3,
        successes: 1,
        startup: None,
        liveness: None,
        replace_after: None,
    }
}

pub(super) fn health(field: &Field<'_>) -> Option<Health> {
    let settings = field.settings(&[
        "http",
        "tcp",
        "grpc",
        "log",
        "running",
        "every",
        "timeout",
        "failures",
        "successes",
        "startup",
        "liveness",
        "replace_after",
    ])?;
    let default = default();
    let probe = probe(field, &settings).map(|probe| probe.unwrap_or(default.probe));
    let every = every(&settings, default.every);
    let timeout = timeout(&settings, default.timeout);
    let failures = in_a_row(&settings, "failures", default.failures);
    let successes = in_a_row(&settings, "successes", default.successes);
    let startup = settings.read_or("startup", None, |f| startup(f, timeout?).map(Some));
    let liveness = settings.read_or("liveness", None, |f| {
        liveness(f, probe.as_ref()?, every?, timeout?, failures?).map(Some)
    });
    let usual = settings.get("liveness").map(|_| REPLACE_AFTER);
    let bounds = Millis(0)..=LONGEST;
    let replace_after = settings.read_or("replace_after", usual, |f| f.millis(bounds).map(Some));
    Some(Health {
        every: every?,
        timeout: timeout?,
        failures: failures?,
        successes: successes?,
        startup: startup?,
        liveness: liveness?,
        replace_after: replace_after?,
        probe: probe?,
    })
}

fn startup(field: &Field<'_>, timeout_before: Millis) -> Option<Startup> {
    let settings =
        field.settings(&["http", "tcp", "grpc", "log", "running", "timeout", "deadline"])?;
    let probe = match probe(field, &settings)? {
        Some(probe) => Some(probe),
        None => one_of(field, &WAYS),
    };
    let timeout = timeout(&settings, timeout_before);
    let deadline = settings.read_or("deadline", None, |f| f.millis(CLOSEST..=LONGEST).map(Some));
    Some(Startup { probe: probe?, timeout: timeout?, deadline: deadline? })
}

/// Where it does not say how, liveness asks what readiness asks.
fn liveness(
    field: &Field<'_>,
    readiness: &Probe,
    every_before: Millis,
    timeout_before: Millis,
    failures_before: u32,
) -> Option<Liveness> {
    let settings = field
        .settings(&["http", "tcp", "grpc", "log", "running", "every", "timeout", "failures"])?;
    let own = probe(field, &settings)?;
    let probe = own.unwrap_or_else(|| readiness.clone());
    if !probe.can_fail_later() {
        let place = settings.set_of(&WAYS).first().copied().unwrap_or(field);
        let way = if matches!(probe, Probe::Log { .. }) { "log" } else { "running" };
        let diagnostic = Diagnostic::error(place.span(), "liveness needs something to ask")
            .with_label(format!("`{way}` stays as it is once it has come true"))
            .with_help("give `liveness` an `http`, `tcp` or `grpc` of its own");
        place.report(diagnostic);
        return None;
    }
    let every = every(&settings, every_before);
    let timeout = timeout(&settings, timeout_before);
    let failures = in_a_row(&settings, "failures", failures_before);
    Some(Liveness { probe, every: every?, timeout: timeout?, failures: failures? })
}

fn every(settings: &Settings<'_>, default: Millis) -> Option<Millis> {
    settings.read_or("every", default, |f| f.millis(CLOSEST..=LONGEST))
}

fn timeout(settings: &Settings<'_>, default: Millis) -> Option<Millis> {
    settings.read_or("timeout", default, |f| f.millis(SHORTEST..=LONGEST))
}

fn in_a_row(settings: &Settings<'_>, name: &str, default: u32) -> Option<u32> {
    settings.read_or(name, default, |f| f.integer(1..=MAX_IN_A_ROW))
}

/// In which way a check asks, if it says so.
#[expect(clippy::option_option, reason = "the outer one says whether it could be read")]
fn probe(field: &Field<'_>, settings: &Settings<'_>) -> Option<Option<Probe>> {
    let found = settings.set_of(&WAYS);
    let [first, second, ..] = found.as_slice() else {
        let Some(way) = found.first() else { return Some(None) };
        return read(way).map(Some);
    };
    let diagnostic = Diagnostic::error(second.span(), "a health check asks in one way")
        .with_label("a second way")
        .with_related(first.span(), "the first way");
    field.report(diagnostic);
    None
}

fn read(way: &Field<'_>) -> Option<Probe> {
    match way.path().rsplit('.').next() {
        Some("http") => http(way),
        Some("tcp") => {
            let settings = way.settings(&["port"])?;
            Some(Probe::Tcp { port: port(way, &settings)? })
        }
        Some("grpc") => {
            let settings = way.settings(&["port", "service"])?;
            let port = port(way, &settings);
            let service = settings.read_or("service", String::new(), service);
            Some(Probe::Grpc { port: port?, service: service? })
        }
        Some("log") => log_line(way).map(|line| Probe::Log { line }),
        _ => {
            let settings = way.settings(&["after"])?;
            let Some(after) = settings.get("after") else { return missing(way, "after") };
            after.millis(SHORTEST..=LONGEST).map(|after| Probe::Running { after })
        }
    }
}

pub(super) fn http(way: &Field<'_>) -> Option<Probe> {
    let settings = way.settings(&["port", "path", "status"])?;
    let port = port(way, &settings);
    let path = settings.read_or("path", "/".to_owned(), http_path);
    let status = settings.read_or("status", None, http_status);
    Some(Probe::Http { port: port?, path: path?, status: status? })
}

fn port(way: &Field<'_>, settings: &Settings<'_>) -> Option<u16> {
    settings.get("port").map_or_else(|| missing(way, "port"), Field::port)
}

/// The full name of a gRPC service; empty for the server as a whole.
fn service(field: &Field<'_>) -> Option<String> {
    let name = field.string()?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if plain && name.len() <= 255 {
        return Some(name);
    }
    field.refuse("the full name of a gRPC service, such as \"shop.v1.Orders\"")
}

fn log_line(way: &Field<'_>) -> Option<LogLine> {
    let settings = way.settings(&["contains", "matches"])?;
    match settings.set_of(&["contains", "matches"]).as_slice() {
        [] => one_of(way, &["contains", "matches"]),
        [_, second, ..] => {
            let diagnostic = Diagnostic::error(second.span(), "one line is waited for")
                .with_label("either a text that it contains or a pattern that it matches");
            second.report(diagnostic);
            None
        }
        [one] => {
            let text = one.string()?;
            if text.is_empty() || text.len() > MAX_LINE {
                return one.refuse(&format!("a text of 1 to {MAX_LINE} bytes"));
            }
            if settings.get("contains").is_some() {
                return Some(LogLine::Contains(text));
            }
            match regex::Regex::new(&text) {
                Ok(_) => Some(LogLine::Matches(text)),
                Err(error) => {
                    let cause = error.to_string();
                    let cause = cause.lines().last().unwrap_or_default().to_owned();
                    let refusal = one.refusal("a regular expression");
                    one.report(refusal.with_help(cause));
                    None
                }
            }
        }
    }
}

/// Reports that one of some settings must be there.
fn one_of<T>(field: &Field<'_>, names: &[&str]) -> Option<T> {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let (last, others) = names.split_last()?;
    let summary = format!("one of {} and {last} is missing", others.join(", "));
    field.report(Diagnostic::error(field.span(), summary).with_label("expected in here"));
    None
}
