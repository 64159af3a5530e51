//! This machine as a target: what the engine asks for, done by launcher, networks and gateway.

mod alarm;
pub(crate) mod create;
mod database;
mod demand;
mod destroy;
mod events;
mod examine;
mod guard;
mod health;
mod labels;
mod metrics;
mod observe;
mod program;
pub mod quarantine;
mod route;
mod seal;
mod seams;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kiln_acme::{Issuer, Log};
use kiln_engine::alarm::Raised;
use kiln_engine::backup::{self, Answer, Wanted};
use kiln_engine::guard::GuardReport;
use kiln_engine::metrics::Family;
use kiln_engine::target::{Examination, Measured, Probes};
use kiln_engine::{Target, TargetError};
use kiln_gateway::Gateway;
use kiln_model::alarm::Alarm;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::plan::{Creation, Doomed};
use kiln_model::quantity::Timestamp;
use kiln_model::route::RouteTable;
use kiln_model::scaling::Demand;
use kiln_model::spec::rollout::Ask;
use kiln_model::spec::scale::NumberTarget;

use crate::cgroup::{CgroupError, Cgroups, Hierarchies};
use crate::network::Networks;
use crate::{launcher, logs};

pub use seams::{FileDigests, ImageFiles, ImageRefusal, Images, SecretValues};

use alarm::Herald;
use database::Databases;
use events::Changes;
use guard::Guard;
use health::Prober;
use seal::Seals;

/// This machine, as seen by one root.
#[derive(Clone)]
pub struct Local {
    machine: Arc<Machine>,
}

/// What all parts of the target share.
struct Machine {
    root: PathBuf,
    /// This program, which is also launcher and gateway.
    exe: PathBuf,
    cgroups: Cgroups,
    networks: Networks,
    gateway: Gateway,
    images: Arc<dyn Images>,
    seals: Seals,
    guard: Arc<Guard>,
    secrets: Box<dyn SecretValues>,
    changes: Arc<Changes>,
    prober: Prober,
    herald: Herald,
    databases: Databases,
    /// Held by whoever routes a stack: one that is late must not go on beside the next.
    routing: Mutex<BTreeMap<StackName, Arc<Mutex<()>>>>,
    /// What obtains certificates, where that was asked for.
    issuer: OnceLock<Issuer>,
    /// What has no record, and since when it is known: removed when it has none for long.
    strays: Mutex<BTreeMap<String, Instant>>,
}

/// Why the machine can't be a target.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The root has no id, or can't be read.
    #[error("the root at {} cannot be used", .path.display())]
    Root {
        /// The root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The machine's network namespace can't be used.
    #[error(transparent)]
    Network(#[from] crate::network::Error),
    /// The kernel has no control groups that would do.
    #[error("this kernel's control groups cannot be used")]
    Cgroups(#[from] CgroupError),
}

impl Local {
    /// The machine for the root at `root`, whose `id` exists. `exe` is this program. Must be
    /// called inside a tokio runtime: instances are probed on it.
    pub fn open(
        root: &Path,
        exe: &Path,
        images: Box<dyn Images>,
        secrets: Box<dyn SecretValues>,
    ) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Root { path: root.to_owned(), source };
        let root_id = launcher::root_id(root).map_err(unusable)?;
        for directory in ["run/instances", "run/networks", "logs"] {
            fs::create_dir_all(root.join(directory)).map_err(unusable)?;
        }
        let cgroups = Cgroups::new(Hierarchies::detect()?, &root_id);
        let changes = Arc::new(Changes::default());
        let images: Arc<dyn Images> = Arc::from(images);
        let machine = Arc::new(Machine {
            root: root.to_owned(),
            exe: exe.to_owned(),
            networks: Networks::new(root.join("run/net"), root_id)?,
            gateway: Gateway::of(root),
            seals: Seals::new(images.clone(), changes.clone()),
            guard: Arc::new(Guard::new(root, &cgroups, changes.clone())),
            cgroups,
            images,
            secrets,
            prober: Prober::new(root, changes.clone()),
            herald: Herald::start(),
            databases: Databases::new(root, changes.clone()),
            changes,
            issuer: OnceLock::new(),
            strays: Mutex::new(BTreeMap::new()),
            routing: Mutex::new(BTreeMap::new()),
        });
        events::listen(&machine);
        route::renew_gateway(&machine);
        Ok(Self { machine })
    }

    /// Obtains and renews certificates by ACME from now on, and says so to `log`. Must be called
    /// inside a tokio runtime.
    pub fn issue_certificates(&self, log: Log) {
        let root = self.machine.root.clone();
        self.machine.issuer.get_or_init(|| Issuer::start(&root, log));
    }

    /// Does blocking work on a thread that may block.
    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Machine>) -> Result<R, TargetError> + Send + 'static,
    ) -> Result<R, TargetError> {
        let machine = self.machine.clone();
        tokio::task::spawn_blocking(move || work(&machine))
            .await
            .map_err(|error| TargetError::passing("work on this machine", error))?
    }
}

