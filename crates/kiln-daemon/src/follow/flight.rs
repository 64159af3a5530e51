//! The rollout of one commit, watched while the next commit is prepared.

use std::fmt::Write as _;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_engine::journal::{AbandonKind, Abandonment};
use kiln_engine::progress::ProgressEvent;
use kiln_model::plan::{Reason, Waiting};
use tokio::task::JoinHandle;

use crate::api::{Decision, End, Line};
use crate::client::{ClientError, Lines};

use super::worker::Message;

/// How long a rollout whose instances fail may stand still once a newer commit is ready.
const PATIENCE_WITH_FAILURE: Duration = Duration::from_millis(1_500);
/// The same for one of which nothing bad is known: it may only be slow.
const PATIENCE: Duration = Duration::from_secs(15);

/// How a rollout ended.
#[derive(Debug, Clone)]
pub(super) enum Landing {
    /// The generation serves.
    Active(u64),
    /// The stack had this content already: this generation's.
    Unchanged(u64),
    /// It was given up.
    Abandoned(u64, Abandonment),
    /// The daemon went away.
    Lost(String),
}

/// A rollout under way.
pub(super) struct Flight {
    seen: Arc<Mutex<Seen>>,
    watcher: JoinHandle<()>,
}

struct Seen {
    generation: Option<u64>,
    /// When it last came a step further.
    advanced: Instant,
    /// Whether instances fail.
    failing: bool,
    landing: Option<Landing>,
}

impl Flight {
    /// Watches a change to its end, of which `told` hears. Called within a runtime.
    pub(super) fn watch(mut lines: Lines, told: Sender<Message>) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            generation: None,
            advanced: Instant::now(),
            failing: false,
            landing: None,
        }));
        let shared = seen.clone();
        let watcher = tokio::spawn(async move {
            loop {
                let line = lines.next().await;
                let over = lock(&shared).take_in(line);
                if over {
                    // Nobody listening any more: the process ends.
                    let _ = told.send(Message::Landed);
                    return;
                }
            }
        });
        Self { seen, watcher }
    }

    /// How it ended, if it has.
    pub(super) fn landing(&self) -> Option<Landing> {
        lock(&self.seen).landing.clone()
    }

    /// Whether a newer commit need not wait for it any longer.
    pub(super) fn is_stuck(&self) -> bool {
        let seen = lock(&self.seen);
        let patience = if seen.failing { PATIENCE_WITH_FAILURE } else { PATIENCE };
        seen.advanced.elapsed() > patience
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // What is behind it is whole between any two statements.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Takes in a line of the daemon's; whether it is over.
    fn take_in(&mut self, line: Result<Option<Line>, ClientError>) -> bool {
        match line {
            Ok(Some(Line::Decided(decision))) => {
                self.generation = Some(decision.generation());
                if let Decision::Unchanged(generation) = decision {
                    self.landing = Some(Landing::Unchanged(generation));
                }
            }
            Ok(Some(Line::Progress(progress))) => self.hear(&progress.event),
            Ok(Some(Line::End(End::Active { generation, .. }))) => {
                self.landing.get_or_insert(Landing::Active(generation));
            }
            Ok(Some(Line::End(End::Abandoned { generation, reason, .. }))) => {
                self.landing.get_or_insert(Landing::Abandoned(generation, reason));
            }
            Ok(None) => {
                self.landing.get_or_insert(Landing::Lost("the daemon has ended".to_owned()));
            }
            Err(error) => {
                self.landing.get_or_insert(Landing::Lost(error.to_string()));
            }
        }
        self.landing.is_some()
    }

    fn hear(&mut self, event: &ProgressEvent) {
        match event {
            // What it has replaced drains on; that need not be waited for.
            ProgressEvent::Active { generation } if Some(*generation) == self.generation => {
                self.landing = Some(Landing::Active(*generation));
            }
            ProgressEvent::Failed { .. } => self.failing = true,
            ProgressEvent::Waiting { waiting } => self.failing |= waiting.iter().any(is_failing),
            ProgressEvent::Converged { .. } | ProgressEvent::Abandoned { .. } => {}
            _ => self.advanced = Instant::now(),
        }
    }
}

/// Whether what a server waits for is more than time.
fn is_failing(waiting: &Waiting) -> bool {
    match &waiting.why {
        Some(Reason::Unready { .. } | Reason::Ended { .. } | Reason::BackingOff) => true,
        // A server that does not listen yet may be about to.
        Some(Reason::NeverReady { last: Some(last) }) => !last.contains("connection refused"),
        _ => false,
    }
}

/// Why a generation was given up, in a few lines.
pub(super) fn why(reason: &Abandonment) -> String {
    let mut text = match reason.kind {
        AbandonKind::Deadline => "it was not healthy at its deadline",
        AbandonKind::Worse => "its instances did worse than those before",
        AbandonKind::Refused => "a step of it is not possible here",
        AbandonKind::Cancelled => "its rollout was cancelled",
        AbandonKind::Superseded => "another generation took its place",
    }
    .to_owned();
    for blame in &reason.blame {
        let component = blame.component.as_ref().map(|c| format!("{c}: ")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{component}{}", blame.cause);
        for line in blame.last_words.iter().rev().take(5).rev() {
            let _ = write!(text, "\n| {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use kiln_engine::journal::Blame;
    use kiln_engine::progress::Progress;
    use kiln_model::quantity::Timestamp;

    use super::*;

    fn seen() -> Seen {
        Seen { generation: None, advanced: Instant::now(), failing: false, landing: None }
    }

    fn progress(event: ProgressEvent) -> Line {
        let stack = "shop".parse().unwrap();
        Line::Progress(Progress { at: Timestamp(1), stack, event })
    }

    #[test]
    fn it_lands_when_its_own_generation_serves() {
        let mut flight = seen();
        assert!(!flight.take_in(Ok(Some(Line::Decided(Decision::Started(7))))));
        assert!(!flight.take_in(Ok(Some(progress(ProgressEvent::Active { generation: 6 })))));
        assert!(flight.take_in(Ok(Some(progress(ProgressEvent::Active { generation: 7 })))));
        assert!(matches!(flight.landing, Some(Landing::Active(7))));
        let mut same = seen();
        assert!(same.take_in(Ok(Some(Line::Decided(Decision::Unchanged(3))))));
        let mut lost = seen();
        assert!(lost.take_in(Ok(None)));
        assert!(matches!(lost.landing, Some(Landing::Lost(_))));
    }

    #[test]
    fn a_slow_start_is_told_from_a_failing_one() {
        let waiting = |why| Waiting {
            component: "server.web".parse().unwrap(),
            wanted: 1,
            ready: 0,
            starting: 1,
            why,
        };
        let never = |last: &str| Some(Reason::NeverReady { last: Some(last.to_owned()) });
        assert!(!is_failing(&waiting(None)));
        assert!(!is_failing(&waiting(never("connection refused"))));
        assert!(is_failing(&waiting(never("GET /healthz answered 503"))));
        assert!(is_failing(&waiting(Some(Reason::BackingOff))));
    }

    #[test]
    fn the_reason_names_what_stood_in_the_way() {
        let reason = Abandonment {
            kind: AbandonKind::Deadline,
            blame: vec![Blame {
                component: Some("server.web".parse().unwrap()),
                cause: "never ready".to_owned(),
                last_words: (0..9).map(|n| n.to_string()).collect(),
            }],
        };
        let text = why(&reason);
        assert_eq!(
            text,
            "it was not healthy at its deadline\nserver.web: never ready\n| 4\n| 5\n| 6\n| 7\n| 8"
        );
    }
}
