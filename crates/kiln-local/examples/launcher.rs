//! A launcher by itself: `launcher --root DIR launcher`, as the daemon starts it.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.as_slice() {
        [_, option, root, verb] if option == "--root" && verb == "launcher" => {
            kiln_local::launcher::run(Path::new(root), kiln_local::launcher::IDLE_LIMIT)
        }
        _ => {
            eprintln!("usage: launcher --root DIR launcher");
            ExitCode::from(2)
        }
    }
}
