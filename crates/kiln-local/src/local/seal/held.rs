//! A file that is watched, and what is known of it.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;

use crate::launcher::protocol::Stamp;

/// For how long a file is held that no instance was seen to use.
const UNUSED: Duration = Duration::from_secs(300);

/// A file that is watched.
pub(super) struct Held {
    pub(super) file: Arc<File>,
    pub(super) path: String,
    pub(super) digest: Option<Digest>,
    pub(super) state: State,
    /// When it was last started from, or seen in use.
    pub(super) used_at: Instant,
    /// As what it was found right and has been so since: first, and after each harmless change.
    good: Vec<Stamp>,
    /// Why those that are not good are not.
    reason: Option<String>,
}

/// What is known of a file.
pub(super) enum State {
    /// It is as the last of its good stamps says.
    Intact,
    /// It is being read.
    Reading,
    /// It is not what it should be, or was not for a time.
    Altered,
}

impl Held {
    /// A file of which nothing is known yet.
    pub(super) fn of(file: File, path: String, digest: Option<Digest>) -> Self {
        let (file, used_at) = (Arc::new(file), Instant::now());
        Self { file, path, digest, state: State::Reading, used_at, good: Vec::new(), reason: None }
    }

    /// Takes over what was known of the file before.
    pub(super) fn inherit(&mut self, known: Self) {
        self.good = known.good;
        self.reason = known.reason;
    }

    /// The file was read in full, and is right.
    pub(super) fn accept(&mut self, stamp: Stamp) {
        self.good.push(stamp);
        self.state = State::Intact;
    }

    /// The file is not, or was not for a time, what it should be: no instance that was started from
    /// it until now is good. Gives true where that is new.
    pub(super) fn alter(&mut self, how: String) -> bool {
        let new = !matches!(self.state, State::Altered);
        self.state = State::Altered;
        self.good.clear();
        self.reason = Some(how);
        new
    }

    /// As what the file may be mounted.
    pub(super) fn accepted(&self) -> Option<Stamp> {
        matches!(self.state, State::Intact).then(|| self.good.last().copied()).flatten()
    }

    /// What is wrong with an instance that was started from the file as it was then.
    pub(super) fn complaint(&self, then: &Stamp) -> Option<String> {
        if self.good.contains(then) || matches!(self.state, State::Reading) {
            return None;
        }
        let how = self.reason.as_deref().unwrap_or("it is not as it was when they were started");
        Some(format!("altered: {how}"))
    }

    /// Whether it is to be held on to.
    pub(super) fn is_needed(&self) -> bool {
        self.used_at.elapsed() < UNUSED
    }
}
