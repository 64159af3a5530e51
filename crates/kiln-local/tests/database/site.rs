//! A root with one stack that has one database, and what a keeper would do with it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kiln_engine::backup::{Answer, Ask, Backups, Wanted};
use kiln_engine::target::{Measured, Probes};
use kiln_engine::{Target as _, TargetError};
use kiln_image::verity;
use kiln_local::cgroup::{Cgroups, Hierarchies};
use kiln_local::instance::client::Client;
use kiln_local::instance::{StopPolicy, destroy, record};
use kiln_local::local::{FileDigests, ImageFiles, ImageRefusal, Images, Local, SecretValues};
use kiln_model::data::{DataOrigin, Said};
use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, InstanceId, StackName};
use kiln_model::observed::ObservedInstance;
use kiln_model::plan::{
    Creation, DataCreation, Doomed, Evidence, InstanceCreation, NetworkCreation,
};
use kiln_model::quantity::Millis;
use kiln_model::route::{DatabaseRoute, RouteTable};
use kiln_model::spec::backup::Backup;
use kiln_model::spec::database::{Database, DatabaseIdentity, DatabasePolicy, Engine};
use kiln_model::spec::network::NetworkIdentity;
use kiln_model::spec::rollout::Rollout;
use kiln_model::trust::Demands;
use tokio::net::UnixStream;
use tokio_postgres::{Config, NoTls};

use crate::image;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the roots of one process apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A root; everything of it is gone when it is dropped.
pub(crate) struct Site {
    directory: tempfile::TempDir,
    id: String,
    pub(crate) local: Local,
    pub(crate) identity: DatabaseIdentity,
    epoch: AtomicU64,
    made: AtomicU64,
}

struct OneImage(ImageFiles);

impl Images for OneImage {
    fn get(&self, _: &Digest, _: &Demands) -> Result<ImageFiles, ImageRefusal> {
        Ok(self.0.clone())
    }

    fn measure(&self, file: &fs::File) -> io::Result<FileDigests> {
        use std::io::Seek as _;
        let mut file = file.try_clone()?;
        file.rewind()?;
        let found = verity::of_reader(file)?;
        let (digest, fs_verity, root) = (found.digest, found.fs_verity, found.root);
        Ok(FileDigests { digest, fs_verity, root })
    }
}

struct Password;

/// What `age-keygen` writes.
pub(crate) const IDENTITY: &str =
    "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6";

impl SecretValues for Password {
    fn reveal(&self, _: &StackName, _: u64, secret: &ComponentId) -> Result<String, String> {
        Ok(if secret.name == "age" { IDENTITY } else { "correct-horse" }.to_owned())
    }

    fn reveal_version(&self, _: &StackName, _: &ComponentId, _: &str) -> Result<String, String> {
        Ok("correct-horse".to_owned())
    }
}

