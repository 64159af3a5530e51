//! How an instance of a database comes to be.
//!
//! Its data may take long to be made: a copy of another's takes as long as that is large. So
//! [`create`] checks what can be checked at once, writes down what is being made, and returns; a
//! thread does the rest. The instance is seen as running and not ready meanwhile, and as dead where
//! its making has failed, or was interrupted by the end of the daemon.
//!
//! Programs that fill a data directory run as throw-away instances of the same image, before the
//! real one, and nothing runs beside that. A making is given up when its volume has not grown for
//! [`STALLED`].

mod shown;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kiln_database::{DatabaseEngine, Instance, Offer, Program, engine};
use kiln_engine::TargetError;
use kiln_model::data::{BranchOrigin, DataOrigin, Role};
use kiln_model::name::{InstanceId, StackName};
use kiln_model::observed::ObservedInstance;
use kiln_model::plan::{DataCreation, InstanceCreation};
use kiln_model::quantity::Timestamp;
use serde::{Deserialize, Serialize};

use super::backup;
use super::copy;
use super::place::{About, Place};
use super::program::{Failure, Run, STALLED, throw_away, with_program};
use super::{DataLabels, Databases, lock};
use crate::instance::{self, record};
use crate::launcher::protocol::{LaunchSpec, VolumeMount};
use crate::local::labels::InstanceLabels;
use crate::local::{Machine, now};

/// How long a making that is called off may take to be over.
const CALLED_OFF: Duration = Duration::from_secs(30);
/// How long a bound of the one that is followed may take to be told.
const ANSWER: Duration = Duration::from_secs(5);

/// What is being made, kept in `ROOT/run/making/INSTANCE.json` until it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Begun {
    labels: InstanceLabels,
    address: Ipv4Addr,
    at: Timestamp,
    /// Since when it is given up.
    #[serde(default)]
    draining_since: Option<Timestamp>,
}

/// A making under way, or failed.
#[derive(Debug)]
pub(super) struct Making {
    called_off: AtomicBool,
    course: Mutex<Course>,
    over: Condvar,
}

#[derive(Debug, Clone)]
enum Course {
    UnderWay(&'static str),
    Failed { since: Timestamp, reason: String, words: Vec<String> },
    Over,
}

impl Making {
    fn begun() -> Self {
        let course = Mutex::new(Course::UnderWay("its data is being made"));
        Self { called_off: AtomicBool::new(false), course, over: Condvar::new() }
    }

    fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::Acquire)
    }

    fn say(&self, course: Course) {
        *lock(&self.course) = course;
        self.over.notify_all();
    }
}

/// Begins to make an instance of a database.
pub(in crate::local) fn create(
    machine: &Arc<Machine>,
    creation: &InstanceCreation,
) -> Result<(), TargetError> {
    let what = format!("start {}", creation.component);
    let fail = |error: io::Error| TargetError::passing(&what, error);
    let labels = InstanceLabels::of(creation);
    let (Some(data), Some(made)) = (&labels.data, &creation.data) else {
        return Err(TargetError::passing(what, "it has no data"));
    };
    let spec = machine.prepared(creation)?;
    let databases = &machine.databases;
    let place = databases.place(&creation.stack, &creation.component);
    let making = Arc::new(Making::begun());
    {
        let mut makings = lock(&databases.makings);
        let free = match &made.origin {
            DataOrigin::Volume { volume } => databases.claim(&place, volume, data, &what),
            DataOrigin::Upgrade { of } => databases
                .refuse_obstacles(&place, of, data)
                .and_then(|()| databases.has_room(&place, of, &what)),
            DataOrigin::Branch { from: BranchOrigin::Volume { volume, .. } } => databases
                .claim(&place, volume, data, &what)
                .and_then(|()| databases.has_room(&place, volume, &what)),
            DataOrigin::Standby { of } => databases.has_room(&place, of, &what),
            DataOrigin::Empty | DataOrigin::Branch { .. } => Ok(()),
        };
        free?;
        if makings.contains_key(&creation.id) || databases.record(&creation.id).exists() {
            return Err(TargetError::passing(what, "it is being made"));
        }
        place.make().map_err(fail)?;
        // The record first: what is half made is then found as such.
        let begun = Begun {
            labels: labels.clone(),
            address: creation.address,
            at: now(),
            draining_since: None,
        };
        databases.write_down(&creation.id, &begun).map_err(fail)?;
        if data.takes_over() {
            databases.takers.add(&creation.id, &creation.stack, &creation.component);
        }
        makings.insert(creation.id.clone(), making.clone());
    }
    let job = Job {
        machine: machine.clone(),
        making: making.clone(),
        creation: creation.clone(),
        data: made.clone(),
        labels: data.clone(),
        place,
        spec,
    };
    let started = std::thread::Builder::new()
        .name(format!("make-{}", creation.component))
        .spawn(move || job.run());
    started.map(drop).map_err(|error| {
        lock(&machine.databases.makings).remove(&creation.id);
        machine.databases.takers.remove(&creation.id);
        let _ = fs::remove_file(machine.databases.record(&creation.id));
        fail(error)
    })
}

