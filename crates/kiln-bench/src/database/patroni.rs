//! Debian's Patroni: two nodes, etcd, and `HAProxy` as its documentation configures it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Result;
use crate::gateway::{end, free_port};

use super::gate::run;
use super::{BIN, System, eventually};

/// The times that Patroni and `HAProxy` are configured with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// `ttl`, `loop_wait` and `retry_timeout`, seconds.
    patroni: [u32; 3],
    /// From one check of `HAProxy` to the next, after how many a server is down and up.
    haproxy: (&'static str, u32, u32),
}

impl Times {
    /// Patroni's defaults, and the example of its documentation.
    pub(super) const AS_IT_COMES: Self = Self { patroni: [30, 10, 10], haproxy: ("3s", 3, 2) };
    /// The shortest that Patroni takes, and checks as often as makes sense.
    pub(super) const QUICKEST: Self = Self { patroni: [20, 1, 3], haproxy: ("200ms", 2, 1) };
}

struct Node {
    name: &'static str,
    postgres: u16,
    api: u16,
    child: Option<Child>,
}

/// The cluster; it is gone when this is dropped.
pub(super) struct Patroni {
    directory: tempfile::TempDir,
    nodes: Vec<Node>,
    others: Vec<Child>,
    port: u16,
}

impl Patroni {
    pub(super) fn start(times: Times) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let mut ports = Vec::new();
        for _ in 0..7 {
            ports.push(free_port()?.port());
        }
        let nodes = [("a", ports[0], ports[1]), ("b", ports[2], ports[3])];
        let nodes = nodes.map(|(name, postgres, api)| Node { name, postgres, api, child: None });
        let (others, port) = (Vec::new(), ports[4]);
        let mut cluster = Self { directory, nodes: nodes.into(), others, port };
        cluster.start_etcd(ports[5], ports[6])?;
        for index in 0..cluster.nodes.len() {
            cluster.configure(index, ports[5], times)?;
            cluster.begin(index)?;
            // The first one makes the data.
            eventually("Patroni has a leader", || Ok(cluster.leader().is_ok()))?;
        }
        cluster.start_haproxy(times)?;
        cluster.whole()?;
        Ok(cluster)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self, name: &str) -> Result<Stdio> {
        let path = self.path(&format!("{name}.log"));
        Ok(fs::File::options().create(true).append(true).open(path)?.into())
    }

    fn start_etcd(&mut self, client: u16, peer: u16) -> Result {
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.path("etcd")).arg("--name").arg("etcd");
        for (option, port) in [
            ("--listen-client-urls", client),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer),
            ("--initial-advertise-peer-urls", peer),
        ] {
            command.arg(option).arg(at(port));
        }
        command.arg("--initial-cluster").arg(format!("etcd={}", at(peer)));
        command.stdout(self.log("etcd")?).stderr(self.log("etcd")?);
        self.others.push(command.spawn()?);
        let url = format!("{}/health", at(client));
        eventually("etcd is there", || Ok(get(&url)?["health"] == "true"))
    }

    fn configure(&self, index: usize, etcd: u16, times: Times) -> Result {
        let Node { name, postgres, api, .. } = &self.nodes[index];
        let place = self.path(name);
        fs::create_dir(&place)?;
        let [ttl, wait, retry] = times.patroni;
        let directory = place.display();
        let text = format!(
            r"scope: bench
name: {name}
restapi: {{ listen: '127.0.0.1:{api}', connect_address: '127.0.0.1:{api}' }}
etcd3: {{ hosts: '127.0.0.1:{etcd}' }}
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: {wait}
    retry_timeout: {retry}
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters: {{ shared_buffers: 128MB, max_connections: 100, work_mem: 4MB }}
  initdb: [ {{ encoding: UTF8 }}, {{ locale: C.UTF-8 }}, data-checksums ]
postgresql:
  listen: '127.0.0.1:{postgres}'
  connect_address: '127.0.0.1:{postgres}'
  data_dir: {directory}/data
  bin_dir: {BIN}
  pgpass: {directory}/pgpass
  parameters: {{ unix_socket_directories: {directory} }}
  pg_hba:
    - local all all trust
    - host all all 127.0.0.1/32 scram-sha-256
    - host replication all 127.0.0.1/32 scram-sha-256
  authentication:
    superuser: {{ username: postgres, password: opensesame }}
    replication: {{ username: follower, password: opensesame }}
    rewind: {{ username: rewinder, password: opensesame }}
"
        );
        fs::write(place.join("patroni.yml"), text)?;
        run(Command::new("chown").arg("--recursive").arg("postgres:postgres").arg(&place))
    }

    /// Starts a node: Patroni, and what it starts, in a namespace of processes of their own.
    fn begin(&mut self, index: usize) -> Result {
        let name = self.nodes[index].name;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "setpriv", "--reuid=postgres"]);
        command.args(["--regid=postgres", "--init-groups", "/usr/bin/patroni"]);
        command.arg(self.path(name).join("patroni.yml")).current_dir(self.path(name));
        command.stdin(Stdio::null()).stdout(self.log(name)?).stderr(self.log(name)?);
        self.nodes[index].child = Some(command.spawn()?);
        Ok(())
    }

    fn start_haproxy(&mut self, times: Times) -> Result {
        let (every, fall, rise) = times.haproxy;
        let mut text = format!(
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  retries 2\n  timeout client 30m\n  \
             timeout connect 4s\n  timeout server 30m\n  timeout check 5s\nlisten primary\n  \
             bind 127.0.0.1:{}\n  option httpchk\n  http-check expect status 200\n  default-server \
             inter {every} fall {fall} rise {rise} on-marked-down shutdown-sessions\n",
            self.port
        );
        for Node { name, postgres, api, .. } in &self.nodes {
            let server = format!("127.0.0.1:{postgres} maxconn 100 check port {api}");
            writeln!(text, "  server {name} {server}")?;
        }
        let file = self.path("haproxy.cfg");
        fs::write(&file, text)?;
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(&file).stdout(self.log("haproxy")?).stderr(self.log("haproxy")?);
        self.others.push(command.spawn()?);
        Ok(())
    }

    /// The members, as any node that answers says.
    fn members(&self) -> Result<Vec<Value>> {
        let mut last = None;
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            match get(&format!("http://127.0.0.1:{}/cluster", node.api)) {
                Ok(cluster) => {
                    return Ok(cluster["members"].as_array().cloned().unwrap_or_default());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| "no node runs".into()))
    }

    /// Which node leads.
    fn leader(&self) -> Result<usize> {
        let members = self.members()?;
        let leads = |member: &&Value| member["role"] == "leader" && member["state"] == "running";
        let leader = members.iter().find(leads).ok_or("nobody leads")?;
        let index = self.nodes.iter().position(|node| leader["name"] == node.name);
        Ok(index.ok_or("the leader is none of the nodes")?)
    }
}

