//! What is listened to of one instance or network.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use kiln_netns::Namespace;

use crate::guard::Subject;
use crate::network::Listener;

/// An instance's mounts and network.
pub(super) struct InstanceEars {
    /// `/proc/PID/mountinfo`, which is ready for exceptional reading when it has changed.
    mounts: File,
    network: Option<Listener>,
}

impl InstanceEars {
    pub(super) fn open(subject: &Subject) -> io::Result<Self> {
        Ok(Self {
            mounts: File::open(format!("/proc/{}/mountinfo", subject.main))?,
            network: subject.network_namespace().and_then(|it| Listener::new(&it)).ok(),
        })
    }

    pub(super) fn mounts(&self) -> BorrowedFd<'_> {
        self.mounts.as_fd()
    }

    pub(super) fn network(&self) -> Option<&Listener> {
        self.network.as_ref()
    }
}

/// A network's.
pub(super) struct NetworkEars {
    pub(super) network: Listener,
}

impl NetworkEars {
    pub(super) fn open(namespace: &Namespace) -> io::Result<Self> {
        Ok(Self { network: Listener::new(namespace)? })
    }
}
