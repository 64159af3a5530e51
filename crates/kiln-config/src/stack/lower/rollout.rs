//! `rollout` of `server` blocks.

use kiln_model::quantity::Millis;
use kiln_model::spec::rollout::{
    Analysis, Ask, CanaryStep, Check, Rollout, Strategy, default_watch,
};
use kiln_model::spec::server::Probe;

use super::health;
use super::probe::missing;
use super::server::{LONGEST, MAX_REPLICAS};
use crate::diagnostic::Diagnostic;
use crate::stack::decode::{Field, Settings};

/// How long a change may take where nothing is said, besides the time that its steps are held.
const DEADLINE: Millis = Millis::seconds(120);

/// Steps of a canary; more would not be read by anybody.
const MAX_STEPS: usize = 100;

/// Settings of one strategy, and whose they are.
const OF_STRATEGY: [(&str, &str); 4] =
    [("surge", "rolling"), ("unavailable", "rolling"), ("keep", "blue_green"), ("steps", "canary")];

pub(super) fn default() -> Rollout {
    Rollout::rolling(DEADLINE)
}

pub(super) fn rollout(field: &Field<'_>) -> Option<Rollout> {
    let settings = field.settings(&[
        "strategy",
        "deadline",
        "surge",
        "unavailable",
        "keep",
        "steps",
        "watch",
        "analysis",
        "overlap",
    ])?;
    let strategy = strategy(field, &settings);
    let span = |f: &Field<'_>| f.millis(Millis(0)..=LONGEST);
    let keep = settings.read_or("keep", Millis(0), span);
    let watch = settings.read_or("watch", default_watch(), span);
    let analysis = settings.read_or("analysis", Analysis::default(), analysis);
    let overlap = settings.read_or("overlap", true, |f| f.boolean());
    let mut rollout = Rollout {
        strategy: strategy?,
        deadline: DEADLINE,
        keep: keep?,
        watch: watch?,
        analysis: analysis?,
        overlap: overlap?,
    };
    overlaps(&settings, &rollout)?;
    let held = rollout.held();
    rollout.deadline = match settings.get("deadline") {
        None => Millis(DEADLINE.0.saturating_add(held.0)),
        Some(deadline) => deadline_beyond(deadline, held)?,
    };
    Some(rollout)
}

/// The deadline, which must leave time for what is held.
fn deadline_beyond(field: &Field<'_>, held: Millis) -> Option<Millis> {
    let deadline = field.millis(Millis::seconds(1)..=LONGEST)?;
    if deadline > held {
        return Some(deadline);
    }
    let problem = format!("the steps are held for {held}, and the deadline is {deadline}");
    let way_out = "without `deadline` it is two minutes more than the steps are held";
    field.report(Diagnostic::error(field.span(), problem).with_help(way_out));
    None
}

/// Instances that may not serve at the same time cannot share the traffic.
fn overlaps(settings: &Settings<'_>, rollout: &Rollout) -> Option<()> {
    let shares = !matches!(rollout.strategy, Strategy::BlueGreen);
    let (Some(overlap), false, true) = (settings.get("overlap"), rollout.overlap, shares) else {
        return Some(());
    };
    let problem = "`overlap = false` goes with `strategy = \"blue_green\"`";
    let label = "in any other way old and new instances serve at the same time";
    overlap.report(Diagnostic::error(overlap.span(), problem).with_label(label));
    None
}

fn strategy(field: &Field<'_>, settings: &Settings<'_>) -> Option<Strategy> {
    let name = settings.read_or("strategy", "rolling".to_owned(), |f| f.string())?;
    if !["rolling", "blue_green", "canary"].contains(&name.as_str()) {
        let place = settings.get("strategy").unwrap_or(field);
        return place.refuse("\"rolling\", \"blue_green\" or \"canary\"");
    }
    let mut fits = true;
    for (setting, whose) in OF_STRATEGY.into_iter().filter(|(_, whose)| *whose != name) {
        if let Some(odd) = settings.get(setting) {
            let problem = format!("`{setting}` belongs to `strategy = \"{whose}\"`");
            let label = format!("the strategy is {name:?}");
            odd.report(Diagnostic::error(odd.span(), problem).with_label(label));
            fits = false;
        }
    }
    if !fits {
        return None;
    }
    match name.as_str() {
        "blue_green" => Some(Strategy::BlueGreen),
        "canary" => match settings.get("steps") {
            Some(steps) => canary(steps),
            None => missing(field, "steps"),
        },
        _ => rolling(settings),
    }
}

fn rolling(settings: &Settings<'_>) -> Option<Strategy> {
    let unavailable = settings.read_or("unavailable", 0, |f| f.integer(0..=MAX_REPLICAS))?;
    let least = u32::from(unavailable == 0);
    let surge = settings.read_or("surge", 1, |f| f.integer(least..=MAX_REPLICAS))?;
    Some(Strategy::Rolling { surge, unavailable })
}

