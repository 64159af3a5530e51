//! When to try again, and when to give up.

use std::time::{Duration, Instant};

use super::{Registry, RegistryError};

/// The longest pause between two attempts that nobody asked for.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause that a server can ask for.
const MAX_WANTED_PAUSE: Duration = Duration::from_secs(60);

/// Why an attempt did not succeed.
pub(super) enum Trouble {
    /// It can help to try again.
    Again(Box<dyn std::error::Error + Send + Sync>),
    /// The server is busy or fails; it can help to try again, after so long if it says so.
    Busy { status: u16, after: Option<Duration> },
    /// It can't help.
    Failed(RegistryError),
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Self {
        Self::Failed(error)
    }
}

/// The attempts at one thing.
pub(super) struct Tries<'a> {
    url: &'a str,
    attempts: u32,
    most: u32,
    first_pause: Duration,
    pause: Duration,
    deadline: Instant,
}

impl Registry {
    pub(super) fn tries<'a>(&self, url: &'a str) -> Tries<'a> {
        Tries {
            url,
            attempts: 0,
            most: self.patience.attempts,
            first_pause: self.patience.first_pause,
            pause: self.patience.first_pause,
            deadline: Instant::now() + self.patience.whole,
        }
    }

    /// Tries until it is done, fails for good, or patience ends.
    pub(super) fn retry<T>(
        &self,
        url: &str,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, RegistryError> {
        let mut tries = self.tries(url);
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(trouble) => tries.pause(trouble)?,
            }
        }
    }
}

impl Tries<'_> {
    /// Forgets the attempts: the last one brought something.
    pub(super) fn progressed(&mut self) {
        self.attempts = 0;
        self.pause = self.first_pause;
    }

    /// Waits before the next attempt, or says why there is none.
    pub(super) fn pause(&mut self, trouble: Trouble) -> Result<(), RegistryError> {
        self.attempts += 1;
        let wanted = match &trouble {
            Trouble::Busy { after: Some(after), .. } => (*after).min(MAX_WANTED_PAUSE),
            _ => Duration::ZERO,
        };
        let pause = self.pause.max(wanted);
        let last = self.attempts >= self.most || Instant::now() + pause > self.deadline;
        let (url, attempts) = (self.url.to_owned(), self.attempts);
        match trouble {
            Trouble::Failed(error) => return Err(error),
            Trouble::Again(source) if last => {
                return Err(RegistryError::Unreachable { url, attempts, source });
            }
            Trouble::Busy { status: 429, .. } if last => {
                return Err(RegistryError::Limited { url, attempts });
            }
            Trouble::Busy { status, .. } if last => {
                let said = format!("{attempts} attempts; try later");
                return Err(RegistryError::Status { url, status, said });
            }
            Trouble::Again(_) | Trouble::Busy { .. } => {}
        }
        std::thread::sleep(pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}
