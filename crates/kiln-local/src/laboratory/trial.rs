//! One test, from the start of its instance to the last check.
//!
//! Checks that can come true later are asked again and again until the deadline; all must have
//! held once. What must not be (`port_closed`) is looked at last, when everything else has held.
//! A program that ends decides the test at once: what is asked of a running one has failed, and
//! a status other than 0 fails the test.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use kiln_image::store::ImageFiles;
use kiln_image::trial::{CheckReport, INTERRUPTED, Stop, TestReport, describe};
use kiln_model::spec::image::{Check, ImageTest};
use kiln_netns::Namespace;

use super::files::Files;
use super::place::Place;
use super::subject::{Way, spec};
use super::{http, ports};
use crate::instance::client::Client;
use crate::launcher::ensure_running;
use crate::launcher::protocol::{Event, Exit};
use crate::local::create::chain;
use crate::logs::{self, Follow};
use crate::seccomp::Learner;

/// The instance that is tested.
const SUBJECT: &str = "subject";
/// From one round of checks to the next; an event ends it early.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one attempt to reach a port may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// From one run of a program beside the instance to the next.
const EXEC_PAUSE: Duration = Duration::from_millis(100);
/// How long a program whose test is decided is watched on: one that fails right after it has said
/// what was waited for has failed.
const SETTLE: Duration = Duration::from_millis(50);
/// How many of its last lines a failed test shows.
const LAST_LINES: usize = 20;
/// How many lines of a program's output are looked at.
const EXEC_LINES: usize = 10_000;

/// A test under way.
pub(super) struct Trial<'a> {
    place: &'a Place,
    program: &'a std::path::Path,
    image: &'a ImageFiles,
    test: &'a ImageTest,
    stop: &'a Stop,
    deadline: Instant,
    checks: Vec<State<'a>>,
    exit: Option<Exit>,
    /// Runs of programs so far, for their names.
    runs: u32,
    /// Who learns the system calls of what is tested.
    learner: Option<&'a Learner>,
}

/// How far a check is.
struct State<'a> {
    check: &'a Check,
    passed: bool,
    /// Asking again would not help.
    settled: bool,
    found: String,
    /// Not to be asked again before.
    next: Instant,
}

