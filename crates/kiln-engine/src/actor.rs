//! Who has decided or done what a journal says.

use serde::{Deserialize, Serialize};

/// Who stands behind an entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Kiln itself: a keeper that heals, scales or carries a rollout on, or the daemon.
    Keeper,
    /// A process that has asked through the daemon's socket.
    Peer(Box<Peer>),
}

/// A process that asks, as the kernel knows it: nothing here is what it says of itself, but for
/// `cause`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its user (`SO_PEERCRED`).
    pub uid: u32,
    /// Its process id.
    pub pid: i32,
    /// The path of its program; empty where it had ended before it was looked at.
    pub program: String,
    /// The user that has logged in, whoever it has become since (`/proc/PID/loginuid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<u32>,
    /// The device of its terminal, such as `pts/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
    /// What it follows, where it is a follower that this daemon has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Followed>,
}

/// A branch that is followed, and the commit that is acted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// The repository.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// The commit that was proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What had the branch looked at, as the follower says: `webhook`, or nothing for its own look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Actor {
    /// Whether it is Kiln itself.
    pub fn is_keeper(&self) -> bool {
        matches!(self, Self::Keeper)
    }

    /// The same actor, where it follows a branch acting for a commit, which something gave rise to.
    #[must_use]
    pub fn for_commit(mut self, commit: Option<&str>, cause: Option<String>) -> Self {
        if let Self::Peer(peer) = &mut self
            && let Some(followed) = &mut peer.follows
        {
            followed.commit = commit.map(str::to_owned);
            followed.cause = cause;
        }
        self
    }
}

impl std::fmt::Display for Actor {
    /// In a few words: `uid 0 (pid 4711, /usr/bin/kiln, login 1000, pts/3)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Peer(peer) = self else { return f.write_str("keeper") };
        if let Some(followed) = &peer.follows {
            write!(f, "follower of {} of {}", followed.branch, followed.url)?;
            if let Some(commit) = &followed.commit {
                write!(f, " at {}", commit.get(..12).unwrap_or(commit))?;
            }
            if let Some(cause) = &followed.cause {
                write!(f, " by {cause}")?;
            }
            return write!(f, " (pid {})", peer.pid);
        }
        write!(f, "uid {} (pid {}", peer.uid, peer.pid)?;
        if !peer.program.is_empty() {
            write!(f, ", {}", peer.program)?;
        }
        if let Some(login) = peer.login {
            write!(f, ", login {login}")?;
        }
        if let Some(terminal) = &peer.terminal {
            write!(f, ", {terminal}")?;
        }
        f.write_str(")")
    }
}