impl System for Patroni {
    fn parameters(&self) -> String {
        let port = self.port;
        format!(
            "host=127.0.0.1 port={port} user=postgres dbname=postgres password=opensesame \
             connect_timeout=5"
        )
    }

    fn change(&mut self) -> Result {
        let leader = self.leader()?;
        let (from, to) = (&self.nodes[leader], &self.nodes[1 - leader]);
        let wish = serde_json::json!({ "leader": from.name, "candidate": to.name });
        let url = format!("http://127.0.0.1:{}/switchover", from.api);
        ureq::post(&url).content_type("application/json").send(wish.to_string())?;
        eventually("another node leads", || Ok(self.leader()? != leader))
    }

    fn lose(&mut self) -> Result {
        let leader = self.leader()?;
        if let Some(mut child) = self.nodes[leader].child.take() {
            kill(&mut child);
        }
        eventually("another node leads", || Ok(self.leader()? != leader))?;
        self.begin(leader)
    }

    fn whole(&mut self) -> Result {
        eventually("Patroni is whole", || {
            let members = self.members()?;
            let role = |role: &str| {
                let has = |member: &&Value| member["role"] == role && alive(member);
                members.iter().filter(has).count() == 1
            };
            Ok(members.len() == 2 && role("leader") && role("sync_standby"))
        })
    }
}

fn alive(member: &Value) -> bool {
    member["state"] == "running" || member["state"] == "streaming"
}

/// Kills a node: with the first process of its namespace the others end.
fn kill(child: &mut Child) {
    let id = child.id();
    let first = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    for pid in first.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        // One that has ended meanwhile is what is wanted.
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = child.wait();
}

impl Drop for Patroni {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                kill(child);
            }
        }
        self.others.iter_mut().for_each(end);
    }
}

fn get(url: &str) -> Result<Value> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(3))).build();
    let mut answer = ureq::Agent::new_with_config(agent).get(url).call()?;
    Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
}
