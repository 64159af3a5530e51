//! The groups of one root, and the group of one instance in every hierarchy in use.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::drift::Aspect;
use rustix::process::{Pid, Signal, kill_process};

use super::{CgroupError, Controller, Hierarchies, Place};
use crate::launcher::protocol::Limits;

/// The period over which processor time is measured out, in microseconds (the kernel's default).
const CPU_PERIOD_US: u64 = 100_000;
/// How long to wait between looks at a group whose processes are ending.
const POLL: Duration = Duration::from_millis(2);

/// The control groups of one root.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Hierarchies,
    parent: String,
}

impl Cgroups {
    /// The groups of the root with the id `root_id`.
    pub fn new(hierarchies: Hierarchies, root_id: &str) -> Self {
        Self { hierarchies, parent: format!("kiln-{root_id}") }
    }

    /// The hierarchies that the groups are in.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// The name of the group at the top of each hierarchy that the instances' groups are in.
    pub(crate) fn parent(&self) -> &str {
        &self.parent
    }

    /// The group of `instance`, whether it exists or not.
    pub fn group(&self, instance: &str) -> Group {
        let at = |top: &Path| top.join(&self.parent).join(instance);
        let dir = |controller| match self.hierarchies.place(controller)? {
            Place::V1(top) => Some((Version::One, at(top))),
            Place::V2(top) => Some((Version::Two, at(top))),
        };
        Group {
            v1: self.hierarchies.v1().map(|v1| at(&v1.top)).collect(),
            v2: self.hierarchies.unified().map(at),
            memory: dir(Controller::Memory),
            cpu: dir(Controller::Cpu),
            pids: dir(Controller::Pids),
        }
    }

