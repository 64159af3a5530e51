//! Backups of the databases of this machine. For each one there are two threads: one archives the log
//! of changes at all times, the other makes copies when they are due, proves each, removes what is not
//! needed any more, and does what somebody asks for, one thing after the other.

mod base;
mod destination;
mod moment;
mod prove;
mod restore;
mod ship;
mod tend;
mod trade;
mod unpack;
mod view;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};

use kiln_engine::TargetError;
use kiln_engine::backup::{Answer, Ask, Wanted};
use kiln_model::alarm::{Alarm, Cause};
use kiln_model::name::{ComponentId, StackName};
use kiln_model::quantity::Timestamp;

use super::lock;
use super::place::Place;
use crate::local::Machine;
pub(super) use moment::fill;
use trade::{Trade, Trouble};

/// How many requests may wait for those before them.
const AHEAD: usize = 8;

/// The backups of all databases.
#[derive(Default)]
pub(super) struct Backups {
    tenders: Mutex<BTreeMap<(StackName, ComponentId), Arc<Tender>>>,
    alarms: Mutex<BTreeMap<StackName, Vec<Alarm>>>,
}

/// What cares for the backups of one database.
struct Tender {
    place: Place,
    work: PathBuf,
    wanted: Mutex<Wanted>,
    stopped: AtomicBool,
    archive: Mutex<Archiving>,
    requests: mpsc::SyncSender<Request>,
}

/// How the log is archived at present.
#[derive(Debug, Clone, Default)]
struct Archiving {
    /// How often it was looked for files.
    rounds: u64,
    waiting: u64,
    since: Option<Timestamp>,
    last: Option<String>,
    trouble: Option<String>,
}

/// Something that is asked of a database's backups.
struct Request {
    ask: Ask,
    reply: mpsc::Sender<Result<Answer, String>>,
}

impl Tender {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn wanted(&self) -> Wanted {
        lock(&self.wanted).clone()
    }
}

impl Backups {
    /// What a stack's databases raise alarms for: all since this was last asked.
    pub(in crate::local) fn alarms(&self, stack: &StackName) -> Vec<Alarm> {
        lock(&self.alarms).remove(stack).unwrap_or_default()
    }

    fn alarm(&self, machine: &Machine, wanted: &Wanted, what: String) {
        let (stack, component) = (&wanted.creation.stack, wanted.creation.component.clone());
        eprintln!("kiln: backups of {component} of {stack}: {what}");
        let alarm = Alarm { cause: Cause::Backup, component: Some(component), what };
        lock(&self.alarms).entry(stack.clone()).or_default().push(alarm);
        machine.changes.wake(stack);
    }

    fn tender(&self, stack: &StackName, component: &ComponentId) -> Option<Arc<Tender>> {
        lock(&self.tenders).get(&(stack.clone(), component.clone())).cloned()
    }
}

/// Cares for the backups of these databases of a stack from now on, and of no others of it.
pub(in crate::local) fn back_up(machine: &Arc<Machine>, stack: &StackName, wanted: Vec<Wanted>) {
    let backups = &machine.databases.backups;
    let mut tenders = lock(&backups.tenders);
    let named = |component: &ComponentId| {
        wanted.iter().any(|wanted| wanted.creation.component == *component)
    };
    tenders.retain(|(of, component), tender| {
        let stays = of != stack || named(component);
        if !stays {
            tender.stopped.store(true, Ordering::Release);
        }
        stays
    });
    // Of a database that is backed up no longer nothing waits to be archived.
    for (component, place) in Place::all(&machine.root, stack).unwrap_or_default() {
        if !named(&component) {
            for (_, _, left) in place.left().unwrap_or_default() {
                let _ = fs::remove_dir_all(left);
            }
        }
    }
    for wanted in wanted {
        let key = (stack.clone(), wanted.creation.component.clone());
        if let Some(tender) = tenders.get(&key) {
            *lock(&tender.wanted) = wanted;
            continue;
        }
        match start(machine, wanted) {
            Ok(tender) => drop(tenders.insert(key, tender)),
            Err(error) => eprintln!("kiln: the backups of {} are not cared for: {error}", key.1),
        }
    }
}

fn start(machine: &Arc<Machine>, wanted: Wanted) -> std::io::Result<Arc<Tender>> {
    let work = trade::work(&machine.root, &wanted);
    fs::create_dir_all(&work)?;
    let place = machine.databases.place(&wanted.creation.stack, &wanted.creation.component);
    let (requests, asked) = mpsc::sync_channel(AHEAD);
    let name = wanted.creation.component.host_name();
    let tender = Arc::new(Tender {
        place,
        work,
        wanted: Mutex::new(wanted),
        stopped: AtomicBool::new(false),
        archive: Mutex::default(),
        requests,
    });
    let spawn = |what: &str, work: Box<dyn FnOnce(Weak<Machine>, Arc<Tender>) + Send>| {
        let (machine, tender) = (Arc::downgrade(machine), tender.clone());
        let thread = std::thread::Builder::new().name(format!("{what}-{name}"));
        thread.spawn(move || work(machine, tender)).map(drop)
    };
    spawn("archive", Box::new(|machine, tender| tend::archive(&machine, &tender)))?;
    spawn("backup", Box::new(move |machine, tender| tend::tend(&machine, &tender, &asked)))?;
    Ok(tender)
}

/// Answers what is asked about the backups of a database; it may take long.
pub(in crate::local) fn answer(
    machine: &Arc<Machine>,
    stack: &StackName,
    component: &ComponentId,
    ask: Ask,
) -> Result<Answer, TargetError> {
    let what = format!("ask for the backups of {component}");
    let Some(tender) = machine.databases.backups.tender(stack, component) else {
        let hint = "give it a `backup`, such as backup = { every = \"1d\", keep = \"7d\" }";
        return Err(TargetError::permanent(what, "it is not backed up", hint));
    };
    let fail = |why: String| TargetError::passing(&what, why);
    if ask == Ask::List {
        return view::list(machine, &tender).map(Answer::List).map_err(fail);
    }
    let (reply, answer) = mpsc::channel();
    let asked = tender.requests.try_send(Request { ask, reply });
    asked.map_err(|_| fail(format!("{AHEAD} other requests wait already")))?;
    let answer = answer.recv().map_err(|_| fail("it is backed up no longer".to_owned()))?;
    answer.map_err(fail)
}