impl Site {
    /// A new root, or none where the machine cannot run such instances; then it has said so.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        Self::with_image(test, &[]).await
    }

    /// The same, where the image lacks these files.
    pub(crate) async fn with_image(test: &str, without: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: {test}: must be run as root");
            return None;
        }
        let filesystems = fs::read_to_string("/proc/filesystems").unwrap();
        if !filesystems.lines().any(|line| line.ends_with("\terofs")) {
            println!("skipped: {test}: the kernel has no EROFS");
            return None;
        }
        if !image::is_possible() {
            println!("skipped: {test}: PostgreSQL {} is not installed here", image::VERSION);
            return None;
        }
        Some(Self::made(image::VERSION, |to| image::write(to, without)).await)
    }

    /// A new root whose image was built elsewhere.
    pub(crate) async fn of(version: u32, image: &Path) -> Self {
        Self::made(version, |to| assert!(fs::copy(image, to).unwrap() > 0)).await
    }

    async fn made(version: u32, write: impl FnOnce(&Path)) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed) & 0xff;
        let id = format!("{:06x}{number:02x}", std::process::id() & 0xff_ffff);
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(directory.path().join("id"), &id).unwrap();
        write(&directory.path().join("image.erofs"));
        let local = open(directory.path());
        let identity = kiln_database::fixture::identity();
        let identity = DatabaseIdentity { version, ..identity };
        let (epoch, made) = Default::default();
        let site = Self { directory, id, local, identity, epoch, made };
        site.local.create(&Creation::Network(Arc::new(network()))).await.unwrap();
        site
    }

    /// As after the end of the daemon, and the start of another.
    pub(crate) fn reopen(&mut self) {
        self.local = open(self.root());
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn cgroups(&self) -> Cgroups {
        Cgroups::new(Hierarchies::detect().unwrap(), &self.id)
    }

    /// The name of the instance that will be asked for next.
    pub(crate) fn next(&self) -> InstanceId {
        let number = self.made.load(Ordering::Relaxed) + 1;
        format!("orders-{number:012x}").parse().unwrap()
    }

    fn making(&self, id: &InstanceId) -> PathBuf {
        self.root().join("run/making").join(format!("{id}.json"))
    }

    pub(crate) fn copy_record_of_making(&self, id: &InstanceId) {
        fs::copy(self.making(id), self.root().join("kept.json")).unwrap();
    }

    pub(crate) fn put_record_back(&self, id: &InstanceId) {
        fs::rename(self.root().join("kept.json"), self.making(id)).unwrap();
    }

    /// Asks for an instance.
    pub(crate) async fn create(&self, origin: DataOrigin) -> Result<InstanceId, TargetError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let id: InstanceId = format!("orders-{number:012x}").parse().unwrap();
        let creation = self.creation(&id, number, origin);
        self.local.create(&Creation::Instance(Arc::new(creation))).await.map(|()| id)
    }

    fn creation(&self, id: &InstanceId, number: u64, origin: DataOrigin) -> InstanceCreation {
        let policy = DatabasePolicy {
            address: [10, 198, 0, 10].into(),
            password: "secret.orders".parse().unwrap(),
            replicas: 0,
            hold: Millis::seconds(5),
            rollout: Rollout::rolling(Millis::seconds(60)),
            backup: None,
        };
        let database = Database { identity: self.identity.clone(), policy };
        let last = 130 + u8::try_from(number).unwrap();
        InstanceCreation {
            id: id.clone(),
            stack: stack(),
            component: component(),
            digest: Digest::of(format!("{:?}", self.identity).as_bytes()),
            generation: number,
            network: network().id,
            network_identity: network().identity,
            address: [10, 198, 0, last].into(),
            image: Digest::of(b"image"),
            demands: Demands::default(),
            server: database.server(),
            data: Some(DataCreation { identity: self.identity.clone(), origin, branch: 0 }),
        }
    }

    /// Has the database backed up from now on.
    pub(crate) fn back_up(&self, backup: Backup) {
        let id = "none-000000000000".parse().unwrap();
        let creation = self.creation(&id, 0, DataOrigin::Empty);
        self.local.back_up(&stack(), vec![Wanted { creation, backup }]);
    }

    /// Asks about its backups.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer, TargetError> {
        self.local.backups(&stack(), &component(), ask).await
    }

    /// Its backups.
    pub(crate) async fn backups(&self) -> Backups {
        match self.ask(Ask::List).await.unwrap() {
            Answer::List(backups) => backups,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until its backups are as they should be.
    pub(crate) async fn until_backups(
        &self,
        what: &str,
        done: impl Fn(&Backups) -> bool,
    ) -> Backups {
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            let backups = self.backups().await;
            if done(&backups) {
                return backups;
            }
            let alarms = self.local.alarms(&stack());
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}: {backups:#?} {alarms:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What there were alarms for since this was last asked.
    pub(crate) fn alarms(&self) -> Vec<String> {
        self.local.alarms(&stack()).into_iter().map(|alarm| alarm.what).collect()
    }

    /// Serves a data directory that was restored, in a volume and an instance of its own.
    pub(crate) async fn serve(&self, data: &Path) -> InstanceId {
        let volume: InstanceId =
            format!("orders-{:012x}", self.made.load(Ordering::Relaxed) + 1000).parse().unwrap();
        let directory = self.volumes().join(volume.as_str());
        fs::create_dir_all(&directory).unwrap();
        fs::rename(data, directory.join("data")).unwrap();
        let (version, branch) = (self.identity.version, self.made.load(Ordering::Relaxed) + 1000);
        let about = format!(
            r#"{{"stack":"shop","component":"database.orders","generation":1,"engine":"postgres",
                "version":{version},"branch":{branch}}}"#
        );
        fs::write(directory.join("volume.json"), about).unwrap();
        let id = self.create(DataOrigin::Volume { volume }).await.unwrap();
        self.ready(&id).await;
        id
    }

    /// An instance with an empty database that takes the writes.
    pub(crate) async fn first(&self) -> InstanceId {
        let id = self.create(DataOrigin::Empty).await.unwrap();
        self.ready(&id).await;
        self.route(Some(&id), false).await.unwrap();
        id
    }

    /// A standby of another instance.
    pub(crate) async fn standby(&self, of: &InstanceId) -> InstanceId {
        let id = self.create(DataOrigin::Standby { of: of.clone() }).await.unwrap();
        self.ready(&id).await;
        id
    }

    pub(crate) async fn route(
        &self,
        primary: Option<&InstanceId>,
        holds: bool,
    ) -> Result<(), TargetError> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let route = DatabaseRoute {
            component: component(),
            engine: Engine::Postgres,
            primary: primary.cloned(),
            holds,
            user: self.identity.user.clone(),
            database: self.identity.database.clone(),
            passwords: Vec::new(),
        };
        let table = RouteTable { epoch, databases: vec![route], ..RouteTable::empty(stack()) };
        self.local.route(&table).await
    }

    pub(crate) async fn look(&self) -> Measured {
        self.local.observe(&stack(), &Probes::default()).await.unwrap()
    }

    pub(crate) async fn see(&self, id: &InstanceId) -> Option<ObservedInstance> {
        self.look().await.instances.into_iter().find(|instance| instance.id == *id)
    }

    /// Waits until an instance is as it should be.
    pub(crate) async fn until(
        &self,
        what: &str,
        id: &InstanceId,
        done: impl Fn(&ObservedInstance) -> bool,
    ) -> ObservedInstance {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.see(id).await;
            if let Some(seen) = seen.clone().filter(&done) {
                return seen;
            }
            if Instant::now() >= deadline {
                let log = self.local.last_words(id, 30).await;
                panic!("waited in vain for {what}: {seen:#?}\n{}", log.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn ready(&self, id: &InstanceId) -> ObservedInstance {
        self.until("it to be ready", id, ObservedInstance::is_ready).await
    }

    pub(crate) async fn said(&self, id: &InstanceId) -> Said {
        self.ready(id).await.data.unwrap().said.unwrap()
    }

    pub(crate) async fn destroy(&self, id: &InstanceId) {
        self.local.destroy(&Doomed::Instance(id.clone(), Evidence::None)).await.unwrap();
        assert!(self.see(id).await.is_none());
    }

    /// Runs statements as the database's user, over an instance's socket.
    pub(crate) async fn run(
        &self,
        id: &InstanceId,
        statement: &str,
    ) -> Result<Vec<String>, String> {
        let identity = &self.identity;
        self.run_as(id, &identity.user, &identity.database, statement).await
    }

    pub(crate) async fn run_as(
        &self,
        id: &InstanceId,
        user: &str,
        database: &str,
        statement: &str,
    ) -> Result<Vec<String>, String> {
        let socket = self.sockets().join(id.as_str()).join(kiln_database::postgres::SOCKET);
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let mut config = Config::new();
        config.user(user).dbname(database);
        let connected = config.connect_raw(stream, NoTls).await;
        let (client, connection) = connected.map_err(|error| format!("{error:?}"))?;
        tokio::spawn(connection);
        let answers = client.simple_query(statement).await.map_err(|error| format!("{error:?}"))?;
        let rows = answers.into_iter().filter_map(|answer| match answer {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0)?.to_owned()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Waits until a question has this answer.
    pub(crate) async fn until_row(&self, id: &InstanceId, question: &str, row: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.run(id, question).await;
            if answer.as_ref().is_ok_and(|rows| rows == &[row.to_owned()]) {
                return;
            }
            assert!(Instant::now() < deadline, "{question}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The directory with the sockets of all instances.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.root().join(kiln_model::data::sockets(&stack(), &component()))
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root().join(kiln_model::data::volumes(&stack(), &component()))
    }

    /// The volume that writes go to.
    pub(crate) async fn head(&self) -> Option<InstanceId> {
        self.look().await.volumes.into_iter().find(|volume| volume.head).map(|volume| volume.id)
    }

    /// The names of all volumes.
    pub(crate) async fn volume_names(&self) -> Vec<String> {
        self.look().await.volumes.into_iter().map(|volume| volume.id.to_string()).collect()
    }

    /// Kills the processes of an instance, as the kernel or a person would.
    pub(crate) async fn kill(&self, id: &InstanceId) {
        let pid = self.see(id).await.unwrap().pid.unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        self.until("its end", id, |seen| !seen.is_running()).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let policy = StopPolicy { signal: libc::SIGKILL, grace: Duration::ZERO };
        for name in record::list(self.root()).unwrap_or_default() {
            let _ = destroy(self.root(), &self.cgroups(), &name, policy);
        }
        let root = self.root().to_owned();
        let networks = kiln_local::network::Networks::new(root.join("run/net"), &self.id).unwrap();
        let gateway = kiln_gateway::Gateway::of(&root);
        let nothing = RouteTable { epoch: u64::MAX, ..RouteTable::empty(stack()) };
        let _ = gateway.set_table(nothing);
        let _ = networks.destroy(network().id.as_str());
        if let Ok(mut client) = Client::connect(&root) {
            let _ = client.shutdown();
        }
        let _ = self.cgroups().remove_parents();
        let deadline = Instant::now() + Duration::from_secs(5);
        let alive = || root.join("run/launcher.sock").exists() || gateway.status().is_ok();
        while alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A small filesystem in memory; gone when it is dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it below the volumes, where the data of one that does not exist yet will be.
    pub(crate) fn at(volume: &Path, size: &str) -> Self {
        fs::create_dir_all(volume).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        let size = std::ffi::CString::new(format!("size={size},mode=700")).unwrap();
        rustix::mount::mount("tmpfs", volume, "tmpfs", flags, size.as_c_str()).unwrap();
        Self(volume.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

fn open(root: &Path) -> Local {
    let rootfs = root.join("image.erofs");
    let digest = verity::of_reader(fs::File::open(&rootfs).unwrap()).unwrap().digest;
    let image = ImageFiles {
        rootfs,
        digest,
        signed: None,
        argv: vec!["/unused".to_owned()],
        env: BTreeMap::new(),
        user: String::new(),
        workdir: String::new(),
        writable: BTreeMap::new(),
    };
    Local::open(root, &helper(), Box::new(OneImage(image)), Box::new(Password)).unwrap()
}

fn stack() -> StackName {
    "shop".parse().unwrap()
}

fn component() -> ComponentId {
    "database.orders".parse().unwrap()
}

fn network() -> NetworkCreation {
    NetworkCreation {
        id: "back-1".parse().unwrap(),
        stack: stack(),
        component: "network.back".parse().unwrap(),
        digest: Digest::of(b"back"),
        generation: 1,
        identity: NetworkIdentity { cidr: "10.198.0.0/24".parse().unwrap(), egress: Vec::new() },
    }
}

/// The example that starts Kiln's own processes, which cargo builds with the tests.
fn helper() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().with_file_name("examples").join("launcher")
}

/// What an instance said last, where it has said anything.
pub(crate) fn said(seen: &ObservedInstance) -> Option<&Said> {
    seen.data.as_ref()?.said.as_ref()
}