    /// Makes the group of `instance` in every hierarchy and bounds it. Leaves nothing on failure.
    pub fn create(&self, instance: &str, limits: &Limits) -> Result<Group, CgroupError> {
        let group = self.group(instance);
        let made = self.make_parents().and_then(|()| group.make(limits));
        if let Err(error) = made {
            // The first error is the one that explains; there are no processes in the group yet.
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// The instances that have a group in any hierarchy.
    pub fn list(&self) -> Result<BTreeSet<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for parent in self.parents() {
            let entries = match fs::read_dir(&parent) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(CgroupError::io("list", parent, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| CgroupError::io("list", &parent, error))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    names.insert(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        Ok(names)
    }

    /// Removes the root's own groups where no instance is left in them.
    pub fn remove_parents(&self) -> Result<(), CgroupError> {
        for parent in self.parents() {
            match fs::remove_dir(&parent) {
                Err(error) if !is_gone(&error) && !is_in_use(&error) => {
                    return Err(CgroupError::io("remove", parent, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn parents(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let v1 = self.hierarchies.v1().map(|v1| v1.top.as_path());
        v1.chain(self.hierarchies.unified()).map(|top| top.join(&self.parent))
    }

    fn make_parents(&self) -> Result<(), CgroupError> {
        for parent in self.parents() {
            make_dir(&parent)?;
        }
        let Some(top) = self.hierarchies.unified() else { return Ok(()) };
        let wanted: Vec<Controller> = self.hierarchies.delegated().collect();
        for dir in [top.to_path_buf(), top.join(&self.parent)] {
            hand_down(&dir, &wanted)?;
        }
        Ok(())
    }
}

/// Lets the children of `dir` have the controllers `wanted`.
fn hand_down(dir: &Path, wanted: &[Controller]) -> Result<(), CgroupError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let path = dir.join("cgroup.subtree_control");
    let enabled =
        fs::read_to_string(&path).map_err(|error| CgroupError::io("read", &path, error))?;
    for controller in wanted {
        if !enabled.split_whitespace().any(|name| name == controller.name()) {
            write(&path, &format!("+{controller}"))?;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The control group of one instance: a directory in every hierarchy in use.
#[derive(Debug, Clone)]
pub struct Group {
    v1: Vec<PathBuf>,
    v2: Option<PathBuf>,
    memory: Option<(Version, PathBuf)>,
    cpu: Option<(Version, PathBuf)>,
    pids: Option<(Version, PathBuf)>,
}

impl Group {
    fn make(&self, limits: &Limits) -> Result<(), CgroupError> {
        for dir in self.directories() {
            make_dir(dir)?;
        }
        if let Some(bytes) = limits.memory_bytes {
            self.bound_memory(bytes)?;
        }
        if let Some(millis) = limits.cpu_millis {
            let (version, dir) = required(self.cpu.as_ref(), "cpu", Controller::Cpu)?;
            let quota = millis * CPU_PERIOD_US / 1000;
            match version {
                Version::One => write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?,
                Version::Two => write(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?,
            }
        }
        if let Some(count) = limits.pids {
            let (_, dir) = required(self.pids.as_ref(), "process", Controller::Pids)?;
            write(&dir.join("pids.max"), &count.to_string())?;
        }
        Ok(())
    }

    fn bound_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        let (version, dir) = required(self.memory.as_ref(), "memory", Controller::Memory)?;
        let (limit, swap, swap_value) = match version {
            // memsw counts memory and swap together.
            Version::One => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes),
            Version::Two => ("memory.max", "memory.swap.max", 0),
        };
        write(&dir.join(limit), &bytes.to_string())?;
        let swap = dir.join(swap);
        match write(&swap, &swap_value.to_string()) {
            // A kernel that does not account for swap is fine as long as there is none.
            Err(CgroupError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && !machine_has_swap() =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Every directory of the group.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().chain(&self.v2).map(PathBuf::as_path)
    }

    /// Whether the group is there, even in part.
    pub fn exists(&self) -> bool {
        self.directories().any(Path::exists)
    }

    /// The directory in the unified hierarchy, for `CLONE_INTO_CGROUP`.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>, CgroupError> {
        let Some(dir) = &self.v2 else { return Ok(None) };
        let open = File::open(dir).map_err(|error| CgroupError::io("open", dir, error))?;
        Ok(Some(open.into()))
    }

    /// The files through which a thread joins the version 1 groups by writing `0`: unlike
    /// `cgroup.procs`, `tasks` lets the only thread of a process move itself without a
    /// system-wide lock whose taking waits for a grace period of the kernel.
    pub fn open_v1_tasks(&self) -> Result<Vec<File>, CgroupError> {
        self.v1
            .iter()
            .map(|dir| {
                let path = dir.join("tasks");
                let open = OpenOptions::new().write(true).open(&path);
                open.map_err(|error| CgroupError::io("open", path, error))
            })
            .collect()
    }

    /// The processes of the group, as the host numbers them, in ascending order.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = BTreeSet::new();
        for dir in self.directories() {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        pids.into_iter().collect()
    }

    /// The same in one hierarchy only, the unified one where there is one: cheaper, and all there are
    /// unless somebody has moved one.
    pub(crate) fn members(&self) -> Vec<i32> {
        let Some(dir) = self.v2.as_ref().or(self.v1.first()) else { return Vec::new() };
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The files that hold the bounds, what each says of a group that was made with `limits`, and
    /// what it is.
    pub(crate) fn bounds(&self, limits: &Limits) -> Vec<(PathBuf, String, Aspect)> {
        let mut bounds = Vec::new();
        if let (Some((version, dir)), Some(bytes)) = (&self.memory, limits.memory_bytes) {
            // The kernel counts pages.
            let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
            let whole = (bytes / page * page).to_string();
            let (limit, swap, swap_value) = match version {
                Version::One => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", &*whole),
                Version::Two => ("memory.max", "memory.swap.max", "0"),
            };
            bounds.push((dir.join(swap), swap_value.to_owned(), Aspect::CgroupMemory));
            bounds.push((dir.join(limit), whole, Aspect::CgroupMemory));
        }
        if let Some((version, dir)) = &self.cpu {
            let quota = limits.cpu_millis.map(|millis| millis * CPU_PERIOD_US / 1000);
            match version {
                Version::One => {
                    let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
                    bounds.push((dir.join("cpu.cfs_quota_us"), quota, Aspect::CgroupCpu));
                    let period = CPU_PERIOD_US.to_string();
                    bounds.push((dir.join("cpu.cfs_period_us"), period, Aspect::CgroupCpu));
                }
                Version::Two => {
                    let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                    let most = format!("{quota} {CPU_PERIOD_US}");
                    bounds.push((dir.join("cpu.max"), most, Aspect::CgroupCpu));
                }
            }
        }
        if let (Some((_, dir)), Some(count)) = (&self.pids, limits.pids) {
            bounds.push((dir.join("pids.max"), count.to_string(), Aspect::CgroupPids));
        }
        if let Some(dir) = &self.v2 {
            bounds.push((dir.join("cgroup.freeze"), "0".to_owned(), Aspect::Stopped));
        }
        bounds
    }

    /// How often the kernel has killed a process of the group for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let Some((version, dir)) = &self.memory else { return 0 };
        let file = match version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        field(&text, "oom_kill ").unwrap_or(0)
    }

    /// Processor time that the group has used since it was made, microseconds; 0 where this
    /// kernel does not account for it.
    pub fn cpu_us(&self) -> u64 {
        let v2 = self.v2.as_ref().and_then(|dir| {
            let text = fs::read_to_string(dir.join("cpu.stat")).ok()?;
            field(&text, "usage_usec ")
        });
        // Version 1 tells nanoseconds, wherever `cpuacct` stands beside a controller in use.
        let v1 = || {
            let mut texts = self.v1.iter().filter_map(|dir| {
                fs::read_to_string(dir.join("cpuacct.usage")).ok()?.trim().parse::<u64>().ok()
            });
            texts.next().map(|nanos| nanos / 1000)
        };
        v2.or_else(v1).unwrap_or(0)
    }

    /// Memory that the group uses now, bytes, without what could be dropped of files read; 0
    /// where this kernel does not account for it.
    pub fn memory(&self) -> u64 {
        let Some((version, dir)) = &self.memory else { return 0 };
        let (used, droppable) = match version {
            Version::One => ("memory.usage_in_bytes", "total_inactive_file "),
            Version::Two => ("memory.current", "inactive_file "),
        };
        let used = fs::read_to_string(dir.join(used)).unwrap_or_default();
        let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let used: u64 = used.trim().parse().unwrap_or(0);
        used.saturating_sub(field(&stat, droppable).unwrap_or(0))
    }

    /// Sends SIGKILL to every process of the group.
    pub fn kill(&self) {
        if let Some(dir) = &self.v2
            && write(&dir.join("cgroup.kill"), "1").is_ok()
            && self.v1.is_empty()
        {
            return;
        }
        // Without cgroup.kill, and for what was moved into one hierarchy only.
        for pid in self.processes().into_iter().filter_map(Pid::from_raw) {
            // It may have ended by now, which is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Keeps every process of the group from running; whether that was reached within `limit`.
    pub(crate) fn freeze(&self, limit: Duration) -> bool {
        self.set_frozen(true);
        let deadline = Instant::now() + limit;
        while !self.is_frozen() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// Lets the processes of the group run again.
    pub(crate) fn thaw(&self) {
        self.set_frozen(false);
    }

    fn set_frozen(&self, frozen: bool) {
        let (v2, v1) = if frozen { ("1", "FROZEN") } else { ("0", "THAWED") };
        // Whether it worked is read back by whoever needs to know.
        if let Some(dir) = &self.v2 {
            let _ = write(&dir.join("cgroup.freeze"), v2);
        }
        for dir in &self.v1 {
            let state = dir.join("freezer.state");
            if state.exists() {
                let _ = write(&state, v1);
            }
        }
    }

    /// Whether a hierarchy that can freeze has every process of the group frozen.
    fn is_frozen(&self) -> bool {
        let v2 = self.v2.as_ref().is_some_and(|dir| {
            let text = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
            field(&text, "frozen ") == Some(1)
        });
        v2 || self.v1.iter().any(|dir| {
            let text = fs::read_to_string(dir.join("freezer.state")).unwrap_or_default();
            text.trim() == "FROZEN"
        })
    }

    /// Removes the group. Its processes must have ended; what is gone already is fine.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut first_error = None;
        for dir in self.directories() {
            match fs::remove_dir(dir) {
                Err(error) if !is_gone(&error) => {
                    first_error.get_or_insert(CgroupError::io("remove", dir, error));
                }
                _ => {}
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Kills what is in the group and removes it, trying until `limit` has passed.
    pub fn kill_and_remove(&self, limit: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + limit;
        loop {
            let error = match self.remove() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.kill();
            if Instant::now() >= deadline {
                let pids = self.processes();
                let path = self.directories().find(|dir| dir.exists()).map(Path::to_path_buf);
                return Err(match path {
                    Some(path) if !pids.is_empty() => CgroupError::Populated { path, pids },
                    _ => error,
                });
            }
            thread::sleep(POLL);
        }
    }
}

fn required<'a>(
    place: Option<&'a (Version, PathBuf)>,
    limit: &'static str,
    controller: Controller,
) -> Result<(Version, &'a Path), CgroupError> {
    let (version, dir) = place.ok_or(CgroupError::Unsupported { limit, controller })?;
    Ok((*version, dir))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

fn machine_has_swap() -> bool {
    // The first line is a heading.
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

fn make_dir(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::io("make", dir, error))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    let write = || OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes());
    write().map_err(|error| CgroupError::io("write", path, error))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn is_in_use(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}
