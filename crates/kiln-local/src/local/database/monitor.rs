//! One running instance of a database: asked all the time, over its socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kiln_database::{EngineError, Session, State, engine};
use kiln_model::data::Role;
use kiln_model::drift::{Aspect, Drift};
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::Verdict;
use kiln_model::quantity::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::follow::Follows;
use super::place::Place;
use super::upgrade::{Guide, Way};
use super::{DataLabels, lock};
use crate::local::labels::{has_started, mark_started};
use crate::local::now;

/// From one question to the next, while something is waited for and otherwise.
const SOON: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_millis(200);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// The same for what may wait for locks, or writes much.
const DECLARING: Duration = Duration::from_secs(30);
/// One that was ready and has not answered for so long is of no use any more.
const SILENCE: Duration = Duration::from_secs(5);
/// From one look for what differs to the next.
const DRIFT: Duration = Duration::from_secs(2);

/// Whom it is about.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) root: PathBuf,
    pub(super) id: InstanceId,
    pub(super) stack: StackName,
    pub(super) component: ComponentId,
    /// The directory of its socket.
    pub(super) sockets: PathBuf,
    /// Its data directory.
    pub(super) data: PathBuf,
    pub(super) place: Place,
    pub(super) labels: DataLabels,
    pub(super) alarm: Arc<Notify>,
    pub(super) follows: Arc<Follows>,
}

/// What an instance has told so far.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// What it said last, and when.
    pub(super) state: Option<(State, Timestamp)>,
    pub(super) verdict: Verdict,
    pub(super) drift: Vec<Drift>,
    /// What is to be in it was declared, since it takes writes.
    declared: bool,
    answered: Instant,
}

/// Asks one instance until it is dropped.
pub(super) struct Monitor {
    shared: Arc<Shared>,
    task: AbortHandle,
    /// Where it takes over from one of an older version.
    _guide: Option<Guide>,
}

struct Shared {
    subject: Subject,
    told: Mutex<Told>,
    /// How far it has come where it takes over from one of an older version.
    way: Arc<Mutex<Way>>,
    /// Somebody wants to know now.
    asked: Notify,
    /// How many questions were put so far, answered or not.
    rounds: watch::Sender<u64>,
    hurried: watch::Sender<bool>,
}

impl Monitor {
    pub(super) fn start(runtime: &Handle, subject: Subject, hurried: bool) -> Self {
        let told = Told {
            state: None,
            verdict: Verdict::Starting { last: None },
            drift: Vec::new(),
            declared: false,
            answered: Instant::now(),
        };
        let way = Arc::new(Mutex::new(Way::begun()));
        let guide = Guide::start(runtime, &subject, way.clone());
        let shared = Arc::new(Shared {
            subject,
            told: Mutex::new(told),
            way,
            asked: Notify::new(),
            rounds: watch::Sender::new(0),
            hurried: watch::Sender::new(hurried),
        });
        let task = runtime.spawn(shared.clone().run()).abort_handle();
        Self { shared, task, _guide: guide }
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.shared.subject
    }

    pub(super) fn told(&self) -> Told {
        self.shared.told().clone()
    }

    pub(super) fn hurry(&self, hurried: bool) {
        self.shared
            .hurried
            .send_if_modified(|before| std::mem::replace(before, hurried) != hurried);
        if hurried {
            self.shared.asked.notify_one();
        }
    }

