//! Databases: what the gate costs beside a direct connection and `PgBouncer`, and how long clients wait
//! at a planned change and at a loss, beside Patroni with etcd and `HAProxy`.
//!
//! Everything is on this machine, with the same PostgreSQL, settings and clients. The two systems are
//! measured one after the other, each with nothing else of the benchmark running.

mod gate;
mod own;
mod patroni;

use std::path::Path;
use std::time::{Duration, Instant};

use kiln_load::ledger::{Ledger, Plan, Report};

use crate::Result;
use crate::figures::{Figures, Table, digits};
use crate::gateway::which;

use own::Own;
use patroni::{Patroni, Times};

/// Planned changes of each system.
const CHANGES: usize = 5;
/// Primaries killed of each system.
const LOSSES: usize = 3;
/// How long a system may take to be whole again.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long clients write before and after each event.
const CALM: Duration = Duration::from_secs(1);

/// Where PostgreSQL's programs are.
const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A system with one primary and one synchronous standby.
trait System {
    /// How clients reach it.
    fn parameters(&self) -> String;
    /// Has another instance take the writes, as planned.
    fn change(&mut self) -> Result;
    /// Kills the node of the primary: all its processes at once.
    fn lose(&mut self) -> Result;
    /// Waits until there are a primary and a standby, both in order.
    fn whole(&mut self) -> Result;
}

/// Prints what the gate costs.
pub(crate) fn gate(kiln: &Path) -> Result {
    if !is_possible("gate", &["pgbouncer"]) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let own = Own::start(kiln, directory.path())?;
    gate::bench(&own, directory.path())
}

/// Prints how long clients wait at changes and losses.
pub(crate) fn bench(kiln: &Path) -> Result {
    if !is_possible("database", &["patroni", "etcd", "haproxy", "unshare"]) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let mut own = Own::start(kiln, directory.path())?;
    own.grow()?;
    let kiln = events("kiln", &mut own)?;
    drop(own);
    let mut all = vec![("Kiln", kiln)];
    for (name, times) in [("Patroni, as it comes", Times::AS_IT_COMES), (QUICK, Times::QUICKEST)] {
        let mut patroni = Patroni::start(times)?;
        all.push((name, events(name, &mut patroni)?));
    }
    print(&all);
    Ok(())
}

/// Whether a benchmark can run here; says what it lacks.
fn is_possible(name: &str, programs: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("\n{name}: must be run as root: not run");
        return false;
    }
    let missing: Vec<_> = programs.iter().filter(|program| which(program).is_none()).collect();
    let postgres = Path::new(BIN).join("pgbench").exists();
    if !missing.is_empty() || !postgres {
        println!("\n{name}: {missing:?} and PostgreSQL 15 are not all there: not run");
        return false;
    }
    true
}

const QUICK: &str = "Patroni, its shortest times";

/// What clients saw of one system.
struct Seen {
    changes: Kind,
    losses: Kind,
    lost: u64,
    violations: Vec<String>,
    written: u64,
}

/// One kind of event.
struct Kind {
    /// The longest that any client waited, at each.
    pauses: Figures,
    /// How often a client was told of an error, at all of them.
    errors: usize,
    times: usize,
}

/// When an event began and was over, and how many errors clients were told meanwhile.
type Span = (Instant, Instant, usize);

fn events(name: &str, system: &mut dyn System) -> Result<Seen> {
    system.whole()?;
    let ledger = Ledger::open(Plan::at(system.parameters()))?;
    let mut changes = Vec::new();
    for round in 0..CHANGES {
        eprintln!("database: {name}, planned change {} of {CHANGES}", round + 1);
        changes.push(span(&ledger, system, |system| system.change())?);
    }
    let mut losses = Vec::new();
    for round in 0..LOSSES {
        eprintln!("database: {name}, loss {} of {LOSSES}", round + 1);
        losses.push(span(&ledger, system, |system| system.lose())?);
    }
    let report = ledger.close()?;
    Ok(Seen {
        changes: kind(&report, &changes),
        losses: kind(&report, &losses),
        lost: report.lost,
        written: report.acknowledged,
        violations: report.violations,
    })
}

fn span(
    ledger: &Ledger,
    system: &mut dyn System,
    event: fn(&mut dyn System) -> Result,
) -> Result<Span> {
    std::thread::sleep(CALM);
    let (begun, told) = (Instant::now(), ledger.told().len());
    event(system)?;
    system.whole()?;
    // Whole is not all: clients write again.
    let rows = ledger.acknowledged();
    while ledger.acknowledged() < rows + 20 {
        if begun.elapsed() > PATIENCE {
            return Err(format!("nobody writes any more: {:?}", ledger.told().last()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(CALM);
    Ok((begun, Instant::now(), ledger.told().len() - told))
}

fn kind(report: &Report, spans: &[Span]) -> Kind {
    let pauses = spans.iter().map(|(from, to, _)| report.longest_between(*from, *to));
    let errors = spans.iter().map(|(.., errors)| errors).sum();
    Kind { pauses: Figures::of_times(pauses), errors, times: spans.len() }
}

fn print(all: &[(&str, Seen)]) {
    let title = format!(
        "{CHANGES} planned changes and {LOSSES} losses of the primary, one synchronous standby, four \
         clients that write"
    );
    let heads = [
        "system",
        "event",
        "the longest wait of a client",
        "beside Kiln",
        "errors of a \
                 client, each time",
        "rows acknowledged",
        "of them lost",
    ];
    let mut table = Table::new(&title, &heads);
    let own = &all[0].1;
    for (name, seen) in all {
        for (what, kind, reference) in [
            ("planned change", &seen.changes, &own.changes),
            ("loss of the primary", &seen.losses, &own.losses),
        ] {
            let ratio = kind.pauses.median() / reference.pauses.median();
            table.row(&[
                (*name).to_owned(),
                what.to_owned(),
                kind.pauses.seconds(),
                format!("{} ×", digits(ratio)),
                digits(per(kind.errors, kind.times * 4)),
                seen.written.to_string(),
                seen.lost.to_string(),
            ]);
        }
    }
    table.print();
    for (name, seen) in all {
        for violation in &seen.violations {
            println!("\n{name}: {violation}");
        }
    }
}

fn per(count: usize, of: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(count) / number(of)
}

/// Waits until something holds, and fails with `what` where it never does.
fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result {
    let begun = Instant::now();
    loop {
        let late = begun.elapsed() >= PATIENCE;
        match holds() {
            Ok(true) => return Ok(()),
            Ok(false) if late => return Err(format!("{what} does not come true").into()),
            Err(error) if late => return Err(format!("{what} does not come true: {error}").into()),
            // Whoever is asked may be just what is lost.
            Ok(false) | Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
