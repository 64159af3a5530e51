//! Programs on the host that say whether a change goes well.

use std::process::Stdio;

use kiln_engine::target::Examination;
use kiln_model::name::InstanceId;
use tokio::process::Command;

/// What of a program's output is told where it does not pass.
const TOLD: usize = 300;

/// Runs a check's program: without a shell and without input, in `/`, with nothing of the
/// daemon's environment but `PATH`, and with what it is asked about as `KILN_STACK`,
/// `KILN_COMPONENT`, `KILN_GENERATION` and `KILN_INSTANCES` (ids, parted by spaces). It passes
/// when it ends with status 0; it is killed when whoever asks gives up.
pub(super) async fn command(command: &[String], asked: &Examination) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("it names no program".to_owned());
    };
    let instances: Vec<&str> = asked.instances.iter().map(InstanceId::as_str).collect();
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("KILN_STACK", asked.stack.as_str())
        .env("KILN_COMPONENT", asked.component.to_string())
        .env("KILN_GENERATION", asked.generation.to_string())
        .env("KILN_INSTANCES", instances.join(" "))
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = if output.stderr.trim_ascii().is_empty() { output.stdout } else { output.stderr };
    let text = String::from_utf8_lossy(&text);
    let last = text.trim_end().lines().next_back().unwrap_or_default();
    let last: String = last.chars().take(TOLD).collect();
    let said = if last.is_empty() { String::new() } else { format!(": {last}") };
    Err(format!("{program} ended with {}{said}", output.status))
}
