//! Which control group hierarchies this machine has, read from its mount table.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// The controllers that Kiln uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Memory and swap.
    Memory,
    /// Processor time.
    Cpu,
    /// Number of processes and threads.
    Pids,
    /// Stopping all processes; a controller in version 1 only.
    Freezer,
}

/// Mount options of version 1 hierarchies that are not controllers.
const NOT_CONTROLLERS: [&str; 8] = [
    "rw",
    "ro",
    "xattr",
    "noprefix",
    "clone_children",
    "cpuset_v2_mode",
    "favordynmods",
    "relatime",
];

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Pids, Self::Freezer];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a controller is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// The top of its version 1 hierarchy.
    V1(&'a Path),
    /// The top of the unified hierarchy.
    V2(&'a Path),
}

/// A version 1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1 {
    /// Its top directory.
    pub top: PathBuf,
    /// All controllers that it bears, Kiln's and others, by the kernel's names.
    pub controllers: Vec<String>,
}

impl V1 {
    fn bears(&self, controller: Controller) -> bool {
        self.controllers.iter().any(|name| name == controller.name())
    }
}

/// The hierarchies of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    v1: Vec<V1>,
    v2: Option<PathBuf>,
    v2_controllers: Vec<Controller>,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`. Paths are those of the caller's mount namespace.
    pub fn detect() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let table =
            fs::read_to_string(path).map_err(|error| CgroupError::io("read", path, error))?;
        let mut found = Self::from_mountinfo(&table);
        if let Some(top) = &found.v2 {
            let path = top.join("cgroup.controllers");
            let names = fs::read_to_string(&path)
                .map_err(|error| CgroupError::io("read", path.as_path(), error))?;
            found.v2_controllers = controllers_in(names.split_whitespace());
        }
        if found.v1.is_empty() && found.v2.is_none() { Err(CgroupError::None) } else { Ok(found) }
    }

    /// Reads the text of a mountinfo table; the controllers of version 2 stay unknown.
    fn from_mountinfo(table: &str) -> Self {
        let mut found = Self { v1: Vec::new(), v2: None, v2_controllers: Vec::new() };
        for line in table.lines() {
            // `id parent dev root point options [fields] - type source super-options`,
            // see proc_pid_mountinfo(5).
            let Some((mount, file_system)) = line.split_once(" - ") else { continue };
            let mount: Vec<&str> = mount.split(' ').collect();
            let file_system: Vec<&str> = file_system.split(' ').collect();
            let (Some(&root), Some(&point)) = (mount.get(3), mount.get(4)) else { continue };
            if root != "/" {
                continue;
            }
            match file_system.first() {
                Some(&"cgroup2") if found.v2.is_none() => found.v2 = Some(PathBuf::from(point)),
                Some(&"cgroup") => {
                    let options = file_system.get(2).copied().unwrap_or_default();
                    found.add_v1(point, options);
                }
                _ => {}
            }
        }
        found
    }

    fn add_v1(&mut self, top: &str, options: &str) {
        // Beside controllers the options hold `rw`, `name=…`, `release_agent=…` and the like.
        let controllers: Vec<String> = options
            .split(',')
            .filter(|option| !option.contains('=') && !NOT_CONTROLLERS.contains(option))
            .map(str::to_owned)
            .collect();
        let known = self.v1.iter().any(|other| other.controllers == controllers);
        let useful = controllers_in(controllers.iter().map(String::as_str)).is_empty();
        if !known && !useful {
            self.v1.push(V1 { top: PathBuf::from(top), controllers });
        }
    }

    /// The same hierarchies as seen through `prefix`, which stands for `/`.
    #[must_use]
    pub fn seen_through(&self, prefix: &Path) -> Self {
        let through = |path: &Path| prefix.join(path.strip_prefix("/").unwrap_or(path));
        Self {
            v1: self
                .v1
                .iter()
                .map(|v1| V1 { top: through(&v1.top), controllers: v1.controllers.clone() })
                .collect(),
            v2: self.v2.as_deref().map(through),
            v2_controllers: self.v2_controllers.clone(),
        }
    }

    /// Where `controller` is, if anywhere.
    pub fn place(&self, controller: Controller) -> Option<Place<'_>> {
        if let Some(v1) = self.v1.iter().find(|v1| v1.bears(controller)) {
            return Some(Place::V1(&v1.top));
        }
        let top = self.v2.as_deref()?;
        // Version 2 freezes through a core file, without a controller.
        let has = controller == Controller::Freezer || self.v2_controllers.contains(&controller);
        has.then_some(Place::V2(top))
    }

    /// The top of the unified hierarchy.
    pub fn unified(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// The version 1 hierarchies that instances are put in.
    pub fn v1(&self) -> impl Iterator<Item = &V1> {
        let needed =
            |controller: &Controller| *controller != Controller::Freezer || self.v2.is_none();
        self.v1.iter().filter(move |v1| {
            Controller::ALL.iter().any(|controller| needed(controller) && v1.bears(*controller))
        })
    }

    /// The controllers that the unified hierarchy has to hand down to instances.
    pub(super) fn delegated(&self) -> impl Iterator<Item = Controller> + '_ {
        self.v2_controllers
            .iter()
            .copied()
            .filter(|controller| matches!(self.place(*controller), Some(Place::V2(_))))
    }
}

fn controllers_in<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Controller> {
    names
        .filter_map(|name| Controller::ALL.into_iter().find(|controller| controller.name() == name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 /other /elsewhere rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_layout_uses_version_1_controllers_and_the_unified_top() {
        let found = Hierarchies::from_mountinfo(HYBRID);
        let memory = Path::new("/sys/fs/cgroup/memory");
        assert_eq!(found.place(Controller::Memory), Some(Place::V1(memory)));
        assert_eq!(found.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.v1().next().unwrap().controllers, ["cpu", "cpuacct"]);
        assert_eq!(found.v1().count(), 3);
        let through = found.seen_through(Path::new("/proc/self/fd/3"));
        let memory = Path::new("/proc/self/fd/3/sys/fs/cgroup/memory");
        assert_eq!(through.place(Controller::Memory), Some(Place::V1(memory)));
    }

    #[test]
    fn version_2_alone_offers_what_its_controllers_file_names() {
        let table = "27 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mut found = Hierarchies::from_mountinfo(table);
        found.v2_controllers = controllers_in("cpuset cpu io memory".split(' '));
        assert!(matches!(found.place(Controller::Memory), Some(Place::V2(_))));
        assert_eq!(found.place(Controller::Pids), None);
        assert!(found.v1().next().is_none());
        assert_eq!(found.delegated().count(), 2);
    }

    #[test]
    fn nothing_is_found_where_nothing_is_mounted() {
        let found = Hierarchies::from_mountinfo("22 27 0:21 / /proc rw - proc proc rw\n");
        assert_eq!(found.place(Controller::Cpu), None);
        assert_eq!(found.unified(), None);
    }
}