impl Databases {
    fn record(&self, id: &InstanceId) -> PathBuf {
        self.root.join("run/making").join(format!("{id}.json"))
    }

    fn write_down(&self, id: &InstanceId, begun: &Begun) -> io::Result<()> {
        let path = self.record(id);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let unfinished = path.with_extension("tmp");
        fs::write(&unfinished, serde_json::to_vec(begun)?)?;
        fs::rename(unfinished, path)
    }

    fn begun(&self) -> io::Result<BTreeMap<InstanceId, Begun>> {
        let entries = match fs::read_dir(self.root.join("run/making")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries?,
        };
        let mut all = BTreeMap::new();
        for entry in entries {
            let path = entry?.path();
            let id = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            // One that went meanwhile is made.
            let text =
                path.extension().filter(|it| *it == "json").and_then(|_| fs::read(&path).ok());
            let begun = text.and_then(|text| serde_json::from_slice(&text).ok());
            all.extend(id.zip(begun));
        }
        Ok(all)
    }

    /// Whether an instance of a database is being made.
    pub(super) fn is_being_made(&self, place: &Place) -> io::Result<bool> {
        let of = |labels: &InstanceLabels| self.place(&labels.stack, &labels.component);
        Ok(self.begun()?.values().any(|begun| of(&begun.labels).sockets == place.sockets))
    }

    /// Refuses a volume that cannot be served by a new instance.
    fn claim(
        &self,
        place: &Place,
        volume: &InstanceId,
        data: &DataLabels,
        what: &str,
    ) -> Result<(), TargetError> {
        let Some(about) = place.about(volume) else {
            return Err(TargetError::passing(what, format!("there is no volume {volume}")));
        };
        if about.version != data.identity.version {
            let (has, wants) = (about.version, data.identity.version);
            let cause = format!("{volume} was written by version {has}, and it is {wants}");
            let hint = "a new major version takes the data over from an instance that runs";
            return Err(TargetError::permanent(what, cause, hint));
        }
        let holders = self.holders(volume).map_err(|error| TargetError::passing(what, error))?;
        match holders.first() {
            None => Ok(()),
            Some(holder) => {
                Err(TargetError::passing(what, format!("{volume} is held by {holder}")))
            }
        }
    }

    /// Who holds a volume: instances that run or are being made.
    pub(super) fn holders(&self, volume: &InstanceId) -> io::Result<Vec<InstanceId>> {
        let holds = |labels: &InstanceLabels| {
            labels.data.as_ref().is_some_and(|data| data.volume == *volume)
        };
        let begun = self.begun()?.into_iter();
        let mut holders: Vec<InstanceId> =
            begun.filter(|(_, begun)| holds(&begun.labels)).map(|(id, _)| id).collect();
        for name in record::list(&self.root)? {
            let Some(record) = record::read(&self.root, &name).unwrap_or_default() else {
                continue;
            };
            let labels = InstanceLabels::from_labels(&record.labels);
            if labels.is_some_and(|labels| holds(&labels))
                && instance::is_running(&self.root, &record)?
            {
                holders.extend(name.parse::<InstanceId>());
            }
        }
        Ok(holders)
    }

    /// Instances of a stack that are being made, as they are shown.
    pub(in crate::local) fn makings(&self, stack: &StackName) -> io::Result<Vec<ObservedInstance>> {
        let begun = self.begun()?.into_iter().filter(|(_, begun)| begun.labels.stack == *stack);
        let makings = lock(&self.makings);
        Ok(begun.map(|(id, begun)| shown::shown(&id, begun, makings.get(&id))).collect())
    }

    /// The last lines of a program that did not fill a volume.
    pub(in crate::local) fn last_words(&self, id: &InstanceId) -> Option<Vec<String>> {
        let making = lock(&self.makings).get(id).cloned()?;
        match &*lock(&making.course) {
            Course::Failed { words, .. } => Some(words.clone()),
            _ => None,
        }
    }

