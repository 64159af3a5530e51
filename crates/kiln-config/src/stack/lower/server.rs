//! `server` blocks.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::name::Kind;
use kiln_model::quantity::{Bytes, Millis};
use kiln_model::spec::scale::Scale;
use kiln_model::spec::server::{
    Connection, Health, Probe, Rollout, Server, ServerIdentity, ServerPolicy, Stop, Strategy,
};
use kiln_model::text::Text;

use super::Reader;
use super::paths::{absolute_path, writable};
use super::probe::{http_path, http_status, missing};
use super::scale;
use crate::diagnostic::{Diagnostic, nearest};
use crate::stack::decode::{Field, Settings};

/// Memory where nothing is said.
const DEFAULT_MEMORY: Bytes = Bytes::mib(256);
/// Processes and threads where nothing is said.
const DEFAULT_PIDS: u32 = 512;
const MIN_MEMORY: Bytes = Bytes::mib(1);
const MAX_MEMORY: Bytes = Bytes(1 << 50);
const MAX_PIDS: u32 = 1 << 22;
pub(super) const MAX_REPLICAS: u32 = 10_000;
const MAX_ARGS: usize = 10_000;
/// Longer deadlines would not be noticed as deadlines.
const LONGEST: Millis = Millis::seconds(7 * 86_400);

const SHORTEST: Millis = Millis(1);

/// The signals that a program may be asked to end with, by name.
const SIGNALS: &[(&str, i32)] = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGTERM", 15),
    ("SIGWINCH", 28),
];

pub(super) fn server(reader: &Reader<'_>) -> Option<Server> {
    let identity = identity(reader);
    let policy = policy(reader);
    Some(Server { identity: identity?, policy: policy? })
}

fn identity(reader: &Reader<'_>) -> Option<ServerIdentity> {
    let image = reader.required("image", |field| field.built_from(Kind::Image, "image.web"));
    let network =
        reader.required("network", |field| field.built_from(Kind::Network, "network.front"));
    let command = reader.read_or("command", None, |field| arguments(field, 1).map(Some));
    let args = reader.read_or("args", Vec::new(), |field| arguments(field, 0));
    let env = reader.read_or("env", BTreeMap::new(), environment);
    let workdir = reader.read_or("workdir", None, |field| absolute_path(field).map(Some));
    let user = reader.read_or("user", None, |field| super::image::user(field).map(Some));
    let memory = reader.read_or("memory", DEFAULT_MEMORY, |f| f.bytes(MIN_MEMORY..=MAX_MEMORY));
    let cpu = reader.read_or("cpu", None, |field| field.cpu().map(Some));
    let pids = reader.read_or("pids", DEFAULT_PIDS, |field| field.integer(1..=MAX_PIDS));
    let writable = reader.read_or("writable", BTreeMap::new(), writable);
    let connects = reader.read_or("connects", Vec::new(), |field| connects(reader, field));
    let stop = reader.read_or("stop", Stop::default(), stop);
    Some(ServerIdentity {
        image: image?,
        network: network?,
        command: command?,
        args: args?,
        env: env?,
        workdir: workdir?,
        user: user?,
        memory: memory?,
        cpu: cpu?,
        pids: pids?,
        writable: writable?,
        connects: connects?,
        stop: stop?,
    })
}

fn policy(reader: &Reader<'_>) -> Option<ServerPolicy> {
    let address = reader.own_address();
    let scale = reader.read_or("scale", None, |field| scale::scale(field).map(Some));
    let bounds = scale.as_ref().and_then(Option::as_ref);
    let usual = bounds.map_or(1, |scale| scale.clamp(1));
    let replicas = reader.read_or("replicas", usual, |field| replicas(field, bounds));
    let health = reader.read_or("health", default_health(), health);
    let rollout = reader.read_or("rollout", default_rollout(), rollout);
    Some(ServerPolicy {
        address: address?,
        replicas: replicas?,
        scale: scale?,
        health: health?,
        rollout: rollout?,
    })
}

/// How many instances there are; where that follows demand, to begin with.
fn replicas(field: &Field<'_>, scale: Option<&Scale>) -> Option<u32> {
    let count = field.integer(0..=MAX_REPLICAS)?;
    match scale {
        Some(scale) if scale.clamp(count) != count => {
            let (min, max) = (scale.min, scale.max);
            field.refuse(&format!("from {min} to {max}, as `scale` says"))
        }
        _ => Some(count),
    }
}

fn arguments(field: &Field<'_>, least: usize) -> Option<Vec<Text>> {
    let texts = field.texts()?;
    if texts.len() < least || texts.len() > MAX_ARGS {
        return field.refuse(&format!("a list of {least} to {MAX_ARGS} strings"));
    }
    Some(texts)
}

fn environment(field: &Field<'_>) -> Option<BTreeMap<String, Text>> {
    let env = field.text_map()?;
    super::image::check_environment_names(field, env.keys())?;
    Some(env)
}

fn connects(reader: &Reader<'_>, field: &Field<'_>) -> Option<Vec<Connection>> {
    let found = field.components(&[Kind::Server], "server.api")?;
    let mut connections = BTreeSet::new();
    let mut complete = true;
    for (to, span) in found {
        if to == *reader.id() {
            let diagnostic = Diagnostic::error(span, format!("{to} connects to itself"))
                .with_help("a server reaches its own ports at 127.0.0.1");
            field.report(diagnostic);
            complete = false;
            continue;
        }
        match reader.address_of(&to) {
            Some(address) => {
                reader.note_talk(&to, span);
                connections.insert(Connection { to, address });
            }
            None => complete = false,
        }
    }
    complete.then(|| connections.into_iter().collect())
}

