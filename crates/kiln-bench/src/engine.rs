//! The engine's own cost: a stack applied to a target that does nothing, with every commit on
//! the disk, beside `terraform apply` of the same graph, whose resources do nothing either.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use kiln_daemon::prepare::{Draft, Source};
use kiln_daemon::{ledger::Ledger, root::Root};
use kiln_engine::clock::SystemClock;
use kiln_engine::engine::{Engine, Keeper, Proposal};
use kiln_engine::progress::ProgressEvent;
use kiln_model::digest::Digest;
use kiln_model::generation::Origin;
use kiln_model::name::Kind;

use crate::Result;
use crate::child::{self, Run};
use crate::figures::{Figures, Table, digits, ratio};
use crate::graph::{Graph, Style};
use crate::nothing::Nothing;
use crate::terraform::Terraform;

/// Components, runs of Kiln, runs of Terraform.
const SIZES: [(usize, usize, usize); 3] = [(100, 9, 5), (1_000, 9, 1), (10_000, 3, 0)];

/// Prints the table.
pub(crate) fn bench(_: &Path) -> Result {
    let terraform = Terraform::find();
    let peer = terraform.as_ref().map_or("terraform", |t| t.version.as_str());
    let title = format!("Applying to a target that does nothing, beside Terraform {peer}");
    let mut table = Table::new(
        &title,
        &["components", "Kiln, whole", "Terraform", "ratio", "Kiln MiB", "Terraform MiB"],
    );
    for (components, runs, peer_runs) in SIZES {
        eprintln!("engine: {components} components");
        let graph = Graph { style: Style::Blocks, components };
        let (mut own, mut peers) = (Vec::new(), Vec::new());
        for run in 0..runs {
            let directory = tempfile::tempdir()?;
            let stack = directory.path().join("stack");
            graph.write_stack(&stack)?;
            own.push(apply_to_nothing(&stack, &directory.path().join("root"))?);
            if let Some(terraform) = terraform.as_ref().filter(|_| run < peer_runs) {
                let configuration = directory.path().join("terraform");
                graph.write_terraform(&configuration)?;
                terraform.init(&configuration)?;
                peers.push(terraform.apply(&configuration)?);
            }
        }
        let times = |runs: &[Run]| Figures::of_times(runs.iter().map(|run| run.wall));
        let peaks = |runs: &[Run]| Figures::new(runs.iter().map(|run| run.peak_mib)).median();
        let mut row = vec![components.to_string(), times(&own).seconds()];
        if peers.is_empty() {
            row.extend(["–".to_owned(), "–".to_owned(), digits(peaks(&own)), "–".to_owned()]);
        } else {
            row.extend([times(&peers).seconds(), ratio(&times(&own), &times(&peers))]);
            row.extend([digits(peaks(&own)), digits(peaks(&peers))]);
        }
        table.row(&row);
    }
    table.print();
    println!("\nTerraform needs more than 600 s to apply 10,000: not run.");
    Ok(())
}

/// Applies `stack` in a process of its own.
pub(crate) fn apply_to_nothing(stack: &Path, root: &Path) -> Result<Run> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("apply-to-nothing").arg(stack).arg(root);
    child::expect(&mut command, &stack.with_extension("out"), 0)
}

/// That process: evaluates, commits, brings everything up and says what took how long.
pub(crate) fn apply(stack: &Path, root: &Path) -> Result {
    let root = Root::new(root);
    root.prepare()?;
    let begin = Instant::now();
    let ledger = Ledger::create(&root)?;
    let source = Source { directory: stack.to_owned(), ..Source::default() };
    let draft = Draft::new(&source, Some(&ledger))?;
    let evaluated = begin.elapsed();
    // What an image would hold is of no interest to a target that starts nothing.
    let images = draft.seal()?.keys().filter(|id| id.kind == Kind::Image);
    let images = images.map(|id| (id.clone(), Digest::of(b"nothing"))).collect();
    let proposal = Proposal {
        content: draft.content(images)?,
        parent: None,
        origin: Origin::Apply,
        commit: None,
        by: kiln_engine::actor::Actor::Keeper,
    };
    let sealed = begin.elapsed();
    let (store, _) = ledger.into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let made = runtime.block_on(bring_up(store, draft, proposal))?;
    let whole = begin.elapsed();
    println!(
        "{made} instances; evaluated after {evaluated:.0?}, sealed after {sealed:.0?}, active \
         after {whole:.0?}"
    );
    Ok(())
}

async fn bring_up(
    store: kiln_engine::store::sqlite::SqliteStore,
    draft: Draft,
    proposal: Proposal,
) -> Result<usize> {
    let target = Arc::new(Nothing::default());
    let engine = Engine::new(target.clone(), Arc::new(SystemClock), Arc::new(store));
    let (keeper, handle) = Keeper::open(Arc::new(engine), draft.stack)?;
    let keeper = tokio::spawn(keeper.run());
    let mut watch = handle.watch();
    handle.commit(proposal).await?;
    loop {
        match watch.recv().await {
            Ok(progress) => match progress.event {
                ProgressEvent::Active { .. } => break,
                ProgressEvent::Abandoned { reason, .. } => {
                    return Err(format!("given up: {reason:?}").into());
                }
                _ => {}
            },
            // What was missed was about single instances.
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                let snapshot = handle.snapshot();
                if snapshot.is_some_and(|s| s.state.active.is_some()) {
                    break;
                }
            }
            Err(closed) => return Err(closed.into()),
        }
    }
    drop(handle);
    keeper.abort();
    Ok(target.instances())
}
