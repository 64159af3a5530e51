//! `scale` of a server: how its count follows what is asked of it.

use std::ops::RangeInclusive;

use kiln_model::quantity::{Amount, Bytes, Millis};
use kiln_model::spec::scale::{NumberTarget, Scale, Targets};

use super::paths::is_canonical;
use super::probe::missing;
use super::server::MAX_REPLICAS;
use crate::stack::decode::{Field, Settings};

/// How long a smaller count must have been enough, where nothing is said.
const DOWN_AFTER: Millis = Millis::seconds(60);
const DOWN_AFTER_BOUNDS: RangeInclusive<Millis> = Millis::seconds(1)..=Millis::seconds(86_400);

/// How far beyond its targets a server may be, in per cent, where nothing is said.
const TOLERANCE: u32 = 10;

/// What one instance may be to have, in thousandths.
const AMOUNTS: RangeInclusive<u64> = 1..=1_000_000_000_000;

const TARGETS: &[&str] =
    &["requests_per_second", "concurrency", "latency", "cpu", "memory", "command", "value"];

/// What goes with them and is none.
const BESIDE: &str = "user";

pub(super) fn scale(field: &Field<'_>) -> Option<Scale> {
    let settings = field.settings(&["min", "max", "target", "down_after", "tolerance"])?;
    let count = |name, least| match settings.get(name) {
        Some(count) => count.integer(least..=MAX_REPLICAS),
        None => missing(field, name),
    };
    let (min, max) = (count("min", 0), count("max", 1));
    let target = match settings.get("target") {
        Some(target) => targets(target),
        None => missing(field, "target"),
    };
    let down_after = settings.read_or("down_after", DOWN_AFTER, |f| f.millis(DOWN_AFTER_BOUNDS));
    let tolerance = settings.read_or("tolerance", TOLERANCE, tolerance);
    let (min, max) = (min?, max?);
    if min > max {
        return settings.get("min")?.refuse(&format!("at most `{}.max`, {max}", field.path()));
    }
    Some(Scale { min, max, target: target?, down_after: down_after?, tolerance: tolerance? })
}

fn tolerance(field: &Field<'_>) -> Option<u32> {
    let thousandths = field.thousandths(0..=1000, "a share from 0 to 1, such as 0.1")?;
    u32::try_from(thousandths / 10).ok()
}

fn targets(field: &Field<'_>) -> Option<Targets> {
    let settings = field.settings(&[TARGETS, &[BESIDE]].concat())?;
    if settings.set_of(TARGETS).is_empty() {
        return field.refuse("at least one target, such as { requests_per_second = 400 }");
    }
    let amount = |name| settings.read_or(name, None, |field| self::amount(field).map(Some));
    let (requests, concurrency) = (amount("requests_per_second"), amount("concurrency"));
    let latency = settings.read_or("latency", None, |field| {
        field.millis(Millis(1)..=Millis::seconds(3600)).map(Some)
    });
    let cpu = settings.read_or("cpu", None, |field| field.cpu().map(Some));
    let memory = settings
        .read_or("memory", None, |field| field.bytes(Bytes::mib(1)..=Bytes(1 << 50)).map(Some));
    let number = number(field, &settings);
    Some(Targets {
        requests_per_second: requests?,
        concurrency: concurrency?,
        latency: latency?,
        cpu: cpu?,
        memory: memory?,
        number: number?,
    })
}

fn amount(field: &Field<'_>) -> Option<Amount> {
    field.thousandths(AMOUNTS, "a number of at least 0.001, such as 400").map(Amount)
}

/// The program and its share, which belong together.
#[expect(clippy::option_option, reason = "the outer one says whether it could be read")]
fn number(field: &Field<'_>, settings: &Settings<'_>) -> Option<Option<NumberTarget>> {
    let user = settings.get(BESIDE);
    let (command, value) = match (settings.get("command"), settings.get("value")) {
        (None, None) => {
            return match user {
                Some(user) => user.refuse("set together with `command`"),
                None => Some(None),
            };
        }
        (Some(_), None) => return missing(field, "value"),
        (None, Some(value)) => return value.refuse("set together with `command`"),
        (Some(command), Some(value)) => (command, value),
    };
    let user = user.map_or(Some(None), |user| super::image::user(user).map(Some));
    let read = (program(command), amount(value));
    Some(Some(NumberTarget { command: read.0?, value: read.1?, user: user? }))
}

/// A program of this machine and its arguments.
pub(super) fn program(field: &Field<'_>) -> Option<Vec<String>> {
    let command = field.strings()?;
    if command.first().is_some_and(|program| is_canonical(program) && program != "/") {
        return Some(command);
    }
    field.refuse("a list of an absolute path and arguments, such as [\"/usr/local/bin/queue\"]")
}
