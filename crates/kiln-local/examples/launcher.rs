//! The processes that Kiln starts of itself, as the daemon and builds start them:
//! `launcher --root DIR launcher` and `launcher --root DIR sandbox`.

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
        _ => {
            eprintln!("usage: launcher --root DIR launcher|sandbox");
            ExitCode::from(2)
        }
    }
}
