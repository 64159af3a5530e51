//! What is read of an instance.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use crate::cgroup::Group;

/// The namespaces that there are.
pub(super) const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// One mount, of `mountinfo` (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Which part of the filesystem it shows.
    pub(super) part: String,
    /// Where.
    pub(super) at: String,
    /// The options of the mount and of its filesystem.
    pub(super) options: Vec<String>,
    /// `shared:N`, `master:N` and the like.
    pub(super) propagation: Vec<String>,
    /// The filesystem's type.
    pub(super) kind: String,
}

impl Mount {
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// What the kernel says of an instance.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Of every process: its id on the host and its `status`.
    pub(super) statuses: BTreeMap<i32, BTreeMap<String, String>>,
    /// Names of the processes' programs.
    pub(super) programs: Vec<String>,
    /// The namespaces of the main process, and those of this process.
    pub(super) namespaces: BTreeMap<&'static str, [String; 2]>,
    /// Whether all processes are in the main one's namespaces; else which is not.
    pub(super) stranger: Option<i32>,
    pub(super) mounts: Vec<Mount>,
    /// Devices below `/dev`, but for pseudo-terminals.
    pub(super) devices: Vec<String>,
    /// The first id of the host that ids inside are mapped to.
    pub(super) mapped_to: Option<u32>,
    /// Bounds of the control groups, by file name.
    pub(super) bounds: BTreeMap<&'static str, String>,
    /// Whether the main process is in the instance's groups.
    pub(super) grouped: bool,
    /// Soft and hard limits, by name.
    pub(super) limits: BTreeMap<String, String>,
    pub(super) oom_score: i32,
    /// Path of a socket of a container engine, or of Kiln's, that can be seen.
    pub(super) control_socket: Option<String>,
}

/// The files that bound a group, of both versions of control groups.
const BOUNDS: [&str; 6] = [
    "memory.max",
    "memory.limit_in_bytes",
    "pids.max",
    "cpu.max",
    "cpu.cfs_quota_us",
    "memory.memsw.limit_in_bytes",
];

/// Where control sockets of container engines are.
const SOCKETS: [&str; 6] = [
    "run/docker.sock",
    "var/run/docker.sock",
    "run/containerd/containerd.sock",
    "run/podman/podman.sock",
    "run/crio/crio.sock",
    "var/lib/kiln/run/kiln.sock",
];

impl Facts {
    /// What there is to know of the instance with the main process `pid` and the groups `group`.
    /// An error where it ends meanwhile, or where this process may not look.
    pub fn of(pid: i32, group: &Group) -> io::Result<Self> {
        let proc = |name: &str| format!("/proc/{pid}/{name}");
        let members = group.processes();
        let mut statuses = BTreeMap::new();
        let mut programs = Vec::new();
        let mut stranger = None;
        for member in members.iter().copied().chain([pid]) {
            // One that ends meanwhile is no member any more.
            let Ok(text) = fs::read_to_string(format!("/proc/{member}/status")) else { continue };
            let fields = fields(&text);
            programs.extend(fields.get("Name").cloned());
            statuses.insert(member, fields);
            let same = |name| link(member, name).is_none_or(|ns| link(pid, name) == Some(ns));
            if !NAMESPACES.iter().all(|name| same(name)) {
                stranger = Some(member);
            }
        }
        if !statuses.contains_key(&pid) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has ended"));
        }
        let namespaces = NAMESPACES.iter().filter_map(|name| {
            let own = fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
            Some((*name, [link(pid, name)?, own.to_string_lossy().into_owned()]))
        });
        let root = Path::new("/proc").join(pid.to_string()).join("root");
        let seen = |path: &&&str| {
            fs::symlink_metadata(root.join(path)).is_ok_and(|meta| meta.file_type().is_socket())
        };
        Ok(Self {
            namespaces: namespaces.collect(),
            mounts: fs::read_to_string(proc("mountinfo"))?.lines().filter_map(mount).collect(),
            devices: devices(&root.join("dev"))?,
            mapped_to: mapped_to(&fs::read_to_string(proc("uid_map"))?),
            bounds: bounds(group),
            grouped: members.contains(&pid),
            limits: limits(&fs::read_to_string(proc("limits"))?),
            oom_score: fs::read_to_string(proc("oom_score_adj"))?.trim_end().parse().unwrap_or(0),
            control_socket: SOCKETS.iter().find(seen).map(|path| format!("/{path}")),
            statuses,
            programs,
            stranger,
        })
    }

    /// A field of every process's status: the distinct values.
    pub(super) fn status(&self, field: &str) -> Vec<&str> {
        let mut values: Vec<&str> =
            self.statuses.values().filter_map(|s| s.get(field).map(String::as_str)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

fn link(pid: i32, name: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

fn fields(status: &str) -> BTreeMap<String, String> {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    status.lines().filter_map(field).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (part, at, options) = (left.next()?, left.next()?, left.next()?);
    let propagation = left.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let kind = right.split(' ').next()?;
    Some(Mount {
        part: part.to_owned(),
        at: at.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
        propagation,
        kind: kind.to_owned(),
    })
}

fn devices(dev: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dev)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_char_device() || kind.is_block_device() {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// The host's id for user 0 of a user namespace, of its `uid_map`.
fn mapped_to(map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let words: Vec<u32> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        (words.len() == 3 && words[0] == 0).then(|| words[1])
    })
}

fn bounds(group: &Group) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for directory in group.directories() {
        for name in BOUNDS {
            if let Ok(text) = fs::read_to_string(directory.join(name)) {
                found.insert(name, text.trim_end().to_owned());
            }
        }
    }
    found
}

/// `/proc/PID/limits`: a name in 26 columns, then soft and hard.
fn limits(text: &str) -> BTreeMap<String, String> {
    let limit = |line: &str| {
        let (name, values) = (line.get(..26)?.trim_end(), line.get(26..)?);
        let values: Vec<&str> = values.split_whitespace().take(2).collect();
        Some((name.to_owned(), values.join("/")))
    };
    text.lines().skip(1).filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_understood() {
        let line =
            "36 35 98:0 /a /b ro,nosuid shared:1 master:2 - ext4 /dev/root rw,errors=continue";
        let mount = mount(line).unwrap();
        assert_eq!((mount.part.as_str(), mount.at.as_str()), ("/a", "/b"));
        assert_eq!((mount.kind.as_str(), mount.propagation.len()), ("ext4", 2));
        assert!(mount.has("ro") && mount.has("nosuid") && !mount.has("nodev"));
        assert_eq!(mapped_to("         0     100000      65536\n"), Some(100_000));
        assert_eq!(mapped_to("1 5 1\n"), None);
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max core file size        0                    0                    bytes     \n";
        assert_eq!(limits(text)["Max core file size"], "0/0");
    }
}
