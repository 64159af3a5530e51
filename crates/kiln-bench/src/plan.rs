//! `kiln plan` beside `terraform plan` on the same graph: first, without a change, with one.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::child::{self, Run};
use crate::engine::apply_to_nothing;
use crate::figures::{Figures, Table, digits, ratio};
use crate::graph::{Graph, Style};
use crate::terraform::{Terraform, write_state};

/// The graphs: components, runs of Kiln, runs of Terraform.
const SIZES: [(usize, usize, usize); 3] = [(100, 9, 5), (1_000, 9, 3), (10_000, 5, 1)];

/// Above this, Terraform needs more than ten minutes for a plan with `count` or `for_each`.
const MOST_REPEATED: usize = 1_000;

/// What is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    First,
    NoChange,
    OneChange,
}

impl Situation {
    const ALL: [Self; 3] = [Self::First, Self::NoChange, Self::OneChange];

    fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::NoChange => "no change",
            Self::OneChange => "1 change",
        }
    }

    fn marker(self) -> &'static str {
        if self == Self::OneChange { "v2" } else { "v1" }
    }

    fn differs(self) -> bool {
        self != Self::NoChange
    }
}

/// Prints the table.
pub(crate) fn bench(kiln: &Path) -> Result {
    let terraform = Terraform::find();
    let peer = terraform.as_ref().map_or("terraform", |t| t.version.as_str());
    let title = format!("Planning, beside Terraform {peer}");
    let heads = [
        "components",
        "as",
        "plan",
        "Kiln",
        "Terraform",
        "ratio",
        "processor: Kiln",
        "Terraform",
        "MiB: Kiln",
        "Terraform",
    ];
    let mut table = Table::new(&title, &heads);
    for (components, runs, peer_runs) in SIZES {
        for style in Style::ALL {
            let graph = Graph { style, components };
            let repeated = style != Style::Blocks;
            let compare = !repeated || components <= MOST_REPEATED;
            // With `count` and `for_each` it takes tens of seconds for 1,000.
            let peer_runs = if repeated { peer_runs.div_ceil(4) } else { peer_runs };
            let peer = terraform.as_ref().filter(|_| compare).map(|peer| (peer, peer_runs));
            for row in Case::prepare(kiln, graph, peer)?.rows(runs)? {
                table.row(&row);
            }
        }
    }
    table.print();
    println!("\nTerraform with `count` or `for_each` on 10,000 takes more than 600 s: not run.");
    Ok(())
}

/// One graph, written for both.
struct Case<'a> {
    graph: Graph,
    kiln: &'a Path,
    terraform: Option<(&'a Terraform, usize)>,
    directory: tempfile::TempDir,
}

impl<'a> Case<'a> {
    fn prepare(
        kiln: &'a Path,
        graph: Graph,
        terraform: Option<(&'a Terraform, usize)>,
    ) -> Result<Self> {
        eprintln!("plan: {} components as {}", graph.components, graph.style);
        let directory = tempfile::tempdir()?;
        let case = Self { graph, kiln, terraform, directory };
        graph.write_stack(&case.stack())?;
        apply_to_nothing(&case.stack(), &case.root(Situation::NoChange))?;
        if let Some((terraform, _)) = terraform {
            for situation in [Situation::First, Situation::NoChange] {
                let directory = case.configuration(situation);
                graph.write_terraform(&directory)?;
                terraform.init(&directory)?;
            }
            let applied = case.configuration(Situation::NoChange);
            write_state(&graph, &terraform.version, &applied)?;
        }
        Ok(case)
    }

    fn stack(&self) -> PathBuf {
        self.directory.path().join("stack")
    }

    fn root(&self, situation: Situation) -> PathBuf {
        let name = if situation == Situation::First { "new-root" } else { "root" };
        self.directory.path().join(name)
    }

    fn configuration(&self, situation: Situation) -> PathBuf {
        let name = if situation == Situation::First { "new" } else { "applied" };
        self.directory.path().join("terraform").join(name)
    }

    fn rows(&self, runs: usize) -> Result<Vec<Vec<String>>> {
        Situation::ALL.into_iter().map(|situation| self.row(situation, runs)).collect()
    }

    fn row(&self, situation: Situation, runs: usize) -> Result<Vec<String>> {
        let (mut own, mut peers) = (Vec::new(), Vec::new());
        for run in 0..runs {
            own.push(self.plan(situation)?);
            if let Some((terraform, _)) = self.terraform.filter(|(_, times)| run < *times) {
                let directory = self.configuration(situation);
                peers.push(terraform.plan(&directory, situation.marker(), situation.differs())?);
            }
        }
        let (own, peers) = (Summary::of(&own), Summary::of(&peers));
        let mut row = vec![
            self.graph.components.to_string(),
            self.graph.style.to_string(),
            situation.name().to_owned(),
        ];
        let known = peers.wall.median() > 0.0;
        let ratio = if known { ratio(&own.wall, &peers.wall) } else { "–".to_owned() };
        row.extend([own.wall.seconds(), peers.wall.seconds(), ratio]);
        row.extend([own.processor, peers.processor, own.peak, peers.peak]);
        Ok(row)
    }

    fn plan(&self, situation: Situation) -> Result<Run> {
        let mut command = Command::new(self.kiln);
        command.arg("--root").arg(self.root(situation)).arg("--stack").arg(self.stack());
        command.args(["plan", "--detailed-exitcode", "--var"]);
        command.arg(format!("marker={}", situation.marker()));
        let output = self.directory.path().join("plan.out");
        child::expect(&mut command, &output, if situation.differs() { 3 } else { 0 })
    }
}

/// What several runs of one program showed.
struct Summary {
    wall: Figures,
    /// The median of the processor time.
    processor: String,
    /// The median of the peak of memory, in MiB.
    peak: String,
}

impl Summary {
    fn of(runs: &[Run]) -> Self {
        let processor = Figures::of_times(runs.iter().map(|run| run.processor));
        let peak = Figures::new(runs.iter().map(|run| run.peak_mib));
        let unless_empty = |text: String| if runs.is_empty() { "–".to_owned() } else { text };
        Self {
            wall: Figures::of_times(runs.iter().map(|run| run.wall)),
            processor: unless_empty(processor.middle()),
            peak: unless_empty(digits(peak.median())),
        }
    }
}
