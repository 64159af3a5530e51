//! The suite of the seam, against each PostgreSQL that is installed.
//!
//! Programs run as they do in an instance, but without an image: in a namespace of mounts of their own,
//! where the data, the sockets and the files of configuration are where the engine expects them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: a failed expectation is a panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use kiln_database::conformance::{self, Client, Stage};
use kiln_database::postgres::{PRIMARY, SOCKET};
use kiln_database::{Answer, DatabaseEngine as _, EngineError, Postgres, Program, fixture};
use kiln_model::name::InstanceId;
use kiln_model::spec::database::DatabaseIdentity;
use kiln_model::spec::postgres::{CONFIGURATION, program};
use tokio::net::UnixStream;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// Mounts what a program expects and becomes it. `$1`: data, `$2`: sockets, `$3`: configuration, then
/// where they go, the user, and the program.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs none "$(dirname "$4")"
mkdir "$4"
mount --bind "$1" "$4"
mount --bind "$2" "$5"
mount --bind "$3" "$6"
user=$7
shift 7
exec setpriv --reuid "$user" --regid "$user" --init-groups -- "$@"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_postgresql_that_is_installed_conforms() {
    let name = "every_postgresql_that_is_installed_conforms";
    if !rustix::process::geteuid().is_root() {
        println!("skipped: {name}: must be run as root");
        return;
    }
    let installed = (13..=17).filter(|version| Path::new(&program(*version, "postgres")).exists());
    let installed: Vec<u32> = installed.collect();
    if installed.is_empty() {
        println!("skipped: {name}: no PostgreSQL is installed here");
    }
    for version in installed {
        let identity = DatabaseIdentity { version, ..fixture::identity() };
        conformance::engine(&Postgres, &Host::new(), &identity).await;
        println!("PostgreSQL {version} conforms");
    }
}

/// Programs on this machine; all that run are ended when it is dropped.
struct Host {
    directory: tempfile::TempDir,
    running: Mutex<BTreeMap<InstanceId, Child>>,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, running: Mutex::default() }
    }

    /// A directory of the engine's user.
    fn own(&self, kind: &str, id: &InstanceId, mode: u32) -> PathBuf {
        let path = self.directory.path().join(kind).join(id.as_str());
        if !path.exists() {
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let user = Postgres.layout().user;
            let owned = Command::new("chown").arg(format!("{user}:{user}")).arg(&path).status();
            assert!(owned.unwrap().success());
        }
        path
    }

    fn command(&self, data: &InstanceId, program: &Program) -> Command {
        let configuration = self.directory.path().join("configuration").join(data.as_str());
        fs::create_dir_all(&configuration).unwrap();
        for (path, files) in &program.directories {
            assert_eq!(path, CONFIGURATION);
            for (name, content) in files {
                fs::write(configuration.join(name), content).unwrap();
            }
        }
        let layout = Postgres.layout();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--ipc", "--pid", "--fork"]);
        command.args(["sh", "-c", SCRIPT, "sh"]);
        command.arg(self.data(data)).arg(self.directory.path().join("sockets")).arg(configuration);
        command.args([layout.data, layout.sockets, CONFIGURATION, layout.user]);
        command.args(&program.argv).env_clear().envs(&program.env);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.running.lock().unwrap().values_mut() {
            end(child);
        }
    }
}

/// Ends a server with all its processes: with the first one of a namespace the others end, before its
/// parent, which waits for it, hears of it.
fn end(child: &mut Child) {
    let id = child.id();
    let first = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    for pid in first.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

impl Stage for Host {
    fn data(&self, id: &InstanceId) -> PathBuf {
        self.own("data", id, 0o700)
    }

    fn sockets(&self, id: &InstanceId) -> PathBuf {
        self.own("sockets", id, 0o755)
    }

    fn fill(&self, data: &InstanceId, program: &Program) -> Result<(), String> {
        self.sockets(data);
        let output = self.command(data, program).output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn start(&self, id: &InstanceId, data: &InstanceId, program: &Program) {
        self.sockets(id);
        let log = fs::File::create(self.directory.path().join(format!("{id}.log"))).unwrap();
        let mut command = self.command(data, program);
        command.stdout(Stdio::null()).stderr(log);
        self.running.lock().unwrap().insert(id.clone(), command.spawn().unwrap());
    }

    fn kill(&self, id: &InstanceId) {
        end(&mut self.running.lock().unwrap().remove(id).unwrap());
    }

    fn lead_to(&self, primary: &InstanceId) {
        let link = self.directory.path().join("sockets").join(PRIMARY);
        let _ = fs::remove_file(&link);
        symlink(primary.as_str(), link).unwrap();
    }

    fn client<'a>(
        &'a self,
        of: &'a InstanceId,
        identity: &'a DatabaseIdentity,
    ) -> Answer<'a, Box<dyn Client>> {
        Box::pin(async move {
            let client = self.open(of, &identity.user, &identity.database).await?;
            Ok(Box::new(Writer(client)) as Box<dyn Client>)
        })
    }

    fn meddle<'a>(&'a self, with: &'a InstanceId, superuser: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let client = self.open(with, "kiln", "postgres").await?;
            let statements = ["ALTER SYSTEM SET work_mem = '1GB'".to_owned(), {
                format!("CREATE ROLE {superuser} SUPERUSER")
            }];
            for statement in statements {
                client.batch_execute(&statement).await.map_err(refused)?;
            }
            Ok(())
        })
    }
}

impl Host {
    async fn open(
        &self,
        of: &InstanceId,
        user: &str,
        database: &str,
    ) -> Result<tokio_postgres::Client, EngineError> {
        let silent = |error: std::io::Error| EngineError::Silent(error.to_string());
        let stream = UnixStream::connect(self.sockets(of).join(SOCKET)).await.map_err(silent)?;
        let connected = Config::new().user(user).dbname(database).connect_raw(stream, NoTls).await;
        let (client, connection) = connected.map_err(refused)?;
        tokio::spawn(connection);
        Ok(client)
    }
}

struct Writer(tokio_postgres::Client);

impl Client for Writer {
    fn write(&mut self, row: i64) -> Answer<'_, ()> {
        let statement = format!(
            "CREATE TABLE IF NOT EXISTS conformance (n bigint PRIMARY KEY); \
             INSERT INTO conformance VALUES ({row})"
        );
        Box::pin(async move { self.0.batch_execute(&statement).await.map_err(refused) })
    }

    fn rows(&mut self) -> Answer<'_, BTreeSet<i64>> {
        Box::pin(async move {
            let answers = self.0.simple_query("SELECT n FROM conformance").await;
            let rows = answers.map_err(refused)?.into_iter().filter_map(|answer| match answer {
                SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            });
            Ok(rows.collect())
        })
    }
}

fn refused(error: tokio_postgres::Error) -> EngineError {
    EngineError::Refused(format!("{error:?}"))
}
