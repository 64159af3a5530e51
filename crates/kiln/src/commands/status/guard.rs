//! `kiln status --guard`: what the daemon's guard says of itself.

use std::fmt::Write as _;

use kiln_engine::guard::{GuardReport, Listening, Source};

use crate::render::style::Palette;

/// What a source is, for people.
fn name(source: Source) -> &'static str {
    match source {
        Source::Processes => "process connector",
        Source::Cgroups => "fanotify on control groups",
        Source::Settings => "fanotify on /proc/sys/net",
        Source::Mounts => "polled mount tables",
        Source::Networks => "netlink in each namespace",
        Source::Standstill => "looks at main processes",
        Source::Sweep => "sweep over everything",
    }
}

/// The report as text.
pub(super) fn text(report: &GuardReport, palette: Palette) -> String {
    let GuardReport { instances, networks, rounds, cpu_percent, .. } = report;
    let mut text = format!(
        "Guard of {instances} {} and {networks} {}\n",
        plural(*instances, "instance"),
        plural(*networks, "network"),
    );
    let round = report.round_ms.map(|ms| format!(", the last took {ms} ms")).unwrap_or_default();
    let _ = writeln!(text, "  {rounds} rounds of the sweep{round}");
    let _ = writeln!(text, "  {cpu_percent} % of one processor of late");
    if report.skipped > 0 {
        let _ = writeln!(text, "  {} programs came too fast to be looked at", report.skipped);
    }
    text.push('\n');
    for one in &report.sources {
        source_line(one, palette, &mut text);
    }
    text
}

fn source_line(one: &Listening, palette: Palette, text: &mut String) {
    let padded = format!("{:26}", name(one.source));
    let state = match &one.because {
        _ if one.active => palette.green("on "),
        Some(because) => palette.red(&format!("off: {because}")),
        None => palette.red("off"),
    };
    let counted = !matches!(one.source, Source::Standstill | Source::Sweep);
    let events = if counted { format!("  {} events", one.events) } else { String::new() };
    let found = if one.found > 0 { format!("  {} found", one.found) } else { String::new() };
    let _ = writeln!(text, "  {padded}  {state}{events}{found}");
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { what.to_owned() } else { format!("{what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_granted_is_said_with_its_cause() {
        let listening = |source, because: Option<&str>| Listening {
            source,
            active: because.is_none(),
            because: because.map(str::to_owned),
            events: 7,
            found: 0,
        };
        let report = GuardReport {
            instances: 1,
            networks: 2,
            sources: vec![
                listening(Source::Mounts, None),
                listening(Source::Processes, Some("operation not permitted")),
            ],
            skipped: 0,
            rounds: 3,
            round_ms: Some(1004),
            last_round_ms_ago: Some(10),
            cpu_ms: 12,
            cpu_percent: 0.214,
        };
        let text = text(&report, Palette::plain());
        assert!(text.starts_with("Guard of 1 instance and 2 networks\n"), "{text}");
        assert!(text.contains("3 rounds of the sweep, the last took 1004 ms"), "{text}");
        assert!(
            text.contains("process connector           off: operation not permitted"),
            "{text}"
        );
        assert!(text.contains("polled mount tables         on   7 events"), "{text}");
    }
}
