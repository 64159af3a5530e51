//! `kiln-bench`: how fast Kiln is, each figure beside a peer's from the same run.
//!
//! `bench/run` builds this with optimisation and starts it. Results are Markdown tables on stdout;
//! what is being measured at the moment is on stderr.

mod child;
mod crun;
mod database;
mod engine;
mod figures;
mod gateway;
mod graph;
mod idle;
mod image;
mod journal;
mod launch;
mod machine;
mod nothing;
mod plan;
mod program;
mod terraform;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use graph::{Graph, Style};

/// What a benchmark returns where it could not measure.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: kiln-bench KILN [NAME…]
  KILN  the program to be measured
  NAME  plan, engine, launch, idle, journal, gateway, gate, database, image, sizes; all of them without one";

/// A benchmark: measures the program that it is given, and prints.
type Benchmark = fn(&Path) -> Result;

/// The benchmarks by name.
const BENCHMARKS: [(&str, Benchmark); 10] = [
    ("plan", plan::bench),
    ("engine", engine::bench),
    ("launch", launch::bench),
    ("idle", idle::bench),
    ("journal", journal::bench),
    ("gateway", gateway::bench),
    ("gate", database::gate),
    ("database", database::bench),
    ("image", image::bench),
    ("sizes", image::sizes),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        // Parts of benchmarks that are processes of their own.
        ["apply-to-nothing", stack, root] => engine::apply(Path::new(stack), Path::new(root)),
        ["write-state", style, components, version, directory] => {
            write_state(style, components, version, Path::new(directory))
        }
        ["crun", directory] => crun::child(Path::new(directory)),
        [kiln, names @ ..] if !kiln.starts_with('-') => run(kiln, names),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kiln-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_state(style: &str, components: &str, version: &str, directory: &Path) -> Result {
    let style = Style::ALL.into_iter().find(|s| s.to_string() == style).ok_or("unknown style")?;
    let graph = Graph { style, components: components.parse()? };
    terraform::write_state_here(&graph, version, directory)
}

fn run(kiln: &str, names: &[&str]) -> Result {
    let kiln: PathBuf = std::fs::canonicalize(kiln).map_err(|error| format!("{kiln}: {error}"))?;
    if let Some(unknown) = names.iter().find(|name| BENCHMARKS.iter().all(|(b, _)| b != *name)) {
        return Err(format!("there is no benchmark {unknown}\n{USAGE}").into());
    }
    println!("{}", machine::line());
    for (name, bench) in BENCHMARKS {
        if names.is_empty() || names.contains(&name) {
            bench(&kiln).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    Ok(())
}
