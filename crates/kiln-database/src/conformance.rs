//! What every engine of databases must do, as a suite that each runs on real instances.
//!
//! Behind the feature `conformance`, so that no program carries it. A broken expectation is a panic
//! that says which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_model::data::Role;
use kiln_model::name::InstanceId;
use kiln_model::spec::database::DatabaseIdentity;

use crate::{Answer, DatabaseEngine, Instance, Program, Session, State};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long something must not happen.
const WHILE: Duration = Duration::from_millis(700);
const LOOK: Duration = Duration::from_millis(20);

/// Where programs of an engine run, as a target has them run.
pub trait Stage {
    /// The data directory of an instance, as it is seen from outside. It is there, and empty.
    fn data(&self, id: &InstanceId) -> PathBuf;

    /// The directory of its socket, as it is seen from outside. It is there.
    fn sockets(&self, id: &InstanceId) -> PathBuf;

    /// Runs a program with the data directory of `data` to its end.
    ///
    /// # Errors
    ///
    /// What it said, where it does not end well.
    fn fill(&self, data: &InstanceId, program: &Program) -> Result<(), String>;

    /// Starts the program of an instance with the data directory of `data`.
    fn start(&self, id: &InstanceId, data: &InstanceId, program: &Program);

    /// Ends an instance as a loss of power does.
    fn kill(&self, id: &InstanceId);

    /// Has standbys follow this instance.
    fn lead_to(&self, primary: &InstanceId);

    /// A session of the declared user in the declared database.
    fn client<'a>(
        &'a self,
        of: &'a InstanceId,
        identity: &'a DatabaseIdentity,
    ) -> Answer<'a, Box<dyn Client>>;

    /// Changes something by hand that [`DatabaseEngine::strange_settings`] has to see, and makes a
    /// user whom [`Session::strange_superusers`] has to name so.
    fn meddle<'a>(&'a self, with: &'a InstanceId, superuser: &'a str) -> Answer<'a, ()>;
}

/// A session of a client.
pub trait Client: Send {
    /// Writes a row, in a transaction of its own, and makes a place for rows first where there is none.
    fn write(&mut self, row: i64) -> Answer<'_, ()>;

    /// The rows that are there.
    fn rows(&mut self) -> Answer<'_, BTreeSet<i64>>;
}

/// Runs the suite against `engine`, with instances of `identity`, which declares no extensions. What it
/// has made runs on when it is over.
///
/// # Panics
///
/// Where the engine does not do what the seam says.
pub async fn engine(engine: &dyn DatabaseEngine, stage: &impl Stage, identity: &DatabaseIdentity) {
    let mut suite = Suite { engine, stage, identity: identity.clone(), acknowledged: 0 };
    suite.a_first_one_is_made_of_nothing().await;
    suite.what_is_declared_is_there_and_stays().await;
    suite.a_copy_follows_catches_up_and_takes_no_writes().await;
    suite.a_fence_ends_all_acknowledging_and_the_copy_has_all().await;
    suite.what_is_changed_by_hand_is_seen_and_taken_out().await;
    suite.another_recovers_what_one_has_left().await;
    suite.a_write_counts_when_a_standby_has_it().await;
}

/// The instances in the order in which they are made.
const FIRST: &str = "database-orders-1";
const SECOND: &str = "database-orders-2";
const THIRD: &str = "database-orders-3";
const FOURTH: &str = "database-orders-4";

struct Suite<'a, S> {
    engine: &'a dyn DatabaseEngine,
    stage: &'a S,
    identity: DatabaseIdentity,
    /// Rows up to this one were acknowledged.
    acknowledged: i64,
}

