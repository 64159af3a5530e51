//! The processes that Kiln starts of itself, as the daemon and builds start them:
//! `launcher --root DIR launcher`, `launcher --root DIR sandbox` and `launcher --root DIR gateway`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.as_slice() {
        [_, option, root, verb] if option == "--root" && verb == "launcher" => {
            kiln_local::launcher::run(Path::new(root), kiln_local::launcher::IDLE_LIMIT)
        }
        [_, option, root, verb] if option == "--root" && verb == "sandbox" => {
            kiln_local::sandbox::run(Path::new(root))
        }
        [_, option, root, verb] if option == "--root" && verb == "gateway" => {
            kiln_gateway::run(Path::new(root))
        }
        _ => {
            eprintln!("usage: launcher --root DIR launcher|sandbox|gateway");
            ExitCode::from(2)
        }
    }
}