impl Target for Local {
    async fn observe(&self, stack: &StackName, probes: &Probes) -> Result<Measured, TargetError> {
        let (name, probes) = (stack.clone(), probes.clone());
        let (mut measured, misled) = self.blocking(move |machine| machine.look(&name)).await?;
        let databases = &self.machine.databases;
        self.machine.prober.judge(stack, &mut measured, &probes, |id| databases.knows(id));
        databases.judge(stack, &mut measured).await;
        if let Some(table) = &mut measured.table {
            // What the gateway does where no rule leads to it is not routed.
            table.networks.retain(|route| !misled.contains(&route.network));
        }
        Ok(measured)
    }

    async fn create(&self, creation: &Creation) -> Result<(), TargetError> {
        let creation = creation.clone();
        self.blocking(move |machine| match &creation {
            Creation::Network(network) => machine.create_network(network),
            Creation::Instance(instance) if instance.data.is_some() => {
                database::create(machine, instance)
            }
            Creation::Instance(instance) => machine.create_instance(instance),
        })
        .await
    }

    async fn route(&self, table: &RouteTable) -> Result<(), TargetError> {
        let table = table.clone();
        self.blocking(move |machine| machine.route(table)).await
    }

    async fn drain(&self, instance: &InstanceId) -> Result<(), TargetError> {
        let instance = instance.clone();
        self.blocking(move |machine| machine.mark_draining(&instance)).await
    }

    async fn destroy(&self, doomed: &Doomed) -> Result<(), TargetError> {
        let target = doomed.clone();
        self.blocking(move |machine| match &target {
            Doomed::Network(id) => machine.destroy_network(id),
            Doomed::Instance(id, evidence) => machine.destroy_instance(id, *evidence),
            Doomed::Data(stack, database) => machine.databases.remove(stack, database),
        })
        .await
    }

    async fn inspect(&self, stack: &StackName) {
        let stack = stack.clone();
        let measure = move |machine: &Arc<Machine>| {
            machine.guard.measure(&stack);
            Ok(())
        };
        // What could not be measured now is measured by the sweep.
        let _ = self.blocking(measure).await;
    }

    fn guard(&self) -> Option<GuardReport> {
        Some(self.machine.guard.report())
    }

    fn back_up(&self, stack: &StackName, wanted: Vec<Wanted>) {
        database::backup::back_up(&self.machine, stack, wanted);
    }

    async fn backups(
        &self,
        stack: &StackName,
        database: &ComponentId,
        ask: backup::Ask,
    ) -> Result<Answer, TargetError> {
        let (stack, database) = (stack.clone(), database.clone());
        self.blocking(move |machine| database::backup::answer(machine, &stack, &database, ask))
            .await
    }

    fn alarms(&self, stack: &StackName) -> Vec<Alarm> {
        self.machine.databases.alarms(stack)
    }

    fn alarm(&self, raised: Raised) {
        self.machine.herald.tell(raised);
    }

    async fn changed(&self, stack: &StackName) {
        self.machine.changes.of(stack).notified().await;
    }

    async fn examine(&self, examination: &Examination) -> Result<(), String> {
        match &examination.check.ask {
            Ask::Command(command) => examine::command(command, examination).await,
            Ask::Instance(probe) => {
                for instance in &examination.instances {
                    self.machine.prober.ask(instance, probe).await?;
                }
                Ok(())
            }
        }
    }

    async fn demand(
        &self,
        stack: &StackName,
        instances: &[InstanceId],
    ) -> Result<Demand, TargetError> {
        let (stack, instances) = (stack.clone(), instances.to_vec());
        self.blocking(move |machine| machine.demand(&stack, &instances)).await
    }

    async fn number(&self, asked: &NumberTarget) -> Result<u64, String> {
        program::number(asked).await
    }

    async fn last_words(&self, instance: &InstanceId, lines: usize) -> Vec<String> {
        if let Some(words) = self.machine.databases.last_words(instance) {
            return words;
        }
        let directory = logs::directory(&self.machine.root, instance.as_str());
        let read = tokio::task::spawn_blocking(move || logs::tail(&directory, lines)).await;
        let lines = read.ok().and_then(Result::ok).unwrap_or_default();
        lines.into_iter().map(|line| line.text).collect()
    }

    async fn metrics(&self) -> Result<Vec<Family>, TargetError> {
        self.blocking(|machine| machine.metrics()).await
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
