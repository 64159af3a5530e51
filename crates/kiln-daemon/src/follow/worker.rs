//! The process that follows one branch: it looks, fetches, prepares and proposes, and writes down what
//! becomes of each commit. The daemon starts it, says `look` and the like on its standard input, and
//! writes down what it says; it ends with that input.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use kiln_engine::clock::{Clock as _, SystemClock};
use kiln_image::trial::Stop;
use kiln_model::generation::Origin;
use tokio::runtime::Runtime;

use crate::api::FaultKind;
use crate::client::{Client, ClientError};
use crate::ledger::{Ledger, LedgerError};
use crate::prepare::Home;
use crate::root::{Locked, Root};
use crate::server::chain;

use super::address::Address;
use super::decide::{Active, Decision, MOST_TRIES, Retry, Situation, decide, pause};
use super::deploy::{Checked, Failure, Preparation, Prepared, place};
use super::error::WorkError;
use super::flight::{Flight, Landing, why};
use super::local::{Fingerprint, fingerprint};
use super::mirror::{Access, Commit, Mirror, MirrorError};
use super::record::{CommitResult, Outcome, Phase, Record};
use super::registry::{Follow, Registry};
use super::webhook;

/// How often a repository of this machine is glanced at.
const GLANCE: Duration = Duration::from_millis(200);
/// The longest pause between two turns: a pin may be taken out by who does not say so.
const TURN: Duration = Duration::from_secs(1);
/// How long the worker before may take to end.
const TURN_OVER: Duration = Duration::from_secs(30);
/// How often a stack that changes all the time is planned anew.
const MOST_PLANS: usize = 5;
/// How long what must not be left behind may take at the end.
const END_BOUND: Duration = Duration::from_secs(20);

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// Look at the repository now.
    Look,
    /// A webhook says so.
    Hook,
    /// Forget that the newest commit was given up, and look.
    Retry,
    /// The rollout under way has ended.
    Landed,
}

/// Says something to the daemon, which writes it down.
pub(super) fn say(text: &str) {
    // Without a daemon this process ends.
    let _ = writeln!(io::stdout().lock(), "{}", text.replace('\n', "\\n"));
}

/// Follows the branch that is registered as `id`, until standard input ends.
pub fn work(root: &Root, id: &str) -> Result<(), WorkError> {
    let registry = Registry::of(root);
    let follow = registry.follow(id)?.ok_or_else(|| WorkError::Unknown(id.to_owned()))?;
    let (outbox, inbox) = mpsc::channel();
    let stop = Stop::default();
    let (told, stopped) = (outbox.clone(), stop.clone());
    // First of all: whatever comes after ends with the daemon.
    thread::spawn(move || attend(&told, &stopped));
    let _only = only_one(root, id)?;
    let io = |what| move |source| WorkError::Io { what, source };
    let place = place(root, id);
    fs::create_dir_all(&place).map_err(io("make its directory"))?;
    let address = Address::parse(&follow.url, Path::new("/"))?;
    let access =
        Access { identity: follow.identity.clone(), token_file: follow.token_file.clone() };
    let mirror = Mirror::new(address.clone(), &follow.branch, access, &place);
    mirror.unlock();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(io("start its threads"))?;
    if let Some(hook) = &follow.webhook {
        runtime.spawn(webhook::listen(hook.clone(), outbox.clone()));
    }
    let worker = Worker {
        root: root.clone(),
        id: id.to_owned(),
        ledger: Ledger::create(root)?,
        record: registry.record(id)?,
        kept: None,
        registry,
        follow,
        address,
        mirror,
        runtime,
        outbox,
        stop,
        tip: None,
        flight: None,
        retry: None,
        failures: 0,
        next_look: Instant::now(),
        print: None,
        hooked: false,
    };
    worker.run(&inbox);
    Ok(())
}

