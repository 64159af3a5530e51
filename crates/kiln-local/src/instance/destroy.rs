//! Ending an instance, whole or half made, with or without a launcher.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::client::{Client, ClientError};
use super::record;
use crate::cgroup::{CgroupError, Cgroups};
use crate::launcher::protocol::Refusal;

/// How long the kernel may take to end killed processes.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How an instance is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPolicy {
    /// Number of the signal that asks its main process.
    pub signal: i32,
    /// How long it may take; then it is killed.
    pub grace: Duration,
}

impl Default for StopPolicy {
    /// SIGTERM, and ten seconds.
    fn default() -> Self {
        Self { signal: libc::SIGTERM, grace: Duration::from_secs(10) }
    }
}

/// An instance that could not be ended wholly. What was left can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// The launcher is there and does not do its part.
    #[error("the launcher cannot end the instance {instance}")]
    Launcher {
        /// The instance.
        instance: String,
        /// The cause.
        source: ClientError,
    },
    /// Its processes did not end in time.
    #[error("the processes of the instance {instance} do not end")]
    Alive {
        /// The instance.
        instance: String,
    },
    /// Its control groups are left.
    #[error("the control groups of the instance {instance} cannot be removed")]
    Cgroup {
        /// The instance.
        instance: String,
        /// The cause.
        source: CgroupError,
    },
    /// A file of it is left.
    #[error("cannot remove {}", path.display())]
    Record {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Ends `instance` and removes all that is left of it in the kernel and under `ROOT/run`; its logs
/// stay until [`crate::logs::remove`]. What is gone already is fine, so this can be repeated.
/// Takes the grace and a few seconds at most.
pub fn destroy(
    root: &Path,
    cgroups: &Cgroups,
    instance: &str,
    policy: StopPolicy,
) -> Result<(), DestroyError> {
    let launcher = Client::connect(root);
    let alone = launcher.is_err();
    match launcher {
        Ok(mut client) => stop_through(&mut client, root, cgroups, instance, policy)?,
        // Without a launcher nobody but this process can do it.
        Err(_) => stop_directly(root, cgroups, instance, policy),
    }
    cgroups
        .group(instance)
        .kill_and_remove(KILL_LIMIT)
        .map_err(|source| DestroyError::Cgroup { instance: instance.to_owned(), source })?;
    record::remove(root, instance).map_err(|source| DestroyError::Record {
        path: record::directory(root, instance),
        source,
    })?;
    if alone && cgroups.list().is_ok_and(|instances| instances.is_empty()) {
        // A launcher does this itself when its last instance ends.
        let _ = cgroups.remove_parents();
    }
    Ok(())
}

/// Ends every process of `instance` at once, and removes nothing: it is then found to have ended.
pub(crate) fn kill(cgroups: &Cgroups, instance: &str) -> Result<(), DestroyError> {
    let group = cgroups.group(instance);
    let deadline = Instant::now() + KILL_LIMIT;
    while !group.processes().is_empty() {
        group.kill();
        if Instant::now() >= deadline {
            return Err(DestroyError::Alive { instance: instance.to_owned() });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn stop_through(
    client: &mut Client,
    root: &Path,
    cgroups: &Cgroups,
    instance: &str,
    policy: StopPolicy,
) -> Result<(), DestroyError> {
    let failed = |source| DestroyError::Launcher { instance: instance.to_owned(), source };
    // Before the stop, so that the exit cannot be missed.
    client.subscribe().map_err(failed)?;
    match client.stop(instance, policy.signal, policy.grace) {
        Err(ClientError::Refused(Refusal::Unknown(_))) => {
            stop_directly(root, cgroups, instance, policy);
            return client.forget(instance).map_err(failed);
        }
        result => result.map_err(failed)?,
    }
    let deadline = Instant::now() + policy.grace + KILL_LIMIT;
    loop {
        match client.forget(instance) {
            Err(ClientError::Refused(Refusal::Running(_))) => {}
            result => return result.map_err(failed),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if client.next_event(Some(left)).map_err(failed)?.is_none() {
            return Err(DestroyError::Alive { instance: instance.to_owned() });
        }
    }
}

/// Stops the main process of an instance that no launcher knows; the rest is killed after it.
fn stop_directly(root: &Path, cgroups: &Cgroups, instance: &str, policy: StopPolicy) {
    let pid = record::read(root, instance).ok().flatten().map(|record| record.pid);
    let pid = pid.filter(|pid| cgroups.group(instance).processes().contains(pid));
    let Some(pid) = pid.and_then(Pid::from_raw) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let Some(signal) = Signal::from_named_raw(policy.signal) else { return };
    if pidfd_send_signal(&pidfd, signal).is_ok() {
        let limit = Timespec::try_from(policy.grace).unwrap_or_default();
        // However this ends, what is left is killed next.
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
    }
}