    /// Marks an instance that is being made as given up; whether it is being made.
    pub(in crate::local) fn mark_draining(&self, id: &InstanceId) -> io::Result<bool> {
        let Some(mut begun) = self.begun()?.remove(id) else { return Ok(false) };
        begun.draining_since.get_or_insert_with(now);
        self.write_down(id, &begun).map(|()| true)
    }

    /// Calls a making off and waits for its end. Nothing where there is none.
    pub(in crate::local) fn call_off(&self, machine: &Machine, id: &InstanceId) -> io::Result<()> {
        let making = lock(&self.makings).get(id).cloned();
        if let Some(making) = making {
            making.called_off.store(true, Ordering::Release);
            let deadline = Instant::now() + CALLED_OFF;
            let mut course = lock(&making.course);
            while matches!(*course, Course::UnderWay(_)) {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::Error::other("its making does not end"));
                }
                let waited = making.over.wait_timeout(course, left);
                course = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
        }
        // One of an earlier daemon has a program that nobody waits for.
        throw_away(machine, &program_name(id)).map_err(io::Error::other)?;
        match fs::remove_file(self.record(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        lock(&self.makings).remove(id);
        self.takers.remove(id);
        Ok(())
    }
}

/// The name of the throw-away instance that fills the volume of an instance.
fn program_name(id: &InstanceId) -> String {
    let own = id.as_str().rsplit('-').next().unwrap_or_default();
    format!("make-{own}")
}

/// What a thread has to make.
struct Job {
    machine: Arc<Machine>,
    making: Arc<Making>,
    creation: InstanceCreation,
    data: DataCreation,
    labels: DataLabels,
    place: Place,
    /// The instance as one of a server.
    spec: LaunchSpec,
}

impl Job {
    fn run(self) {
        let id = &self.creation.id;
        let databases = &self.machine.databases;
        match self.make() {
            Ok(()) => {
                // The instance is there before its record of being made goes.
                if let Err(error) = fs::remove_file(databases.record(id)) {
                    eprintln!("kiln: {id} is made and its record stays: {error}");
                }
                self.making.say(Course::Over);
                lock(&databases.makings).remove(id);
            }
            Err(Failure { reason, words, .. }) => {
                if !self.making.is_called_off() {
                    eprintln!("kiln: {id} cannot be made: {reason}");
                }
                self.making.say(Course::Failed { since: now(), reason, words });
            }
        }
        self.machine.changes.wake(&self.creation.stack);
    }

    fn engine(&self) -> &'static dyn DatabaseEngine {
        engine(self.labels.identity.engine)
    }

    fn make(&self) -> Result<(), Failure> {
        let id = &self.creation.id;
        let failed = |error: io::Error| Failure::of("its volume cannot be made", &error);
        let data = self.place.data(&self.labels.volume);
        let (identity, at_least, mut upgrade) = (&self.labels.identity, BTreeMap::new(), None);
        let mut instance = Instance { id, identity, at_least, beside: None, line: None };
        let role = match &self.data.origin {
            DataOrigin::Empty => {
                self.place.make_volume(id).map_err(failed)?;
                self.fill(&self.engine().create(&instance))?;
                Role::Primary
            }
            DataOrigin::Standby { of } => {
                instance.at_least = self.bounds_of(of)?;
                if self.place.primary().is_none() {
                    self.place.set_primary(of).map_err(failed)?;
                }
                instance.beside = Some(of).filter(|of| self.place.primary().as_ref() != Some(of));
                self.place.make_volume(id).map_err(failed)?;
                self.fill(&self.engine().replicate(&instance, of))?;
                Role::Standby
            }
            DataOrigin::Upgrade { of } => {
                let offered = self.machine.databases.have_offered(&self.place, of, &self.labels);
                let offered = offered.map_err(|error| Failure::of("what it is made of", &error))?;
                let offer = Offer { of: of.clone(), database: offered.database.clone() };
                upgrade = Some(offered);
                self.place.make_volume(id).map_err(failed)?;
                self.fill(&self.engine().upgrade(&instance, &offer))?;
                Role::Primary
            }
            DataOrigin::Volume { volume } => {
                let head = self.place.head().map_err(failed)?;
                let head = head.as_ref();
                let is_head = head.is_some_and(|head| head.volume == *volume);
                let role = self.engine().role(&data).map_err(failed)?;
                let is_tip = head.is_some_and(|head| head.tips.contains(volume));
                if is_head || is_tip { Role::Primary } else { role }
            }
            DataOrigin::Branch { from } => {
                self.open_branch(from)?;
                Role::Primary
            }
        };
        self.engine().ready(&data, role).map_err(failed)?;
        if !matches!(self.data.origin, DataOrigin::Volume { .. }) {
            let about = About {
                stack: self.creation.stack.clone(),
                component: self.creation.component.clone(),
                generation: self.creation.generation,
                engine: self.labels.identity.engine,
                version: self.labels.identity.version,
                branch: self.labels.branch,
                upgrade,
            };
            self.place.complete(&self.labels.volume, &about).map_err(failed)?;
        }
        instance.line = self.place.line(self.engine(), &self.labels.volume).ok();
        self.place.make_socket(id).map_err(failed)?;
        self.launch(&self.engine().serve(&instance))
    }