/// Hears what the daemon says, and ends the process with it.
fn attend(told: &Sender<Message>, stop: &Stop) {
    for line in io::stdin().lock().lines() {
        let message = match line.as_deref() {
            Ok("look") => Message::Look,
            Ok("retry") => Message::Retry,
            Ok(_) => continue,
            Err(_) => break,
        };
        // The other side goes with the process.
        let _ = told.send(message);
    }
    stop.set();
    let begun = Instant::now();
    while stop.is_held() && begun.elapsed() < END_BOUND {
        thread::sleep(Duration::from_millis(5));
    }
    // With what it has started: a fetch that goes on would be in the way of the next worker.
    if rustix::process::getpgrp() == rustix::process::getpid() {
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::KILL);
    }
    std::process::exit(0);
}

/// Makes sure that this is the only one, once the one before has ended.
fn only_one(root: &Root, id: &str) -> Result<Locked, WorkError> {
    let begun = Instant::now();
    loop {
        if let Some(locked) = root.try_lock_follow(id)? {
            return Ok(locked);
        }
        if begun.elapsed() > TURN_OVER {
            return Err(WorkError::Taken(id.to_owned()));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The commit that the branch is at.
#[derive(Debug, Clone)]
struct Tip {
    commit: Commit,
    seen: Instant,
    notes: Vec<String>,
}

/// A commit on its way.
struct UnderWay {
    tip: Tip,
    checked: Checked,
    home: Home,
    stack: kiln_model::name::StackName,
    flight: Flight,
}

struct Worker {
    root: Root,
    id: String,
    registry: Registry,
    follow: Follow,
    address: Address,
    ledger: Ledger,
    mirror: Mirror,
    runtime: Runtime,
    outbox: Sender<Message>,
    stop: Stop,
    record: Record,
    /// The record as it was kept last.
    kept: Option<Record>,
    tip: Option<Tip>,
    flight: Option<UnderWay>,
    retry: Option<Retry>,
    /// Looks that failed in a row.
    failures: u32,
    next_look: Instant,
    /// How the repository looked, where it is one of this machine.
    print: Option<Fingerprint>,
    /// Whether a webhook has asked for the look, and nothing was proposed since.
    hooked: bool,
}

impl Worker {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            self.turn();
            let mut message = match inbox.recv_timeout(self.pause()) {
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => Some(message),
            };
            while let Some(told) = message {
                self.hear(told);
                message = inbox.try_recv().ok();
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Landed => return,
            Message::Look => {}
            Message::Hook => self.hooked = true,
            Message::Retry => {
                if let Some(commit) = self.record.commit.clone() {
                    self.record.forget(&commit);
                }
            }
        }
        self.retry = None;
        self.next_look = Instant::now();
    }

    fn pause(&self) -> Duration {
        let most = if self.address.local().is_some() { GLANCE } else { TURN };
        self.next_look.saturating_duration_since(Instant::now()).min(most)
    }

    fn turn(&mut self) {
        self.land();
        if Instant::now() >= self.next_look || self.has_moved() {
            self.look();
        }
        self.consider();
        self.keep();
    }

    /// Whether a repository of this machine is not as it was at the last look.
    fn has_moved(&self) -> bool {
        let Some(path) = self.address.local() else { return false };
        self.print.as_ref() != Some(&fingerprint(path, &self.follow.branch))
    }

    /// Looks where the branch is, and fetches what is new.
    fn look(&mut self) {
        let branch = self.follow.branch.clone();
        self.print = self.address.local().map(|path| fingerprint(path, &branch));
        let every = Duration::from(self.follow.every);
        match self.see() {
            Ok(()) => {
                self.next_look = Instant::now() + every;
                if self.failures > 0 {
                    say(&format!("{branch} of {} can be seen again", self.address));
                }
                self.failures = 0;
                if self.retry.is_none() {
                    self.record.trouble = None;
                }
            }
            Err(trouble) => {
                self.next_look = Instant::now() + pause(every, self.failures);
                self.failures = self.failures.saturating_add(1);
                self.trouble(trouble);
            }
        }
    }

    fn see(&mut self) -> Result<(), String> {
        let Some(id) = self.mirror.tip().map_err(|error| told(&error))? else {
            self.tip = None;
            return Err(format!(
                "{} has no branch {}; what runs is kept, and the branch is followed again when it \
                 is back",
                self.address, self.follow.branch
            ));
        };
        self.record.seen_at = Some(SystemClock.now());
        let before = self.record.commit.replace(id.clone());
        let known = self.tip.as_ref().is_some_and(|tip| tip.commit.id == id);
        if known || self.record.given_up(&id).is_some() {
            self.tip = self.tip.take().filter(|_| known);
            return Ok(());
        }
        let seen = Instant::now();
        let fetched = match self.mirror.fetch(&id) {
            Err(error @ MirrorError::Lies { .. }) => {
                let tip =
                    Tip { commit: Commit { id, subject: String::new() }, seen, notes: vec![] };
                self.give_up(&tip, Checked::default(), None, &told(&error));
                self.tip = None;
                return Ok(());
            }
            fetched => fetched.map_err(|error| told(&error))?,
        };
        self.record.commit = Some(fetched.clone());
        let commit = self.mirror.commit(&fetched).map_err(|error| told(&error))?;
        let mut notes = Vec::new();
        if let Some(before) = before.filter(|before| *before != fetched)
            && self.mirror.commit(&before).is_ok()
            && !self.mirror.is_ancestor(&before, &fetched)
        {
            let short = short(&before);
            notes.push(format!("the branch was forced: {short} is not in its history any more"));
        }
        say(&format!("{} is at {} ({})", self.follow.branch, short(&fetched), commit.subject));
        for note in &notes {
            say(note);
        }
        self.tip = Some(Tip { commit, seen, notes });
        Ok(())
    }

    /// Decides what to do about the tip, and does it.
    fn consider(&mut self) {
        let decision = match self.decision() {
            Ok(decision) => decision,
            Err(error) => return self.trouble(chain(&error)),
        };
        self.record.phase = match decision {
            Some(Decision::Deploy) => Phase::Preparing,
            Some(Decision::Pinned) => Phase::Pinned,
            _ if self.flight.is_some() => Phase::RollingOut,
            _ if self.record.trouble.is_some() => Phase::Troubled,
            _ => Phase::Waiting,
        };
        if let (Some(Decision::Deploy), Some(tip)) = (decision, self.tip.clone()) {
            self.keep();
            self.deploy(&tip);
        }
    }

    fn decision(&self) -> Result<Option<Decision>, LedgerError> {
        let Some(tip) = &self.tip else { return Ok(None) };
        let (mut pin, mut active) = (None, None);
        if let Some(stack) = &self.record.stack {
            pin = self.ledger.state(stack)?.pin;
            active = self.ledger.active(stack)?.map(|generation| Active {
                number: generation.number,
                by_rollback: matches!(generation.origin, Origin::Rollback { .. }),
            });
        }
        Ok(Some(decide(&Situation {
            tip: &tip.commit.id,
            record: &self.record,
            rolling_out: self.flight.as_ref().map(|under_way| under_way.tip.commit.id.as_str()),
            pin,
            active,
            retry: self.retry.as_ref(),
            now: Instant::now(),
        })))
    }

    fn deploy(&mut self, tip: &Tip) {
        let mut checked = Checked::default();
        match self.propose(tip, &mut checked) {
            Ok(Some(under_way)) => {
                self.retry = None;
                self.record.phase = Phase::RollingOut;
                self.record.stack = Some(under_way.stack.clone());
                self.no_trouble();
                self.flight = Some(under_way);
            }
            // It was pinned meanwhile; the next turn sees that.
            Ok(None) => {}
            Err(Failure::Bad(reason)) => self.give_up(tip, checked, None, &reason),
            Err(Failure::Doubtful(reason)) => {
                let tries = self.retry.as_ref().filter(|r| r.commit == tip.commit.id);
                let tries = tries.map_or(1, |retry| retry.tries + 1);
                if tries >= MOST_TRIES {
                    let reason = format!("{reason}\nit was tried {tries} times");
                    return self.give_up(tip, checked, None, &reason);
                }
                self.try_later(tip, tries, reason);
            }
            Err(Failure::Passing(reason)) => {
                let tries = self.retry.as_ref().map_or(1, |retry| retry.tries + 1);
                self.try_later(tip, tries, reason);
            }
        }
    }

    fn try_later(&mut self, tip: &Tip, tries: u32, reason: String) {
        let at = Instant::now() + pause(Duration::from_secs(5), tries - 1);
        self.retry = Some(Retry { commit: tip.commit.id.clone(), tries, at });
        self.trouble(format!("{} cannot be deployed for now: {reason}", short(&tip.commit.id)));
    }

    /// Prepares and proposes a commit; `None` where the stack was pinned meanwhile.
    fn propose(&mut self, tip: &Tip, checked: &mut Checked) -> Result<Option<UnderWay>, Failure> {
        let commit = &tip.commit.id;
        *checked = self.preparation().check_out(commit)?;
        checked.notes.splice(0..0, tip.notes.iter().cloned());
        for _ in 0..MOST_PLANS {
            let prepared = self.preparation().prepare(commit)?;
            checked.notes.extend(self.preparation().lock_note(checked));
            checked.notes.dedup();
            self.clear_the_way();
            let Prepared { stack, home, mut proposal } = prepared;
            proposal.cause = self.hooked.then(|| "webhook".to_owned());
            let passing = |text: String| Failure::Passing(text);
            if Home::known(&self.root, &stack).is_ok_and(|known| known.is_none()) {
                home.keep(&self.root, &stack).map_err(|error| passing(chain(&error)))?;
            }
            let asked = self.runtime.block_on(async {
                Client::connect(&self.root).await?.apply(&stack, &proposal).await
            });
            match asked {
                Ok(lines) => {
                    self.hooked = false;
                    let _inside = self.runtime.enter();
                    let flight = Flight::watch(lines, self.outbox.clone());
                    let (tip, checked) = (tip.clone(), checked.clone());
                    return Ok(Some(UnderWay { tip, checked, home, stack, flight }));
                }
                Err(ClientError::Refused(fault)) => match fault.kind {
                    FaultKind::Conflict => {}
                    FaultKind::Pinned => {
                        // From now on the pin is seen before anything is prepared.
                        self.record.stack = Some(stack);
                        return Ok(None);
                    }
                    FaultKind::BadRequest | FaultKind::NotFound => {
                        return Err(Failure::bad(&fault.message));
                    }
                    FaultKind::Tampered | FaultKind::Internal | FaultKind::Ending => {
                        return Err(passing(fault.message));
                    }
                },
                Err(error) => return Err(passing(chain(&error))),
            }
        }
        Err(Failure::Passing("the stack was changed by others each time it was planned".to_owned()))
    }

    fn preparation(&self) -> Preparation<'_> {
        Preparation {
            root: &self.root,
            ledger: &self.ledger,
            registry: &self.registry,
            id: &self.id,
            follow: &self.follow,
            address: &self.address,
            mirror: &self.mirror,
            stack: self.record.stack.as_ref(),
            stop: &self.stop,
        }
    }

    /// Waits until the rollout of the commit before has ended. One that does not come further is
    /// taken back: only the newest commit matters. Its deadline bounds the wait.
    fn clear_the_way(&mut self) {
        let mut cancelled = false;
        while let Some(under_way) = &self.flight {
            if under_way.flight.landing().is_some() {
                return self.land_as(cancelled);
            }
            if !cancelled && under_way.flight.is_stuck() {
                cancelled = true;
                let stack = under_way.stack.clone();
                let cancel = async { Client::connect(&self.root).await?.cancel(&stack).await };
                // One that has ended in this very moment needs no cancelling.
                if let Err(error) = self.runtime.block_on(cancel) {
                    say(&format!("the rollout before cannot be taken back: {}", chain(&error)));
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes in the end of the rollout under way, where it has come.
    fn land(&mut self) {
        if self.flight.as_ref().is_some_and(|under_way| under_way.flight.landing().is_some()) {
            self.land_as(false);
        }
    }

    fn land_as(&mut self, superseded: bool) {
        let Some(UnderWay { tip, checked, home, stack, flight }) = self.flight.take() else {
            return;
        };
        let (outcome, generation) = match flight.landing() {
            Some(Landing::Active(generation)) => (Outcome::Deployed, generation),
            Some(Landing::Unchanged(generation)) => {
                // It may have been deployed before this process knew of it.
                let known = self.ledger.generation(&stack, generation).ok().flatten();
                let own = known.is_some_and(|g| g.commit.as_ref() == Some(&tip.commit.id));
                (if own { Outcome::Deployed } else { Outcome::Unchanged }, generation)
            }
            Some(Landing::Abandoned(generation, _)) if superseded => {
                (Outcome::Superseded, generation)
            }
            Some(Landing::Abandoned(generation, reason)) => {
                return self.give_up(&tip, checked, Some(generation), &why(&reason));
            }
            Some(Landing::Lost(why)) => return say(&format!("the rollout is out of sight: {why}")),
            None => return,
        };
        if outcome != Outcome::Superseded
            && let Err(error) = home.keep(&self.root, &stack)
        {
            say(&chain(&error));
        }
        self.note(&tip, checked, outcome, Some(generation), None);
        self.mirror.tidy();
    }

    fn give_up(&mut self, tip: &Tip, checked: Checked, generation: Option<u64>, reason: &str) {
        self.retry = None;
        self.note(tip, checked, Outcome::GivenUp, generation, Some(reason.to_owned()));
    }

    /// Writes down what became of a commit.
    fn note(
        &mut self,
        tip: &Tip,
        checked: Checked,
        outcome: Outcome,
        generation: Option<u64>,
        reason: Option<String>,
    ) {
        let result = CommitResult {
            commit: tip.commit.id.clone(),
            subject: tip.commit.subject.clone(),
            outcome,
            generation,
            reason,
            signed_by: checked.signed_by,
            notes: checked.notes,
            at: SystemClock.now().to_string(),
            duration_ms: u64::try_from(tip.seen.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        say(&result.sentence());
        self.record.add(result);
        self.no_trouble();
        self.keep();
    }

    /// Nothing stands in a commit's way any more; whether its branch can be seen is another matter.
    fn no_trouble(&mut self) {
        if self.failures == 0 {
            self.record.trouble = None;
        }
    }

    fn trouble(&mut self, trouble: String) {
        if self.record.trouble.as_ref() != Some(&trouble) {
            say(&trouble);
            self.record.trouble = Some(trouble);
        }
    }

    fn keep(&mut self) {
        if self.kept.as_ref() == Some(&self.record) {
            return;
        }
        match self.registry.keep(&self.id, &self.record) {
            Ok(()) => self.kept = Some(self.record.clone()),
            Err(error) => say(&chain(&error)),
        }
    }
}

/// An error with its causes and the way out.
fn told(error: &MirrorError) -> String {
    let help = match error {
        MirrorError::Unreachable { source, .. } | MirrorError::Mirror { source, .. } => {
            source.help()
        }
        MirrorError::Lies { .. } | MirrorError::File { .. } => None,
    };
    match help {
        Some(help) => format!("{}; {help}", chain(error)),
        None => chain(error),
    }
}

/// The first digits of a commit's name.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
