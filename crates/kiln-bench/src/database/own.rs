//! Kiln's own database, behind an endpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::gateway::free_port;
use crate::{Result, child};

use super::{System, eventually};

/// A stack with one database.
pub(super) struct Own {
    program: PathBuf,
    root: PathBuf,
    stack: PathBuf,
    port: u16,
    work_mem: u32,
    replicas: u32,
}

impl Own {
    /// Builds its image and starts it, without a standby.
    pub(super) fn start(kiln: &Path, directory: &Path) -> Result<Self> {
        let (root, stack) = (directory.join("root"), directory.join("stack"));
        fs::create_dir(&stack)?;
        let port = free_port()?.port();
        fs::write(stack.join("main.kiln.hcl"), STACK.replace("PORT", &port.to_string()))?;
        let program = kiln.to_owned();
        let own = Self { program, root, stack, port, work_mem: 4, replicas: 0 };
        eprintln!("database: building and starting Kiln's");
        own.apply()?;
        Ok(own)
    }

    /// From now on there is a standby, and writes wait for it.
    pub(super) fn grow(&mut self) -> Result {
        self.replicas = 1;
        self.apply()
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--stack").arg(&self.stack).arg(verb);
        command
    }

    fn apply(&self) -> Result {
        let mut command = self.command("apply");
        command.arg("--yes").arg("--var").arg(format!("work_mem={}MB", self.work_mem));
        command.arg("--var").arg(format!("replicas={}", self.replicas));
        child::expect(&mut command, &self.stack.with_extension("out"), 0)?;
        Ok(())
    }

    fn component(&self) -> Result<Value> {
        let output = self.command("status").arg("--json").output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let components = status["components"].as_array().ok_or("no components")?;
        let found = components.iter().find(|component| component["kind"] == "database");
        Ok(found.ok_or("no database")?.clone())
    }

    /// The directory of the primary's socket.
    pub(super) fn socket(&self) -> Result<PathBuf> {
        let component = self.component()?;
        let primary = component["instances"][0]["id"].as_str().ok_or("no primary")?;
        Ok(self.root.join("run/databases/bench.bench").join(primary))
    }

    /// The process of this root with this verb.
    pub(super) fn process(&self, verb: &str) -> Result<i32> {
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let root = self.root.as_os_str().as_encoded_bytes();
            if words.contains(&root) && words.contains(&verb.as_bytes()) {
                return Ok(pid);
            }
        }
        Err(format!("there is no `kiln {verb}`").into())
    }
}

impl System for Own {
    fn parameters(&self) -> String {
        let port = self.port;
        format!("host=127.0.0.1 port={port} user=bench dbname=bench password=opensesame")
    }

    fn change(&mut self) -> Result {
        self.work_mem += 1;
        self.apply()
    }

    fn lose(&mut self) -> Result {
        let component = self.component()?;
        let before = component["instances"][0]["id"].clone();
        let pid = component["instances"][0]["pid"].as_i64().ok_or("no process")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no process")?;
        // It is the first of its namespace: all others end with it.
        kill_process(pid, Signal::KILL)?;
        eventually("another primary of Kiln's", || {
            Ok(self.component()?["instances"][0]["id"] != before)
        })
    }

    fn whole(&mut self) -> Result {
        eventually("Kiln's database is whole", || {
            let component = self.component()?;
            let instances = component["instances"].as_array().ok_or("no instances")?;
            let ready = instances.iter().all(|instance| instance["state"] == "ready");
            let count = usize::try_from(self.replicas + 1)?;
            Ok(instances.len() == count && ready && instances[0]["role"] == "primary")
        })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let gone = self.command("destroy").arg("--yes").output();
        if !gone.is_ok_and(|output| output.status.success()) {
            eprintln!("database: the stack cannot be destroyed");
        }
        for verb in ["serve", "launcher"] {
            let pid = self.process(verb).ok().and_then(Pid::from_raw);
            // One that is not there has ended by itself.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
    }
}

const STACK: &str = r#"
stack { name = "bench" }
variable "work_mem" { default = "4MB" }
variable "replicas" { default = 0 }
network "back" { cidr = "10.0.0.0/24" }
secret "bench" { value = "opensesame" }
database "bench" {
  engine   = "postgres"
  version  = "15"
  network  = network.back
  password = secret.bench
  memory   = "512MiB"
  size     = "2GiB"
  settings = { work_mem = var.work_mem }
  replicas = var.replicas
}
endpoint "db" {
  listen = "127.0.0.1:PORT"
  to     = database.bench
}
"#;