    /// Fills the volume with an earlier state.
    fn open_branch(&self, from: &BranchOrigin) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::of("its volume cannot be made", &error);
        let id = &self.creation.id;
        let volume = match from {
            BranchOrigin::Volume { volume, .. } => volume,
            BranchOrigin::Backup { at } => {
                self.place.make_volume(id).map_err(failed)?;
                let data = self.place.data(id);
                let making = self.making.clone();
                let called_off = move || making.is_called_off();
                return backup::fill(&self.machine, &self.creation, at, &data, &called_off)
                    .map_err(Failure::because);
            }
            BranchOrigin::Beginning | BranchOrigin::Discarded => {
                let reason = "a branch needs a state to begin with".to_owned();
                return Err(Failure::because(reason));
            }
        };
        self.place.make_volume(id).map_err(failed)?;
        let (from, to) = (self.place.data(volume), self.place.data(id));
        copy::tree(&from, &to, &|| self.making.is_called_off())
            .map_err(|error| Failure::of(&format!("{volume} cannot be copied"), &error))
    }

    /// Starts the instance itself.
    fn launch(&self, program: &Program) -> Result<(), Failure> {
        let id = &self.creation.id;
        let mut spec = self.with(program);
        let own = VolumeMount {
            source: self.place.socket(id),
            path: format!("{}/{id}", self.engine().layout().sockets),
            read_only: false,
            own: true,
        };
        spec.volumes.push(own);
        if self.making.is_called_off() {
            return Err(Failure::called_off());
        }
        self.machine.launch(spec).map_err(|error| Failure::because(error.to_string()))
    }

    /// What an instance must have as much of as the one that it is to follow.
    fn bounds_of(&self, of: &InstanceId) -> Result<BTreeMap<String, u64>, Failure> {
        let sockets = self.place.socket(of);
        let bounds = async {
            let ask = async { self.engine().connect(&sockets).await?.bounds().await };
            tokio::time::timeout(ANSWER, ask).await
        };
        match self.machine.databases.runtime.block_on(bounds) {
            Ok(Ok(bounds)) => Ok(bounds),
            Ok(Err(error)) => Err(Failure::of(&format!("ask {of}"), &error)),
            Err(error) => Err(Failure::of(&format!("ask {of}"), &error)),
        }
    }

    /// The instance with a program of the engine in it, and the data.
    fn with(&self, program: &Program) -> LaunchSpec {
        let mut spec = with_program(&self.spec, self.engine().layout().user, program);
        spec.volumes = self.volumes();
        spec
    }

    fn volumes(&self) -> Vec<VolumeMount> {
        let layout = self.engine().layout();
        let mount = |source: &Path, path: &str, read_only: bool| VolumeMount {
            source: source.to_owned(),
            path: path.to_owned(),
            read_only,
            own: !read_only,
        };
        vec![
            mount(&self.place.data(&self.labels.volume), layout.data, false),
            mount(&self.place.sockets, layout.sockets, true),
        ]
    }

    /// Runs a program over the volume to its end.
    fn fill(&self, program: &Program) -> Result<(), Failure> {
        let data = self.place.data(&self.labels.volume);
        let run = Run {
            machine: &self.machine,
            spec: &self.spec,
            user: self.engine().layout().user,
            name: program_name(&self.creation.id),
            of: format!("data of {}", self.creation.id),
            volumes: self.volumes(),
            grows: &data,
            patience: STALLED,
            called_off: &|| self.making.is_called_off(),
        };
        run.to_its_end(program)
    }
}
