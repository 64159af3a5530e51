//! One client's session: relayed to the instance that answers, held, carried to the next.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::cancel::Registered;
use super::carry::{self, Parameters, State, Stays};
use super::gate::{Aim, FENCE, Member, Stand};
use super::link::{Link, Unreached};
use super::pipe::{Inlet, Outlet};
use super::start::Startup;
use super::tracker::Tracker;
use super::wire::{self, code};
use crate::client::Stream;
use crate::listener::{Phase, closed, overdue};

/// How long a session waits for an instance that ought to answer.
const WAIT: Duration = Duration::from_secs(60);

/// How long an instance is asked at short intervals, and at which; later at longer ones.
const EAGER: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(5);
const LATER: Duration = Duration::from_millis(100);

/// How long a state may take to be asked for while clients are held.
const CAPTURE: Duration = Duration::from_secs(5);

/// How long the state of a session may take to be restored.
const RESTORE: Duration = Duration::from_secs(5);

/// How long a client may take to read why its session ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often it is looked whether a client that is held is still there.
const LOOK: Duration = Duration::from_millis(500);

/// What a client is told whose question has no certain end.
const GONE: &str = "terminating connection: the database's instance is gone; whether the last \
                    transaction was committed is not known";

/// A client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Stream,
    pub(super) inlet: Inlet,
    pub(super) outlet: Outlet,
    pub(super) link: Option<Link>,
    pub(super) tracker: Tracker,
    pub(super) startup: Startup,
    pub(super) member: Member,
    pub(super) cancel: Registered,
    /// Whether nothing new is taken from the client.
    pub(super) holds: bool,
    /// Whether the instance has said that it ends the session.
    pub(super) ending: bool,
    /// Whether an instance has ever answered.
    greeted: bool,
    /// What the instance said of settings at the beginning, and what the client knows of them.
    began: Parameters,
    pub(super) told: Parameters,
    /// What the session has, as it was when it was last asked.
    state: Option<Result<State, Stays>>,
    /// Since when an instance has been waited for that ought to answer.
    waits_since: Option<Instant>,
}

/// Why a session stops to pass on.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing is under way and nothing new is taken.
    Idle,
    /// The instance is gone.
    Lost,
    /// The client is gone, or has said goodbye.
    Done,
    /// The session ends with this.
    Fatal(&'static str, String),
}

/// What comes from outside a session.
struct Around {
    aim: watch::Receiver<Aim>,
    phase: watch::Receiver<Phase>,
}

impl Session {
    pub(super) fn new(
        client: Stream,
        startup: Startup,
        member: Member,
        cancel: Registered,
    ) -> Self {
        Self {
            client,
            inlet: Inlet::default(),
            outlet: Outlet::default(),
            link: None,
            tracker: Tracker::new(),
            startup,
            member,
            cancel,
            holds: false,
            ending: false,
            greeted: false,
            began: Parameters::new(),
            told: Parameters::new(),
            state: None,
            waits_since: None,
        }
    }

    /// Serves the client until either side has enough.
    pub(super) async fn run(mut self, aim: watch::Receiver<Aim>, phase: watch::Receiver<Phase>) {
        let mut around = Around { aim, phase };
        loop {
            let aim = around.aim.borrow_and_update().clone();
            let turn = self.follow(&aim, &mut around).await;
            match turn {
                None | Some(Turn::Idle) => {}
                Some(Turn::Lost) => {
                    if let Some(turn) = self.lose(&aim) {
                        return self.end(turn).await;
                    }
                }
                Some(turn) => return self.end(turn).await,
            }
        }
    }

    /// Does what the aim wants, until something else is to be done.
    async fn follow(&mut self, aim: &Aim, around: &mut Around) -> Option<Turn> {
        if aim.gone {
            return Some(fatal("terminating connection: the database is no longer served here"));
        }
        let linked = self.link.as_ref().map(|link| link.linked.instance.clone());
        match linked {
            Some(instance) if aim.is_at(&instance) => {
                self.holds = aim.holds;
                if !self.holds {
                    self.member.stand(aim.turn, Stand::Going);
                } else if self.is_idle() {
                    if !self.capture(CAPTURE).await {
                        return Some(Turn::Lost);
                    }
                    self.member.stand(aim.turn, Stand::Quiet);
                }
                self.pass(around).await
            }
            Some(_) => self.leave(aim).await,
            None if aim.open().is_some() => self.reach(aim, around).await,
            None => {
                self.member.stand(aim.turn, Stand::Quiet);
                self.wait(around).await
            }
        }
    }

