//! What the gateway has in `ROOT/run`.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::{server, socket_path};
use crate::handover::{Offer, SocketName};
use crate::process::lock::Lock;
use crate::process::run::RunError;

/// How long a predecessor that is about to end is waited for.
const PREDECESSOR: Duration = Duration::from_secs(2);

/// The lock, the control socket and the file with the process's id; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Presence {
    socket: PathBuf,
    pid_file: PathBuf,
    listener: UnixListener,
    /// Whether the files belong to another process now.
    left: bool,
    /// Released last, so that a successor's files are never removed.
    lock: Lock,
}

impl Presence {
    /// Takes the root, from a running gateway where there is one.
    pub(super) fn take(root: &Path) -> Result<(Self, Option<Offer>), RunError> {
        let run = root.join("run");
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| RunError::File { path, source }
        };
        fs::create_dir_all(&run).map_err(file_error(&run))?;
        let (socket, pid_file) = (socket_path(root), run.join("gateway.pid"));
        let path = run.join("gateway.lock");
        let take = |patience| Lock::take(&path, patience).map_err(file_error(&path));
        let reason = match take(Duration::ZERO)? {
            Some(lock) => return Self::begin(root, lock).map(|presence| (presence, None)),
            None => match Offer::ask(root) {
                Ok(mut offer) => {
                    let lock = offer.sockets.take(&SocketName::Lock).map(Lock::from);
                    let listener = offer.sockets.take(&SocketName::Control);
                    if let (Some(lock), Some(listener)) = (lock, listener.map(UnixListener::from)) {
                        let presence = Self { socket, pid_file, listener, left: false, lock };
                        return Ok((presence, Some(offer)));
                    }
                    std::io::ErrorKind::InvalidData.into()
                }
                Err(reason) => reason,
            },
        };
        // It may have been about to end.
        match take(PREDECESSOR)? {
            Some(lock) => Self::begin(root, lock).map(|presence| (presence, None)),
            None => Err(RunError::Running { pid_file, reason }),
        }
    }

    fn begin(root: &Path, lock: Lock) -> Result<Self, RunError> {
        let socket = socket_path(root);
        let pid_file = root.join("run/gateway.pid");
        let bound = server::bind(root);
        let listener = bound.map_err(|source| RunError::File { path: socket.clone(), source })?;
        Ok(Self { socket, pid_file, listener, left: false, lock })
    }

    /// Writes down which process it is. Until then it is the one before, if there is one.
    pub(super) fn announce(&self) -> Result<(), RunError> {
        let pid = format!("{}\n", std::process::id());
        fs::write(&self.pid_file, pid)
            .map_err(|source| RunError::File { path: self.pid_file.clone(), source })
    }

    pub(crate) fn lock(&self) -> &Lock {
        &self.lock
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Leaves everything to another process, which has copies of the descriptors.
    pub(crate) fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if !self.left {
            // What cannot be removed is replaced by the next gateway.
            let _ = fs::remove_file(&self.socket);
            let _ = fs::remove_file(&self.pid_file);
        }
    }
}