fn canary(field: &Field<'_>) -> Option<Strategy> {
    let elements = field.elements()?;
    if elements.is_empty() || elements.len() > MAX_STEPS {
        return field.refuse(&format!("a list of 1 to {MAX_STEPS} steps"));
    }
    let mut steps: Vec<CanaryStep> = Vec::with_capacity(elements.len());
    for element in &elements {
        let step = step(element)?;
        if let Some(before) = steps.last().filter(|before| before.weight > step.weight) {
            let problem = format!("a step of {} % after one of {} %", step.weight, before.weight);
            let label = "the share of the new instances does not shrink";
            element.report(Diagnostic::error(element.span(), problem).with_label(label));
            return None;
        }
        steps.push(step);
    }
    Some(Strategy::Canary { steps })
}

fn step(field: &Field<'_>) -> Option<CanaryStep> {
    let settings = field.settings(&["weight", "hold"])?;
    let weight = match settings.get("weight") {
        Some(weight) => weight.integer(1..=100_u8),
        None => missing(field, "weight"),
    };
    let hold = match settings.get("hold") {
        Some(hold) => hold.millis(Millis(0)..=LONGEST),
        None => missing(field, "hold"),
    };
    Some(CanaryStep { weight: weight?, hold: hold? })
}

fn analysis(field: &Field<'_>) -> Option<Analysis> {
    let known = ["errors", "latency", "quantile", "beyond", "requests", "check"];
    let settings = field.settings(&known)?;
    let default = Analysis::default();
    let percent = "a percentage from 0 to 100, such as 1 or 0.5";
    let errors =
        settings.read_or("errors", default.errors, |f| narrow(f.scaled(10, 0..=1000, percent)));
    let times = "how many times as long, from 1 to 1000, or 0 for any time";
    let latency = settings.read_or("latency", default.latency, |f| {
        let latency = narrow(f.thousandths(0..=1_000_000, times))?;
        if (1..1000).contains(&latency) { f.refuse(times) } else { Some(latency) }
    });
    let share = "a percentage from 0 to 100, such as 50 or 99.9";
    let quantile =
        settings.read_or("quantile", default.quantile, |f| narrow(f.scaled(10, 0..=1000, share)));
    let beyond = settings.read_or("beyond", default.beyond, |f| f.millis(Millis(0)..=LONGEST));
    let requests = settings.read_or("requests", default.requests, |f| f.integer(1..=1_000_000));
    let check = settings.read_or("check", None, |f| check(f).map(Some));
    Some(Analysis {
        errors: errors?,
        latency: latency?,
        quantile: quantile?,
        beyond: beyond?,
        requests: requests?,
        check: check?,
    })
}

fn narrow(number: Option<u64>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

fn check(field: &Field<'_>) -> Option<Check> {
    let settings = field.settings(&["http", "tcp", "command", "user", "every", "timeout"])?;
    let ask = match settings.set_of(&["http", "tcp", "command"]).as_slice() {
        [only] => ask(only),
        [] => return field.refuse("one of `http`, `tcp` and `command`"),
        [first, second, ..] => {
            let diagnostic = Diagnostic::error(second.span(), "a check asks in one way")
                .with_label("a second way")
                .with_related(first.span(), "the first way");
            field.report(diagnostic);
            return None;
        }
    };
    let every = settings.read_or("every", Millis(1000), |f| f.millis(Millis(100)..=LONGEST));
    let longest = Millis::seconds(600);
    let timeout =
        settings.read_or("timeout", Millis::seconds(10), |f| f.millis(Millis(1)..=longest));
    let (ask, user) = (ask?, settings.read_or("user", None, |f| super::image::user(f).map(Some))?);
    if user.is_some() && !matches!(ask, Ask::Command(_)) {
        return settings.get("user")?.refuse("set together with `command`: nobody else is run");
    }
    Some(Check { ask, every: every?, timeout: timeout?, user })
}

fn ask(field: &Field<'_>) -> Option<Ask> {
    match field.name() {
        "http" => health::http(field).map(Ask::Instance),
        "tcp" => {
            let settings = field.settings(&["port"])?;
            let Some(port) = settings.get("port") else { return missing(field, "port") };
            port.port().map(|port| Ask::Instance(Probe::Tcp { port }))
        }
        _ => {
            let command = field.strings()?;
            let absolute = command.first().is_some_and(|program| program.starts_with('/'));
            if absolute {
                return Some(Ask::Command(command));
            }
            field.refuse("a program by its absolute path, and its arguments")
        }
    }
}