    /// Passes on both ways until something is to be done.
    async fn pass(&mut self, around: &mut Around) -> Option<Turn> {
        let idle_before = self.is_idle();
        let Around { aim, phase } = around;
        let holds = self.holds;
        let passed = tokio::select! {
            turn = std::future::poll_fn(|cx| self.poll_pass(cx, idle_before)) => Some(turn),
            _aim = aim.changed() => None,
            () = overdue(phase) => Some(removed()),
            () = sleep(LOOK), if holds => None,
        };
        if passed.is_none() && holds && self.is_client_gone() {
            return Some(Turn::Done);
        }
        passed
    }

    /// Waits without an instance.
    async fn wait(&mut self, around: &mut Around) -> Option<Turn> {
        let deadline = self.waits_since.map(|since| since + WAIT);
        let flush = async {
            // What is for the client goes to it also meanwhile.
            let _ = self.outlet.flush(&mut self.client).await;
            sleep(LOOK).await;
        };
        let over = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let Around { aim, phase } = around;
        let mut other = phase.clone();
        tokio::select! {
            _aim = aim.changed() => None,
            () = closed(phase) => Some(removed()),
            () = overdue(&mut other) => Some(removed()),
            () = over => Some(unanswered("none answers")),
            () = flush => self.is_client_gone().then_some(Turn::Done),
        }
    }

    /// Gets a session with the instance that answers, and makes it what the one before was.
    async fn reach(&mut self, aim: &Aim, around: &mut Around) -> Option<Turn> {
        self.member.stand(aim.turn, Stand::Between);
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let gate = Arc::clone(self.member.gate());
        let startup = self.startup.message();
        let began = tokio::select! {
            began = Link::begin(&gate, aim, &startup) => began,
            _aim = around.aim.changed() => return None,
            () = closed(&mut around.phase) => return Some(removed()),
        };
        let (mut link, greeting) = match began {
            Ok(began) => began,
            Err(Unreached::Refused { message, .. }) if !self.greeted => {
                self.outlet.bytes().extend(message);
                return Some(Turn::Done);
            }
            Err(Unreached::NotYet(why) | Unreached::Refused { why, .. }) => {
                return self.retry(since, &why, around).await;
            }
        };
        let mut now: Parameters = greeting.parameters.iter().cloned().collect();
        match &self.state {
            Some(Ok(state)) => {
                let aside = self.outlet.bytes();
                let restored = state.restore(&mut link, &mut self.tracker, &mut now, aside);
                match timeout(RESTORE, restored).await.unwrap_or_else(|e| Err(e.into())) {
                    Ok(None) => {}
                    Ok(Some(refused)) => return Some(stays(&refused)),
                    Err(error) => {
                        drop(link);
                        return self.retry(since, &error.to_string(), around).await;
                    }
                }
            }
            Some(Err(Stays(why))) => return Some(stays(why)),
            None => {}
        }
        let directory = gate.socket_directory(&link.linked.instance);
        self.cancel.lead_to(directory, greeting.key);
        self.link = Some(link);
        self.waits_since = None;
        self.greet(now, &greeting.notices);
        None
    }

    /// Tells the client what it does not know of its instance.
    fn greet(&mut self, now: Parameters, notices: &[u8]) {
        let out = self.outlet.bytes();
        for (name, value) in &now {
            if self.told.get(name) != Some(value) {
                wire::parameter(out, name, value);
            }
        }
        if !self.greeted {
            out.extend_from_slice(notices);
            self.cancel.key.put(out);
            wire::put(out, b'Z', |out| out.push(b'I'));
            self.began.clone_from(&now);
            self.greeted = true;
        }
        self.told = now;
    }

    async fn retry(&mut self, since: Instant, why: &str, around: &mut Around) -> Option<Turn> {
        if since.elapsed() >= WAIT {
            return Some(unanswered(why));
        }
        if self.is_client_gone() {
            return Some(Turn::Done);
        }
        let pause = if since.elapsed() < EAGER { SOON } else { LATER };
        tokio::select! {
            () = sleep(pause) => None,
            _aim = around.aim.changed() => None,
        }
    }

