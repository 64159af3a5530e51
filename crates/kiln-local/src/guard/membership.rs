//! The control groups that processes are in: `/proc/PID/cgroup`, see cgroups(7).

use kiln_model::drift::{Aspect, Drift};

use crate::cgroup::Hierarchies;

/// Which hierarchies instances are put in, and how their groups are called there.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// The controllers of each version 1 hierarchy in use, in order.
    v1: Vec<Vec<String>>,
    unified: bool,
    /// `/kiln-<root id>/`.
    prefix: String,
}

impl Membership {
    /// Of the groups below `parent` at the top of each hierarchy.
    pub(crate) fn new(hierarchies: &Hierarchies, parent: &str) -> Self {
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        Self {
            v1: hierarchies.v1().map(|v1| sorted(v1.controllers.clone())).collect(),
            unified: hierarchies.unified().is_some(),
            prefix: format!("/{parent}/"),
        }
    }

    /// The path of an instance's group in each hierarchy.
    pub(super) fn group_of(&self, instance: &str) -> String {
        format!("{}{instance}", self.prefix)
    }

    /// The instance whose group is on a path of the control groups' file systems, and what comes
    /// behind that.
    pub(crate) fn instance_on<'a>(&self, path: &'a str) -> Option<(&'a str, &'a str)> {
        let (_, rest) = path.split_once(&self.prefix)?;
        Some(rest.split_once('/').unwrap_or((rest, "")))
    }

    /// The instances in whose groups a process is, by the text of its `/proc/PID/cgroup`.
    pub(crate) fn instances<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        self.relevant(text).filter_map(|(_, path)| Some(self.instance_on(path)?.0))
    }

    /// Controllers and path of each line that matters.
    fn relevant<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let matters = if controllers.is_empty() {
                self.unified
            } else {
                let mut names: Vec<&str> = controllers.split(',').collect();
                names.sort_unstable();
                self.v1.iter().any(|own| *own == names)
            };
            matters.then_some((controllers, path))
        })
    }

    /// Where a process of the group is that should be in `group` everywhere.
    pub(super) fn differences(&self, group: &str, pid: i32, text: &str) -> Option<Drift> {
        let (controllers, path) = self.relevant(text).find(|(_, path)| *path != group)?;
        let hierarchy = if controllers.is_empty() { "unified" } else { controllers };
        Some(Drift::new(
            Aspect::Cgroup,
            group,
            format!("process {pid} in {path} of the {hierarchy} hierarchy"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hybrid() -> Membership {
        let v1 = vec![vec!["cpu".to_owned(), "cpuacct".to_owned()], vec!["memory".to_owned()]];
        Membership { v1, unified: true, prefix: "/kiln-0badcafe/".to_owned() }
    }

    const TEXT: &str = "\
9:cpuset:/elsewhere
4:memory:/kiln-0badcafe/web-1
3:cpuacct,cpu:/kiln-0badcafe/web-1
1:name=systemd:/init.scope
0::/kiln-0badcafe/web-1
";

    #[test]
    fn a_process_is_in_its_group_in_every_hierarchy_in_use() {
        let groups = hybrid();
        let group = groups.group_of("web-1");
        assert_eq!(groups.differences(&group, 7, TEXT), None);
        let moved = TEXT.replace("memory:/kiln-0badcafe/web-1", "memory:/");
        let found = groups.differences(&group, 7, &moved).unwrap();
        assert_eq!(found.found, "process 7 in / of the memory hierarchy");
        let deeper = TEXT.replace("0::/kiln-0badcafe/web-1", "0::/kiln-0badcafe/web-1/x");
        assert!(groups.differences(&group, 7, &deeper).is_some());
    }

    #[test]
    fn groups_tell_their_instances() {
        let groups = hybrid();
        assert!(groups.instances(TEXT).all(|instance| instance == "web-1"));
        assert_eq!(groups.instances("0::/\n4:memory:/kiln-deadbeef/web-1\n").count(), 0);
        let path = "/sys/fs/cgroup/memory/kiln-0badcafe/web-1/memory.limit_in_bytes";
        assert_eq!(groups.instance_on(path), Some(("web-1", "memory.limit_in_bytes")));
        assert_eq!(groups.instance_on("/sys/fs/cgroup/memory/tasks"), None);
    }
}