fn stop(field: &Field<'_>) -> Option<Stop> {
    let settings = field.settings(&["signal", "grace"])?;
    let default = Stop::default();
    let signal = settings.read_or("signal", default.signal, signal);
    let longest = Millis::seconds(3600);
    let grace = settings.read_or("grace", default.grace, |f| f.millis(Millis(0)..=longest));
    Some(Stop { signal: signal?, grace: grace? })
}

fn signal(field: &Field<'_>) -> Option<i32> {
    let name = field.string()?;
    let full = if name.starts_with("SIG") { name.clone() } else { format!("SIG{name}") };
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == full) {
        return Some(*number);
    }
    let refusal = field.refusal("the name of a signal, such as \"SIGTERM\"");
    field.report(match nearest(&full, SIGNALS.iter().map(|(name, _)| *name)) {
        Some(near) => refusal.with_help(format!("did you mean {near:?}?")),
        None => refusal,
    });
    None
}

fn default_health() -> Health {
    Health {
        probe: Probe::Running { after: Millis(250) },
        every: Millis::seconds(1),
        timeout: Millis(500),
        failures: 3,
    }
}

fn health(field: &Field<'_>) -> Option<Health> {
    let settings = field.settings(&["http", "tcp", "running", "every", "timeout", "failures"])?;
    let default = default_health();
    let probe = probe(field, &settings);
    let every = settings.read_or("every", default.every, |f| f.millis(Millis(10)..=LONGEST));
    let timeout = settings.read_or("timeout", default.timeout, |f| f.millis(SHORTEST..=LONGEST));
    let failures = settings.read_or("failures", default.failures, |f| f.integer(1..=1000));
    Some(Health { probe: probe?, every: every?, timeout: timeout?, failures: failures? })
}

fn probe(field: &Field<'_>, settings: &Settings<'_>) -> Option<Probe> {
    let found = settings.set_of(&["http", "tcp", "running"]);
    if found.len() > 1 {
        let diagnostic = Diagnostic::error(found[1].span(), "a health check asks in one way")
            .with_label("a second way")
            .with_related(found[0].span(), "the first way");
        field.report(diagnostic);
        return None;
    }
    if let Some(http) = settings.get("http") {
        return http_probe(http);
    }
    if let Some(tcp) = settings.get("tcp") {
        let settings = tcp.settings(&["port"])?;
        let Some(port) = settings.get("port") else { return missing(tcp, "port") };
        return port.port().map(|port| Probe::Tcp { port });
    }
    if let Some(running) = settings.get("running") {
        let settings = running.settings(&["after"])?;
        let Some(after) = settings.get("after") else { return missing(running, "after") };
        return after.millis(SHORTEST..=LONGEST).map(|after| Probe::Running { after });
    }
    Some(default_health().probe)
}

fn http_probe(field: &Field<'_>) -> Option<Probe> {
    let settings = field.settings(&["port", "path", "status"])?;
    let port = match settings.get("port") {
        Some(port) => port.port(),
        None => missing(field, "port"),
    };
    let path = settings.read_or("path", "/".to_owned(), http_path);
    let status = settings.read_or("status", None, http_status);
    Some(Probe::Http { port: port?, path: path?, status: status? })
}

fn default_rollout() -> Rollout {
    Rollout { strategy: Strategy::Rolling { surge: 1 }, deadline: Millis::seconds(120) }
}

fn rollout(field: &Field<'_>) -> Option<Rollout> {
    let settings = field.settings(&["strategy", "deadline", "surge", "keep", "steps"])?;
    let default = default_rollout();
    let strategy = strategy(field, &settings);
    let shortest = Millis::seconds(1);
    let deadline = settings.read_or("deadline", default.deadline, |f| f.millis(shortest..=LONGEST));
    Some(Rollout { strategy: strategy?, deadline: deadline? })
}

fn strategy(field: &Field<'_>, settings: &Settings<'_>) -> Option<Strategy> {
    let name = settings.read_or("strategy", "rolling".to_owned(), |f| f.string())?;
    for later in settings.set_of(&["keep", "steps"]) {
        later.report(not_yet(later, "without it the old instances go as soon as they are drained"));
    }
    let surge = settings.get("surge");
    match (name.as_str(), surge) {
        ("rolling", None) => Some(Strategy::Rolling { surge: 1 }),
        ("rolling", Some(surge)) => {
            surge.integer(1..=MAX_REPLICAS).map(|surge| Strategy::Rolling { surge })
        }
        ("blue_green", None) => Some(Strategy::BlueGreen),
        ("blue_green", Some(surge)) => {
            let diagnostic = Diagnostic::error(surge.span(), "`surge` belongs to `rolling`")
                .with_label("blue_green makes all new instances beside the old ones");
            surge.report(diagnostic);
            None
        }
        ("canary", _) => {
            let place = settings.get("strategy").unwrap_or(field);
            place.report(not_yet(place, "use \"rolling\" or \"blue_green\""));
            None
        }
        _ => settings.get("strategy").unwrap_or(field).refuse("\"rolling\" or \"blue_green\""),
    }
}

fn not_yet(field: &Field<'_>, instead: &str) -> Diagnostic {
    Diagnostic::error(field.span(), "not supported yet by this version of kiln")
        .with_label(format!("`{}`", field.path()))
        .with_help(instead)
}
