//! Gives a child its interface before its program runs.

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
    let failed = |error: &dyn std::error::Error| {
        let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
        LaunchError::new(Stage::Network, format!("{error}{cause}"))
    };
    let network = Namespace::open(namespace).map_err(|e| failed(&e))?;
    let inside = Namespace::of_process(pid.unsigned_abs()).map_err(|e| failed(&e))?;
    let spec = AttachSpec {
        instance: instance.to_owned(),
        address: attachment.address,
        prefix_bits: attachment.prefix_bits,
        gateway: attachment.gateway,
    };
    network::attach(&network, &inside, &spec).map_err(|e| failed(&e))
}