    /// Leaves an instance that is not to answer any more.
    async fn leave(&mut self, aim: &Aim) -> Option<Turn> {
        if !self.is_idle() {
            return Some(fatal(GONE));
        }
        let turn = if self.capture(FENCE / 2).await {
            match &self.state {
                Some(Err(Stays(why))) => Some(stays(why)),
                _ => None,
            }
        } else {
            // It was gone before it could be asked.
            self.shadow()
        };
        self.unlink();
        self.member.stand(aim.turn, Stand::Between);
        turn
    }

    /// Asks the instance for what the session has, unless that is known already. Whether it
    /// answers; if not, it is not to be asked anything else.
    async fn capture(&mut self, patience: Duration) -> bool {
        if self.state.is_some() && !self.tracker.dirty {
            return true;
        }
        let Some(link) = &mut self.link else { return false };
        let (user, aside) = (&self.startup.user, self.outlet.bytes());
        let asked = carry::capture(link, &mut self.tracker, user, aside);
        let Ok(Ok(state)) = timeout(patience, asked).await else { return false };
        self.tracker.dirty = false;
        self.state = Some(state);
        true
    }

    /// The instance is gone without anybody having said that it would be.
    fn lose(&mut self, aim: &Aim) -> Option<Turn> {
        if self.ending {
            return Some(Turn::Done);
        }
        let instance = self.link.as_ref().map(|link| link.linked.instance.clone());
        if !self.is_idle() {
            self.unlink();
            return Some(fatal(GONE));
        }
        if let Some(instance) = instance {
            self.member.lost(aim.turn, &instance);
        }
        self.waits_since = Some(Instant::now());
        self.unlink();
        match &self.state {
            Some(Ok(_)) if !self.tracker.dirty => None,
            Some(Err(Stays(why))) if !self.tracker.dirty => Some(stays(why)),
            _ => self.shadow(),
        }
    }

    /// Takes what is known of the session for what it has.
    fn shadow(&mut self) -> Option<Turn> {
        match State::of_shadow(&self.tracker, &self.began, &self.told) {
            Ok(state) => {
                self.state = Some(Ok(state));
                self.tracker.dirty = false;
                None
            }
            Err(Stays(why)) => Some(stays(&why)),
        }
    }

    fn unlink(&mut self) {
        self.ending = false;
        self.cancel.lead_nowhere();
        self.link = None;
    }

    /// Whether nothing is under way, here or at the instance.
    pub(super) fn is_idle(&self) -> bool {
        let link = self.link.as_ref();
        self.tracker.is_idle()
            && !self.inlet.scanner.is_within()
            && link.is_none_or(|link| link.outlet.is_empty() && !link.inlet.scanner.is_within())
    }

    /// Whether the client has hung up while nothing is read from it.
    fn is_client_gone(&self) -> bool {
        let interest = PollFlags::RDHUP;
        let mut wait = [PollFd::new(self.client.socket(), interest)];
        let polled = rustix::event::poll(&mut wait, Some(&rustix::time::Timespec::default()));
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        polled.is_ok() && wait[0].revents().intersects(gone)
    }

    async fn end(mut self, turn: Turn) {
        if let Turn::Fatal(code, message) = &turn {
            self.unlink();
            wire::fatal(self.outlet.bytes(), code, message);
        }
        if let Some(mut link) = self.link.take() {
            // What the client asked last is asked, its goodbye included.
            let _ = timeout(FAREWELL, link.outlet.flush(&mut link.stream)).await;
        }
        let farewell = async {
            self.outlet.flush(&mut self.client).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut self.client).await
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

fn fatal(message: &str) -> Turn {
    Turn::Fatal(code::SHUTDOWN, message.to_owned())
}

fn removed() -> Turn {
    fatal("terminating connection: the gateway no longer serves this address")
}

fn unanswered(why: &str) -> Turn {
    fatal(&format!(
        "terminating connection: no instance of the database has answered for {} seconds: {why}",
        WAIT.as_secs()
    ))
}

fn stays(why: &str) -> Turn {
    fatal(&format!(
        "terminating connection: the session cannot be carried to another instance: {why}"
    ))
}