    /// Asks now; the future ends when a question that was put after this was answered.
    pub(super) fn ask_now(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut rounds = self.shared.rounds.subscribe();
        // The question under way may have been put before.
        let wanted = *rounds.borrow_and_update() + 2;
        let shared = self.shared.clone();
        async move {
            loop {
                shared.asked.notify_one();
                if *rounds.borrow_and_update() >= wanted || rounds.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Another has declared what is to be in it.
    pub(super) fn note_declared(&self) {
        self.shared.told().declared = true;
        self.shared.asked.notify_one();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    async fn run(self: Arc<Self>) {
        let mut hurried = self.hurried.subscribe();
        let mut session = None;
        let mut looked = None;
        loop {
            let asked_at = now();
            let answer = self.ask(&mut session).await;
            if answer.is_err() {
                session = None;
            }
            self.heard(answer, asked_at);
            if let Some(session) = &mut session {
                let role = self.told().state.as_ref().map(|(state, _)| state.role);
                self.look(&mut **session, role, &mut looked).await;
            }
            self.rounds.send_modify(|rounds| *rounds += 1);
            let hurry = *hurried.borrow_and_update();
            let ready = matches!(self.told().verdict, Verdict::Ready { .. });
            let pause = if ready && !hurry { CALM } else { SOON };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.asked.notified() => {}
                _ = hurried.changed() => {}
            }
        }
    }

    /// Asks once. What takes writes has declared in it first what is to be there.
    async fn ask(
        &self,
        session: &mut Option<Box<dyn Session>>,
    ) -> Result<(State, bool), EngineError> {
        let identity = &self.subject.labels.identity;
        let late = |what: &str| EngineError::Silent(format!("no answer {what} in time"));
        let session = if let Some(session) = session {
            session
        } else {
            let connect = engine(identity.engine).connect(&self.subject.sockets);
            let opened = tokio::time::timeout(ANSWER, connect).await;
            session.insert(opened.map_err(|_| late("to a connection"))??)
        };
        let state = tokio::time::timeout(ANSWER, session.state()).await;
        let state = state.map_err(|_| late("to a question"))??;
        let declared = match state.role {
            Role::Standby if matches!(self.told().verdict, Verdict::Starting { .. }) => {
                // Before it could ever have to have it.
                let lacks = tokio::time::timeout(ANSWER, session.lacks(identity)).await;
                let lacks = lacks.map_err(|_| late("to what it lacks"))??;
                if !lacks.is_empty() {
                    let text = format!("its image lacks {}", lacks.join(", "));
                    return Err(EngineError::Refused(text));
                }
                false
            }
            Role::Standby => false,
            Role::Primary if self.told().declared => true,
            Role::Primary => {
                let declare = tokio::time::timeout(DECLARING, session.declare(identity)).await;
                declare.map_err(|_| late("to what is declared"))??;
                true
            }
        };
        Ok((state, declared))
    }

    fn heard(&self, answer: Result<(State, bool), EngineError>, asked_at: Timestamp) {
        let mut told = self.told();
        let before = told.clone();
        match answer {
            Ok((state, declared)) => {
                told.answered = Instant::now();
                self.subject.follows.heard(&self.subject.id, &state);
                told.declared = declared;
                told.verdict = self.verdict_of(&state, &before.verdict);
                told.state = Some((state, asked_at));
            }
            Err(error) => told.verdict = verdict_of_silence(&before, &error),
        }
        let hurried = *self.hurried.borrow();
        if differs(&before, &told, hurried) {
            self.subject.alarm.notify_one();
        }
    }

    fn verdict_of(&self, state: &State, before: &Verdict) -> Verdict {
        let started = || has_started(&self.subject.root, self.subject.id.as_str());
        if let Some(verdict) = lock(&self.way).verdict().filter(|_| state.takes_over) {
            return verdict;
        }
        match (before, state.role) {
            (Verdict::Ready { .. } | Verdict::Dead { .. }, _) => before.clone(),
            // One that has followed its primary before is as good as then, even if that is gone.
            (_, Role::Standby) if !state.receives && !started() => {
                Verdict::Starting { last: Some("it does not follow its primary yet".to_owned()) }
            }
            _ => {
                if let Err(error) = mark_started(&self.subject.root, self.subject.id.as_str()) {
                    eprintln!("kiln: cannot note that {} has started: {error}", self.subject.id);
                }
                Verdict::Ready { since: now() }
            }
        }
    }

    /// Looks for what somebody has changed by hand.
    async fn look(
        &self,
        session: &mut dyn Session,
        role: Option<Role>,
        looked: &mut Option<Instant>,
    ) {
        if looked.is_some_and(|at| at.elapsed() < DRIFT) {
            return;
        }
        *looked = Some(Instant::now());
        let mut drift = Vec::new();
        let engine = engine(self.subject.labels.identity.engine);
        if let Some(found) = engine.strange_settings(&self.subject.data) {
            drift.push(Drift::new(Aspect::Settings, "no settings by hand", found));
        }
        // What a standby has it has from its primary.
        if role == Some(Role::Primary) {
            let names = tokio::time::timeout(ANSWER, session.strange_superusers()).await;
            if let Ok(Ok(names)) = names
                && !names.is_empty()
            {
                drift.push(Drift::new(Aspect::Superusers, "none but Kiln's", names.join(", ")));
            }
        }
        let mut told = self.told();
        // As with every drift: what has differed once is not as it was, also where it was set back.
        if told.drift.is_empty() && !drift.is_empty() {
            eprintln!("kiln: {} has drifted: {}", self.subject.id, drift[0].found);
            told.drift = drift;
            self.subject.alarm.notify_one();
        }
    }
}

/// What one that does not answer is worth.
fn verdict_of_silence(before: &Told, error: &EngineError) -> Verdict {
    match &before.verdict {
        Verdict::Ready { .. } if before.answered.elapsed() >= SILENCE => {
            let reason = format!("it has not answered for {} s: {error}", SILENCE.as_secs());
            Verdict::Dead { since: now(), reason }
        }
        Verdict::Ready { .. } | Verdict::Dead { .. } | Verdict::Unready { .. } => {
            before.verdict.clone()
        }
        Verdict::Starting { .. } => Verdict::Starting { last: Some(error.to_string()) },
    }
}

/// Whether somebody has to look again.
fn differs(before: &Told, after: &Told, hurried: bool) -> bool {
    let kind = std::mem::discriminant::<Verdict>;
    if kind(&before.verdict) != kind(&after.verdict) {
        return true;
    }
    let what = |told: &Told| {
        let (state, _) = told.state.as_ref()?;
        // How far it is counts only where somebody waits for it.
        let position = if hurried { state.position } else { 0 };
        Some((state.role, state.receives, state.followers.clone(), position))
    };
    what(before) != what(after)
}