impl<S: Stage> Suite<'_, S> {
    async fn a_first_one_is_made_of_nothing(&mut self) {
        let first = id(FIRST);
        let program = self.engine.create(&self.instance(&first, BTreeMap::new()));
        assert_eq!(self.stage.fill(&first, &program), Ok(()), "data is made of nothing");
        self.serve(&first, &first, Role::Primary, BTreeMap::new());
        let state = self.until(&first, "it to take writes", |s| s.role == Role::Primary).await;
        assert!(!state.receives && state.followers.is_empty(), "it is alone: {state:?}");
        self.stage.lead_to(&first);
        assert_eq!(self.engine.strange_settings(&self.stage.data(&first)), None);
        let mut session = self.session(&first).await;
        assert_eq!(session.strange_superusers().await, Ok(Vec::new()), "Kiln's alone");
    }

    async fn what_is_declared_is_there_and_stays(&mut self) {
        let first = id(FIRST);
        let mut session = self.session(&first).await;
        for _ in 0..2 {
            assert_eq!(session.declare(&self.identity).await, Ok(()), "what is there is left");
        }
        assert_eq!(session.lacks(&self.identity).await, Ok(Vec::new()));
        let mut more = self.identity.clone();
        more.extensions.insert("telepathy".to_owned());
        let lacks = session.lacks(&more).await.expect("it can be asked");
        assert!(matches!(&lacks[..], [one] if one.contains("telepathy")), "{lacks:?}");
        let before = session.state().await.expect("a state").position;
        self.write(&first, 20).await;
        let after = session.state().await.expect("a state").position;
        assert!(after > before, "its data goes on: {before}, {after}");
    }

    async fn a_copy_follows_catches_up_and_takes_no_writes(&mut self) {
        let (first, second) = (id(FIRST), id(SECOND));
        let bounds = self.session(&first).await.bounds().await.expect("bounds");
        // It is to have less than the one that it follows, and must not.
        for (name, bound) in &bounds {
            self.identity.settings.insert(name.clone(), (bound / 2).max(1).to_string());
        }
        self.copy(&second, &first, &bounds);
        let received = |s: &State| s.role == Role::Standby && s.receives;
        self.until(&second, "it to receive", received).await;
        let own = self.session(&second).await.bounds().await.expect("bounds");
        for (name, bound) in &bounds {
            assert!(own.get(name) >= Some(bound), "{name}: {own:?} of {bounds:?}");
        }
        let streams = |s: &State| s.followers.iter().any(|f| f.name == SECOND && f.streams);
        self.until(&first, "it to be named as one that follows", streams).await;
        self.write(&first, 20).await;
        let ahead = self.session(&first).await.state().await.expect("a state").position;
        self.until(&second, "it to catch up", |s| s.position >= ahead).await;
        assert!(self.rows(&second).await.len() == 40, "it shows what it has");
        let mut client = self.client(&second).await;
        assert!(client.write(-1).await.is_err(), "a standby takes no writes");
        self.session(&second).await.lacks(&self.identity).await.expect("it can be asked");
    }

    async fn a_fence_ends_all_acknowledging_and_the_copy_has_all(&mut self) {
        let (first, second) = (id(FIRST), id(SECOND));
        let (mut busy, mut idle) = (self.client(&first).await, self.client(&first).await);
        let from = self.acknowledged;
        let writing = async {
            let mut row = from;
            while busy.write(row + 1).await.is_ok() {
                row += 1;
            }
            (row, Instant::now())
        };
        let fencing = async {
            tokio::time::sleep(WHILE).await;
            let fenced = self.session(&first).await.fence(&second).await;
            let fenced = fenced.expect("it can be fenced, and ends nothing else");
            (fenced, Instant::now())
        };
        let ((row, ended), (position, fenced)) = tokio::join!(writing, fencing);
        assert!(row > from, "it wrote until it was fenced");
        // The end may be noticed a little later; no acknowledgement came after.
        assert!(ended < fenced + PATIENCE);
        assert!(idle.write(-2).await.is_err(), "nor does one go on that was idle");
        self.acknowledged = row;
        self.until(&second, "all that was fenced", |s| s.position >= position).await;
        let mut session = self.session(&second).await;
        assert_eq!(session.promote().await, Ok(()));
        let state = session.state().await.expect("a state");
        assert_eq!((state.role, state.receives), (Role::Primary, false));
        self.stage.lead_to(&second);
        assert_eq!(session.declare(&self.identity).await, Ok(()));
        self.has_all(&second).await;
        self.write(&second, 20).await;
        self.stage.kill(&first);
    }

    async fn what_is_changed_by_hand_is_seen_and_taken_out(&mut self) {
        let second = id(SECOND);
        let data = self.stage.data(&second);
        assert_eq!(self.engine.strange_settings(&data), None);
        self.stage.meddle(&second, "mallory").await.expect("it can be meddled with");
        assert!(self.engine.strange_settings(&data).is_some(), "settings by hand are seen");
        let mut session = self.session(&second).await;
        assert_eq!(session.strange_superusers().await, Ok(vec!["mallory".to_owned()]));
        assert_eq!(session.declare(&self.identity).await, Ok(()));
        assert_eq!(session.strange_superusers().await, Ok(Vec::new()));
    }

    async fn another_recovers_what_one_has_left(&mut self) {
        let (second, third) = (id(SECOND), id(THIRD));
        self.write(&second, 50).await;
        self.stage.kill(&second);
        self.serve(&third, &second, Role::Primary, BTreeMap::new());
        self.until(&third, "it to take writes", |s| s.role == Role::Primary).await;
        let left = self.engine.strange_settings(&self.stage.data(&second));
        assert_eq!(left, None, "settings by hand do not outlive an instance");
        self.has_all(&third).await;
        self.stage.kill(&third);
    }

    async fn a_write_counts_when_a_standby_has_it(&mut self) {
        self.identity.synchronous = true;
        let (second, third, fourth) = (id(SECOND), id(THIRD), id(FOURTH));
        self.serve(&third, &second, Role::Primary, BTreeMap::new());
        self.stage.lead_to(&third);
        self.until(&third, "it to take writes", |s| s.role == Role::Primary).await;
        {
            let mut client = self.client(&third).await;
            let alone = tokio::time::timeout(WHILE, client.write(self.acknowledged + 1)).await;
            assert!(alone.is_err(), "nobody else has it: {alone:?}");
            // Whether it is there is not known to its client.
            self.acknowledged += 1;
        }
        let declared = self.session(&third).await.declare(&self.identity).await;
        assert_eq!(declared, Ok(()), "what Kiln writes waits for no standby");
        let bounds = self.session(&third).await.bounds().await.expect("bounds");
        self.copy(&fourth, &third, &bounds);
        let counts = |s: &State| s.followers.iter().any(|f| f.name == FOURTH && f.synchronous);
        self.until(&third, "a standby that counts", counts).await;
        self.write(&third, 5).await;
        self.stage.kill(&third);
        self.until(&fourth, "it to be alone", |s| !s.receives).await;
        let mut session = self.session(&fourth).await;
        assert_eq!(session.promote().await, Ok(()));
        self.has_all(&fourth).await;
    }

    fn instance<'b>(&'b self, id: &'b InstanceId, at_least: BTreeMap<String, u64>) -> Instance<'b> {
        Instance { id, identity: &self.identity, at_least, beside: None, line: None }
    }

    /// Makes a copy of one that runs, and serves it.
    fn copy(&self, new: &InstanceId, of: &InstanceId, bounds: &BTreeMap<String, u64>) {
        let program = self.engine.replicate(&self.instance(new, bounds.clone()), of);
        assert_eq!(self.stage.fill(new, &program), Ok(()), "a copy is made of one that runs");
        self.serve(new, new, Role::Standby, bounds.clone());
    }

    fn serve(
        &self,
        new: &InstanceId,
        data: &InstanceId,
        as_: Role,
        at_least: BTreeMap<String, u64>,
    ) {
        let directory = self.stage.data(data);
        self.engine.ready(&directory, as_).expect("it can be made ready");
        assert_eq!(self.engine.role(&directory).ok(), Some(as_), "and is as it was made");
        self.stage.start(new, data, &self.engine.serve(&self.instance(new, at_least)));
    }

    async fn session(&self, of: &InstanceId) -> Box<dyn Session> {
        let sockets = self.stage.sockets(of);
        let begun = Instant::now();
        loop {
            match self.engine.connect(&sockets).await {
                Ok(session) => return session,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{of} does not answer: {error}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until an instance says that it is so.
    async fn until(&self, of: &InstanceId, what: &str, holds: impl Fn(&State) -> bool) -> State {
        let begun = Instant::now();
        loop {
            let state = self.session(of).await.state().await;
            match state {
                Ok(state) if holds(&state) => return state,
                other => {
                    assert!(begun.elapsed() < PATIENCE, "waited for {what} of {of}: {other:?}");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn client(&self, of: &InstanceId) -> Box<dyn Client> {
        self.stage.client(of, &self.identity).await.expect("the declared user gets in")
    }

    /// Writes so many rows, each of which is acknowledged.
    async fn write(&mut self, to: &InstanceId, rows: i64) {
        let mut client = self.client(to).await;
        for _ in 0..rows {
            self.acknowledged += 1;
            let written = tokio::time::timeout(PATIENCE, client.write(self.acknowledged)).await;
            assert_eq!(written.map_err(|_| "no answer in time"), Ok(Ok(())), "of {to}");
        }
    }

    async fn rows(&self, of: &InstanceId) -> BTreeSet<i64> {
        self.client(of).await.rows().await.expect("rows")
    }

    /// Every row that was acknowledged is there.
    async fn has_all(&self, instance: &InstanceId) {
        let rows = self.rows(instance).await;
        let lost: Vec<i64> = (1..=self.acknowledged).filter(|row| !rows.contains(row)).collect();
        assert_eq!(lost, Vec::<i64>::new(), "{instance} lacks what was acknowledged");
    }
}

fn id(name: &str) -> InstanceId {
    name.parse().expect("a literal that parses")
}
