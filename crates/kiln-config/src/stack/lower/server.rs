//! `server` blocks.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::name::Kind;
use kiln_model::quantity::{Bytes, Millis};
use kiln_model::spec::scale::Scale;
use kiln_model::spec::server::{Connection, Seccomp, Server, ServerIdentity, ServerPolicy, Stop};
use kiln_model::text::Text;

use super::Reader;
use super::health::health;
use super::paths::{absolute_path, writable};
use super::{rollout, scale};
use crate::diagnostic::{Diagnostic, nearest};
use crate::stack::decode::Field;

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
pub(super) const LONGEST: Millis = Millis::seconds(7 * 86_400);

/// The most system calls that a profile may name.
const MAX_CALLS: usize = 1_000;

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
    let seccomp = reader.read_or("seccomp", Seccomp::Default, seccomp);
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
        seccomp: seccomp?,
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
    let health = reader.read_or("health", super::health::default(), health);
    let rollout = reader.read_or("rollout", rollout::default(), rollout::rollout);
    let quarantine = reader.read_or("quarantine", false, |field| field.boolean());
    Some(ServerPolicy {
        address: address?,
        replicas: replicas?,
        scale: scale?,
        health: health?,
        rollout: rollout?,
        quarantine: quarantine?,
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

/// The name of a profile, or the names of system calls, a line each; `#` begins a comment.
fn seccomp(field: &Field<'_>) -> Option<Seccomp> {
    let text = field.string()?;
    match text.as_str() {
        "default" => return Some(Seccomp::Default),
        "strict" => return Some(Seccomp::Strict),
        _ => {}
    }
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let names: BTreeSet<String> = lines.filter(|n| !n.is_empty()).map(str::to_owned).collect();
    let is_name = |name: &String| {
        name.len() <= 64
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    // One word alone is a misspelt profile rather than a program with one system call.
    if names.len() < 2 || names.len() > MAX_CALLS || !names.iter().all(is_name) {
        return field.refuse(
            "\"default\", \"strict\", or names of system calls, a line each, such as \
             file(\"web.seccomp\")",
        );
    }
    Some(Seccomp::Only(names))
}

fn connects(reader: &Reader<'_>, field: &Field<'_>) -> Option<Vec<Connection>> {
    let found = field.components(&[Kind::Server, Kind::Database], "server.api")?;
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
