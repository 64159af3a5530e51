//! The clients, each a task of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::pace::Beat;
use crate::requests::Asker;
use crate::{Aim, Group, Kind, Shared, sessions};

/// How long an answer may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why something has failed.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs all clients until they are told to stop.
pub(crate) async fn run(aim: Aim, groups: &[Group], shared: &Arc<Shared>) {
    let mut clients = Vec::new();
    for group in groups {
        for number in 0..group.clients {
            #[expect(clippy::cast_precision_loss, reason = "a few clients")]
            let share = number as f64 / group.clients as f64;
            let client = Client { aim, group: *group, shared: Arc::clone(shared) };
            clients.push(tokio::spawn(client.run(share)));
        }
    }
    for client in clients {
        if let Err(error) = client.await {
            shared.ledger.failed(format!("a client: {error}"));
        }
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) aim: Aim,
    pub(crate) group: Group,
    shared: Arc<Shared>,
}

impl Client {
    async fn run(self, share: f64) {
        let mut beat = Beat::new(self.group.pace, share);
        match self.group.kind {
            Kind::Http1Kept | Kind::Http1Fresh | Kind::Http2 => self.ask(&mut beat).await,
            Kind::Download | Kind::WebSocket | Kind::Tcp => self.repeat(&mut beat).await,
        }
    }

    async fn ask(&self, beat: &mut Beat) {
        let (mut asker, mut number) = (Asker::new(self), 0_u64);
        while !self.shared.stop.load(Relaxed) {
            let from = beat.next().await;
            let post = self.group.posts && number % 2 == 1;
            number += 1;
            let answer = bounded(asker.ask(post)).await;
            let what = if post { "POST" } else { "GET" };
            self.note(what, answer, from);
            beat.answered();
        }
    }

    /// One session after the other.
    async fn repeat(&self, beat: &mut Beat) {
        while !self.shared.stop.load(Relaxed) {
            beat.restart();
            let session = match self.group.kind {
                Kind::Download => sessions::download(self, beat).await,
                Kind::WebSocket => sessions::web_socket(self, beat).await,
                _ => sessions::tcp(self, beat).await,
            };
            if let Err(error) = session {
                self.failed("session", &error);
                // One that nobody serves must not be asked for in a tight loop.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// What was asked at `from` was answered.
    pub(crate) fn answered(&self, from: Instant) {
        let phase = self.shared.phase.load(Relaxed);
        self.shared.ledger.answered_in(self.group.kind, phase, from.elapsed());
    }

    /// A connection had been ended as the protocol has it.
    pub(crate) fn reopened(&self) {
        self.shared.ledger.reopened();
    }

    fn note(&self, what: &str, asked: Outcome, from: Instant) {
        match asked {
            Ok(()) => self.answered(from),
            Err(error) => self.failed(what, &error),
        }
    }

    fn failed(&self, what: &str, error: &Error) {
        let kind = self.group.kind.name();
        self.shared.ledger.failed(format!("{what}: {kind}: {}", chain(error.as_ref())));
    }
}

/// What becomes of one thing that is asked.
pub(crate) type Outcome = Result<(), Error>;

/// Waits for something, for no longer than patience lasts.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_late| Err("no answer in time".into()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
