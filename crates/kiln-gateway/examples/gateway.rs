//! The gateway alone: `gateway --root DIR gateway`, the way in which the daemon calls `kiln`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["--root", root, "gateway"] = arguments[..] {
        return kiln_gateway::run(Path::new(root));
    }
    eprintln!("usage: gateway --root DIR gateway");
    ExitCode::from(2)
}