/// What a round goes by.
struct Scene {
    client: Client,
    network: Namespace,
    log: Follow,
    lines: Vec<String>,
    /// The instance's process; none where the image has no program to start.
    pid: Option<i32>,
    /// When it was started.
    since: Instant,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        place: &'a Place,
        program: &'a std::path::Path,
        image: &'a ImageFiles,
        test: &'a ImageTest,
        stop: &'a Stop,
        started: Instant,
    ) -> Self {
        let state = |check| State {
            check,
            passed: false,
            settled: false,
            found: "not checked".to_owned(),
            next: started,
        };
        let deadline = started + Duration::from(test.deadline);
        let checks = test.checks.iter().map(state).collect();
        Self {
            place,
            program,
            image,
            test,
            stop,
            deadline,
            checks,
            exit: None,
            runs: 0,
            learner: None,
        }
    }

    pub(super) fn learning(self, learner: Option<&'a Learner>) -> Self {
        Self { learner, ..self }
    }

    pub(super) fn run(mut self) -> TestReport {
        let problem = self.attempt().err();
        let quiet =
            self.exit.as_ref().is_none_or(|exit| exit.code == Some(0) && !exit.out_of_memory);
        let passed = problem.is_none() && quiet && self.checks.iter().all(|state| state.passed);
        let log = if passed { Vec::new() } else { self.last_lines(SUBJECT, LAST_LINES) };
        let report = |state: State<'_>| CheckReport {
            passed: state.passed,
            expected: describe(state.check),
            found: state.found,
        };
        TestReport {
            name: self.test.name.clone(),
            passed,
            checks: self.checks.into_iter().map(report).collect(),
            problem,
            ended: self.exit.as_ref().map(ToString::to_string),
            milliseconds: 0,
            log,
        }
    }

    fn attempt(&mut self) -> Result<(), String> {
        self.look_for_files()?;
        let settled = |state: &State<'_>| state.settled;
        if self.checks.iter().all(settled) {
            return Ok(());
        }
        let mut scene = self.start()?;
        loop {
            if self.stop.is_set() {
                return Err(INTERRUPTED.to_owned());
            }
            self.round(&mut scene)?;
            if self.is_done() || self.exit.is_some() {
                break;
            }
            let left = self.left();
            if left.is_zero() {
                break;
            }
            self.wait(&mut scene, PAUSE.min(left))?;
        }
        self.conclude(&mut scene)
    }

    /// What needs no instance.
    fn look_for_files(&mut self) -> Result<(), String> {
        let of_files =
            |check: &Check| matches!(check, Check::File { .. } | Check::NoSuchFile { .. });
        if !self.test.checks.iter().any(of_files) {
            return Ok(());
        }
        let files = Files::open(&self.image.erofs)
            .map_err(|error| format!("the image cannot be mounted: {error}"))?;
        for state in &mut self.checks {
            if let Some((passed, found)) = files.check(state.check) {
                (state.passed, state.found, state.settled) = (passed, found, true);
            }
        }
        Ok(())
    }

    /// Starts the image's program, or the test's, where there is one.
    fn start(&mut self) -> Result<Scene, String> {
        let mut client =
            ensure_running(&self.place.path, self.program).map_err(|error| chain(&error))?;
        client.subscribe().map_err(|error| chain(&error))?;
        let attachment = self.place.attachment(0);
        let network = Namespace::open(&attachment.namespace).map_err(|error| chain(&error))?;
        let log = Follow::new(&logs::directory(&self.place.path, SUBJECT))
            .map_err(|error| format!("the log cannot be read: {error}"))?;
        let argv = self.test.command.clone().unwrap_or_else(|| self.image.config.argv());
        let mut pid = None;
        if argv.is_empty() {
            self.fail_without_program();
        } else {
            let way = Way::Own(attachment);
            let mut spec = spec(self.image, self.test, SUBJECT, argv, way, self.place)
                .map_err(|error| format!("the image can't be read: {error}"))?;
            spec.learns = self.learner.is_some();
            let launched = client.launch(spec).map_err(|error| chain(&error))?;
            if let Some(learner) = self.learner {
                learner
                    .attach(launched.pid)
                    .map_err(|error| format!("its system calls cannot be learned: {error}"))?;
            }
            pid = Some(launched.pid);
        }
        Ok(Scene { client, network, log, lines: Vec::new(), pid, since: Instant::now() })
    }

    /// Without a program only files and programs beside it can be checked.
    fn fail_without_program(&mut self) {
        for state in self.checks.iter_mut().filter(|state| !state.settled) {
            if !matches!(state.check, Check::Exec { .. }) {
                state.settled = true;
                "the image has no entrypoint, and the test no command".clone_into(&mut state.found);
            }
        }
    }

    /// Asks everything that has not held yet; programs last, as they take longest.
    fn round(&mut self, scene: &mut Scene) -> Result<(), String> {
        self.ask_all(scene)?;
        for index in 0..self.checks.len() {
            let state = &self.checks[index];
            let due = !state.passed && !state.settled && state.next <= Instant::now();
            if let Check::Exec { command, status, contains } = state.check
                && due
                && self.exit.is_none()
            {
                let (passed, settled, found) =
                    self.execute(scene, command, *status, contains.as_deref())?;
                let next = Instant::now() + EXEC_PAUSE;
                let check = self.checks[index].check;
                self.checks[index] = State { check, passed, settled, found, next };
            }
        }
        Ok(())
    }

    /// Asks everything that has not held yet, but for programs.
    fn ask_all(&mut self, scene: &mut Scene) -> Result<(), String> {
        self.read_log(scene)?;
        for index in 0..self.checks.len() {
            let state = &self.checks[index];
            if state.passed || state.settled {
                continue;
            }
            if let Some((passed, found)) = self.ask(state.check, scene) {
                (self.checks[index].passed, self.checks[index].found) = (passed, found);
            }
        }
        Ok(())
    }

    /// Whether a check holds now, and what was found; nothing where it is not asked here.
    fn ask(&self, check: &Check, scene: &Scene) -> Option<(bool, String)> {
        let limit = ATTEMPT.min(self.left()).max(PAUSE);
        let address = |port| SocketAddrV4::new(self.place.attachment(0).address, port);
        match check {
            Check::Tcp { port } => {
                Some(match http::connect(&scene.network, address(*port), limit) {
                    Ok(_) => (true, "a connection was accepted".to_owned()),
                    Err(error) => (false, error.to_string()),
                })
            }
            Check::Http { port, path, status, contains } => {
                let answer = http::get(&scene.network, address(*port), path, limit);
                Some(judge(answer, *status, contains.as_deref()))
            }
            Check::LogContains { text } => {
                let found = scene.lines.iter().any(|line| line.contains(text.as_str()));
                let count = scene.lines.len();
                let what = if found { "such a line".to_owned() } else { format!("{count} lines") };
                Some((found, what))
            }
            Check::StaysUp { time } => {
                let (up, wanted) = (scene.since.elapsed(), Duration::from(*time));
                Some((
                    up >= wanted,
                    format!("up for {} ms", up.as_millis().min(wanted.as_millis())),
                ))
            }
            _ => None,
        }
    }

    /// Whether the test is decided but for what is looked at last.
    fn is_done(&self) -> bool {
        let failed = |state: &State<'_>| state.settled && !state.passed;
        let decided =
            |state: &State<'_>| state.passed || matches!(state.check, Check::PortClosed { .. });
        self.checks.iter().any(failed) || self.checks.iter().all(decided)
    }

    /// Looks at what must not be, and settles what the end of the program leaves open.
    fn conclude(&mut self, scene: &mut Scene) -> Result<(), String> {
        if self.exit.is_none() {
            self.wait(scene, SETTLE)?;
        }
        self.read_log(scene)?;
        let held = self
            .checks
            .iter()
            .all(|state| state.passed || matches!(state.check, Check::PortClosed { .. }));
        for index in 0..self.checks.len() {
            let state = &self.checks[index];
            let check = state.check;
            let result = match (check, scene.pid) {
                _ if state.passed || state.settled => None,
                (Check::LogContains { .. }, _) => self.ask(check, scene),
                _ if self.exit.is_some() => Some((false, "the program has ended".to_owned())),
                (Check::PortClosed { .. }, _) if !held => None,
                (Check::PortClosed { port }, Some(pid)) => Some(match ports::listens(pid, *port) {
                    Ok(true) => (false, "something listens there".to_owned()),
                    Ok(false) => (true, "nothing listens there".to_owned()),
                    Err(error) => (false, error.to_string()),
                }),
                _ => None,
            };
            if let Some((passed, found)) = result {
                (self.checks[index].passed, self.checks[index].found) = (passed, found);
            }
        }
        Ok(())
    }

    /// Runs a program of the image in an instance of its own, in the network of the first. Whether
    /// that is as wanted, whether to leave it at that, and what was found.
    fn execute(
        &mut self,
        scene: &mut Scene,
        command: &[String],
        status: i32,
        contains: Option<&str>,
    ) -> Result<(bool, bool, String), String> {
        self.runs += 1;
        let name = format!("exec-{}", self.runs);
        let way = match scene.pid {
            Some(_) => Way::Of(SUBJECT.to_owned()),
            None => Way::Own(self.place.attachment(1)),
        };
        let spec = spec(self.image, self.test, &name, command.to_vec(), way, self.place)
            .map_err(|error| format!("the image can't be read: {error}"))?;
        if let Err(error) = scene.client.launch(spec) {
            // A program that can't be started now can't later; unless the first has just ended.
            self.wait(scene, PAUSE)?;
            return Ok((false, true, chain(&error)));
        }
        let mut exit = None;
        while exit.is_none() && !self.left().is_zero() && !self.stop.is_set() {
            // The program may take all the time there is, and the others must not miss theirs.
            self.ask_all(scene)?;
            let limit = PAUSE.min(self.left());
            exit = self.next_exit(scene, limit)?.filter(|(of, _)| *of == name).map(|(_, e)| e);
        }
        let lines = self.last_lines(&name, EXEC_LINES);
        let Some(exit) = exit else {
            let _ = scene.client.kill(&name);
            return Ok((
                false,
                false,
                format!("it was still running at the deadline{}", said(&lines)),
            ));
        };
        scene.client.forget(&name).map_err(|error| chain(&error))?;
        let _ = logs::remove(&self.place.path, &name);
        let text = lines.join("\n");
        let passed =
            exit.code == Some(status) && contains.is_none_or(|wanted| text.contains(wanted));
        Ok((passed, false, format!("it {exit}{}", said(&lines))))
    }

    /// Waits for something to happen, at most so long.
    fn wait(&mut self, scene: &mut Scene, limit: Duration) -> Result<(), String> {
        self.next_exit(scene, limit).map(drop)
    }

    /// The next instance that ends, and how. The end of the first is kept.
    fn next_exit(
        &mut self,
        scene: &mut Scene,
        limit: Duration,
    ) -> Result<Option<(String, Exit)>, String> {
        let event = scene.client.next_event(Some(limit)).map_err(|error| chain(&error))?;
        let Some(Event::Exited { instance, exit }) = event else { return Ok(None) };
        if instance == SUBJECT {
            self.exit = Some(exit.clone());
        }
        Ok(Some((instance, exit)))
    }

    fn read_log(&self, scene: &mut Scene) -> Result<(), String> {
        let wanted = |check: &Check| matches!(check, Check::LogContains { .. });
        if self.test.checks.iter().any(wanted) {
            let new = scene.log.poll().map_err(|e| format!("the log cannot be read: {e}"))?;
            scene.lines.extend(new.into_iter().map(|line| line.text));
        }
        if self.exit.is_some() {
            // The last line may lack its end.
            scene.lines.extend(self.last_lines(SUBJECT, 1));
        }
        Ok(())
    }

    fn last_lines(&self, instance: &str, count: usize) -> Vec<String> {
        let lines = logs::tail(&logs::directory(&self.place.path, instance), count);
        lines.unwrap_or_default().into_iter().map(|line| line.text).collect()
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Whether an answer is as wanted, and what it was.
fn judge(
    answer: std::io::Result<http::Answer>,
    status: Option<u16>,
    contains: Option<&str>,
) -> (bool, String) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (false, error.to_string()),
    };
    let right = match status {
        Some(status) => answer.status == status,
        None => (200..400).contains(&answer.status),
    };
    if !right {
        return (false, format!("status {}", answer.status));
    }
    match contains {
        Some(text) if !answer.body.contains(text) => {
            let start: String = answer.body.chars().take(80).collect();
            (false, format!("status {}, and a body that starts {start:?}", answer.status))
        }
        _ => (true, format!("status {}", answer.status)),
    }
}

/// The end of what a program has written, for a message.
fn said(lines: &[String]) -> String {
    match lines {
        [] => " and wrote nothing".to_owned(),
        [.., last] => format!(" and wrote at last {last:?}"),
    }
}
