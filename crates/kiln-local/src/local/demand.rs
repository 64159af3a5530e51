//! What is asked of servers, and what their instances use: from the gateway and the kernel's
//! control groups, or from a program that knows.

use std::process::Stdio;

use kiln_engine::TargetError;
use kiln_gateway::GatewayError;
use kiln_gateway::control::Traffic;
use kiln_model::name::{InstanceId, StackName};
use kiln_model::scaling::{Arrivals, Demand, Usage};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::create::{PATH, chain};
use super::{Machine, now};

/// The most that is read of what a program prints.
const OUTPUT: u64 = 64 * 1024;

/// The longest text of a program that is shown.
const SHOWN: usize = 120;

impl Machine {
    /// What the gateway counts for a stack's servers and instances, and what the kernel does.
    pub(super) fn demand(
        &self,
        stack: &StackName,
        instances: &[InstanceId],
    ) -> Result<Demand, TargetError> {
        let traffic = match self.gateway.traffic() {
            Ok(traffic) => traffic,
            Err(GatewayError::NotRunning { .. }) => {
                Traffic { servers: Vec::new(), instances: Vec::new() }
            }
            Err(error) => {
                let what = format!("measure what is asked of {stack}");
                return Err(TargetError::passing(what, chain(&error)));
            }
        };
        let mut demand = Demand { at: now(), ..Demand::default() };
        for server in traffic.servers.into_iter().filter(|server| server.stack == *stack) {
            let waiting = u32::try_from(server.waiting).unwrap_or(u32::MAX);
            let (arrived, refused) = (server.arrived, server.refused);
            demand.servers.insert(server.component, Arrivals { arrived, refused, waiting });
        }
        for id in instances {
            let group = self.cgroups.group(id.as_str());
            let (cpu_us, memory) = (group.cpu_us(), group.memory());
            demand.instances.insert(id.clone(), Usage { cpu_us, memory, ..Usage::default() });
        }
        for instance in traffic.instances {
            if let Some(usage) = demand.instances.get_mut(&instance.instance) {
                usage.in_flight = instance.requests.saturating_add(instance.connections);
                usage.latency = instance.answers.latency_us_log2;
            }
        }
        Ok(demand)
    }
}

/// The number that a program prints, in thousandths. It has no input, the usual path and nothing
/// else of the daemon's environment; it and what it has started are ended with this future.
pub(super) async fn number(command: &[String]) -> Result<u64, String> {
    let out = run(command, &[]).await?;
    let program = command.first().map_or("", String::as_str);
    thousandths(&out).ok_or_else(|| format!("{program} printed {:?}, no number", shown(out.trim())))
}

/// What a program on the host prints that ends with status 0: without a shell and without input, in
/// `/`, with nothing in its environment but `PATH` and `env`. It is ended, with all that it has
/// started, when the future is dropped.
pub(super) async fn run(command: &[String], env: &[(&str, String)]) -> Result<String, String> {
    let [program, arguments @ ..] = command else { return Err("there is no program".to_owned()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    let _group = Family(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = tokio::join!(text(out), text(err));
    let status = child.wait().await.map_err(|error| format!("{program}: {error}"))?;
    if status.success() {
        return Ok(out);
    }
    let said = err.trim().lines().last().map(|line| format!(": {}", shown(line)));
    Err(format!("{program} ended with {status}{}", said.unwrap_or_default()))
}

/// What a program has started, ended with it.
struct Family(Option<Pid>);

impl Drop for Family {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nobody being left is what is wanted.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What can't be read is not there.
        let _ = stream.take(OUTPUT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// A number from 0 to 10^15.
fn thousandths(text: &str) -> Option<u64> {
    let number: f64 = text.trim().parse().ok()?;
    if !(0.0..=1e15).contains(&number) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between 0 and 10^18"
    )]
    Some((number * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn ask(script: &str) -> Result<u64, String> {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(number(&command))
    }

    #[test]
    fn a_program_prints_a_number_or_it_is_said_why_not() {
        assert_eq!(ask("echo 12.5"), Ok(12_500));
        assert_eq!(ask("echo 0"), Ok(0));
        let error = ask("echo many").unwrap_err();
        assert_eq!(error, "/bin/sh printed \"many\", no number");
        let error = ask("echo first >&2; echo no queue >&2; exit 3").unwrap_err();
        assert_eq!(error, "/bin/sh ended with exit status: 3: no queue");
        for bad in ["echo -1", "echo inf", "echo nan", "echo 1e300", "true"] {
            assert!(ask(bad).is_err(), "{bad}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let absent = runtime.block_on(number(&["/nowhere/queue".to_owned()])).unwrap_err();
        assert!(absent.starts_with("/nowhere/queue does not start: "), "{absent}");
    }

    #[test]
    fn a_program_is_ended_with_all_that_it_has_started() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let marker = std::env::temp_dir().join(format!("kiln-family-{}", std::process::id()));
        let script = format!("sh -c 'echo $$ > {}; exec sleep 600' & wait", marker.display());
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), script];
        runtime.block_on(async {
            let bound = Duration::from_millis(500);
            assert!(tokio::time::timeout(bound, number(&command)).await.is_err());
        });
        let pid = std::fs::read_to_string(&marker).unwrap();
        std::fs::remove_file(&marker).unwrap();
        let path = format!("/proc/{}/stat", pid.trim());
        let begun = Instant::now();
        let gone = || std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(5), "{path} is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
