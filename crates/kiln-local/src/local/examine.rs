//! Programs on the host that say whether a change goes well.

use kiln_engine::target::Examination;
use kiln_model::name::InstanceId;

use super::program;

/// Runs a check's program with what it is asked about as `KILN_STACK`, `KILN_COMPONENT`,
/// `KILN_GENERATION` and `KILN_INSTANCES` (ids, parted by spaces). It passes when it ends with
/// status 0, and is ended when whoever asks gives up.
pub(super) async fn command(command: &[String], asked: &Examination) -> Result<(), String> {
    let instances: Vec<&str> = asked.instances.iter().map(InstanceId::as_str).collect();
    let env = [
        ("KILN_STACK", asked.stack.to_string()),
        ("KILN_COMPONENT", asked.component.to_string()),
        ("KILN_GENERATION", asked.generation.to_string()),
        ("KILN_INSTANCES", instances.join(" ")),
    ];
    program::run(command, asked.check.user.as_deref(), &env).await.map(drop)
}
