//! How long it takes to verify a long journal: every hash and signature of 100,000 entries, as
//! `kiln events --verify` does it, and as a daemon does when it begins and whenever somebody else
//! has written to its store. It has no peer: nobody else signs each entry of such a log.

use std::path::Path;
use std::time::Instant;

use kiln_engine::Store;
use kiln_engine::actor::Actor;
use kiln_engine::journal::{Entry, Event};
use kiln_engine::key::RootKey;
use kiln_engine::store::Write;
use kiln_engine::store::sqlite::SqliteStore;
use kiln_model::quantity::Timestamp;

use crate::Result;
use crate::figures::{Figures, Table};

/// Entries of the journal.
const ENTRIES: u64 = 100_000;

/// Entries that are added at a time.
const AT_ONCE: u64 = 1_000;

const RUNS: usize = 5;

/// Prints the table.
pub(crate) fn bench(kiln: &Path) -> Result {
    let root = tempfile::tempdir()?;
    let directory = root.path().join("store");
    std::fs::create_dir(&directory)?;
    let key = RootKey::open(&directory)?;
    let store = SqliteStore::open(&directory, &key)?;
    eprintln!("journal: {ENTRIES} entries are written");
    let began = Instant::now();
    for batch in 0..ENTRIES / AT_ONCE {
        let writes: Vec<Write> = (0..AT_ONCE).map(|n| made(batch * AT_ONCE + n)).collect();
        store.append(&"shop".parse()?, &Actor::Keeper, &writes)?;
    }
    let written = began.elapsed();
    let (mut audits, mut begins, mut verbs) = (vec![], vec![], vec![]);
    for _ in 0..RUNS {
        let began = Instant::now();
        let audit = store.audit()?;
        audits.push(began.elapsed());
        if !audit.problems.is_empty() || audit.entries != ENTRIES {
            return Err(format!("{} entries, {:?}", audit.entries, audit.problems).into());
        }
        let began = Instant::now();
        SqliteStore::open(&directory, &key)?.check()?;
        begins.push(began.elapsed());
        let began = Instant::now();
        let status = std::process::Command::new(kiln)
            .arg("--root")
            .arg(root.path())
            .args(["events", "--verify"])
            .stdout(std::process::Stdio::null())
            .status()?;
        verbs.push(began.elapsed());
        if !status.success() {
            return Err(format!("kiln events --verify ended with {status}").into());
        }
    }
    let size = std::fs::metadata(directory.join("store.db"))?.len() >> 20;
    let title = format!(
        "Verifying a journal of {ENTRIES} entries ({size} MiB; written, {AT_ONCE} at a time, in {:.1} s)",
        written.as_secs_f64()
    );
    let mut table = Table::new(&title, &["what", "time"]);
    for (name, times) in [
        ("every hash and signature", audits),
        ("a daemon's first look, and that after foreign writes", begins),
        ("`kiln events --verify`, the whole program", verbs),
    ] {
        table.row(&[name.to_owned(), Figures::of_times(times).seconds()]);
    }
    table.print();
    Ok(())
}

/// An entry as most are.
fn made(n: u64) -> Write {
    let event = Event::Made {
        component: "server.web".parse().expect("a component's name"),
        instance: format!("web-{n:012x}").parse().expect("an instance's id"),
        because: "it is missing".to_owned(),
        grows: false,
    };
    Write::Entry(Entry { at: Timestamp(1_700_000_000_000 + n), event })
}
