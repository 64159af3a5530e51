//! Gives a child its interface before its program runs, and takes back what a failed start leaves.

use std::error::Error;
use std::path::Path;

use kiln_netns::Namespace;

use super::protocol::{LaunchError, NetworkAttachment, Stage};
use crate::network::{self, AttachSpec};

/// Puts `eth0`, with its address and default route, into the namespace of the process `pid`;
/// the other end hangs on the bridge in the namespace pinned at `namespace`.
pub(super) fn attach(
    attachment: &NetworkAttachment,
    namespace: &Path,
    instance: &str,
    pid: i32,
) -> Result<(), LaunchError> {
    let network = Namespace::open(namespace).map_err(failed)?;
    let inside = Namespace::of_process(pid.unsigned_abs()).map_err(failed)?;
    network::attach(&network, &inside, &spec(attachment, instance)).map_err(failed)
}

/// Undoes [`attach`]. What is not there is fine, the network included.
pub(super) fn detach(
    attachment: &NetworkAttachment,
    namespace: &Path,
    instance: &str,
) -> Result<(), network::Error> {
    let Ok(network) = Namespace::open(namespace) else { return Ok(()) };
    network::detach(&network, &spec(attachment, instance))
}

fn spec(attachment: &NetworkAttachment, instance: &str) -> AttachSpec {
    AttachSpec {
        instance: instance.to_owned(),
        address: attachment.address,
        prefix_bits: attachment.prefix_bits,
        gateway: attachment.gateway,
    }
}

fn failed(error: impl Error) -> LaunchError {
    let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
    LaunchError::new(Stage::Network, format!("{error}{cause}"))
}
