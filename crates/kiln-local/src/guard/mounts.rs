//! Mounts as they are and as they were: `/proc/PID/mountinfo`, see `proc_pid_mountinfo(5)`.

use std::collections::BTreeMap;

use kiln_model::drift::{Aspect, Drift};

/// File systems whose options are shared with the host's mounts of them, and change with those.
const SHARED: [&str; 5] = ["cgroup", "cgroup2", "devpts", "proc", "sysfs"];

/// File systems that are an instance's own; what options another has is the host's to say.
const OWN: [&str; 2] = ["erofs", "tmpfs"];

/// One mount.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    /// Where it is.
    point: &'a str,
    /// The file system's device, and the part of it that is mounted.
    device: &'a str,
    root: &'a str,
    /// `ro`, `noexec` and so on.
    options: &'a str,
    kind: &'a str,
    /// Options of the file system, where they are its own.
    of_kind: &'a str,
}

impl<'a> Mount<'a> {
    /// `id parent device root point options [fields…] - type source options`.
    fn parse(line: &'a str) -> Option<(u64, Self)> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ');
        let id = mount.next()?.parse().ok()?;
        let (_parent, device) = (mount.next()?, mount.next()?);
        let (root, point, options) = (mount.next()?, mount.next()?, mount.next()?);
        let mut of_kind = kind.split(' ');
        let kind = of_kind.next()?;
        let of_kind = of_kind.nth(1).filter(|_| !SHARED.contains(&kind));
        let of_kind = of_kind.filter(|_| root == "/" || OWN.contains(&kind)).unwrap_or_default();
        Some((id, Self { point, device, root, options, kind, of_kind }))
    }

    fn table(text: &'a str) -> BTreeMap<u64, Self> {
        text.lines().filter_map(Self::parse).collect()
    }

    fn describe(&self) -> String {
        let Self { point, root, options, kind, of_kind, .. } = self;
        let part = if *root == "/" { String::new() } else { format!(" of {root}") };
        let of_kind = if of_kind.is_empty() { String::new() } else { format!("; {of_kind}") };
        format!("{kind}{part} at {point} ({options}{of_kind})")
    }
}

/// In what mounts differ from those that were there first.
pub(super) fn differences(expected: &str, found: &str) -> Vec<Drift> {
    if expected == found {
        return Vec::new();
    }
    let (expected, found) = (Mount::table(expected), Mount::table(found));
    let mut drift = Vec::new();
    for (id, mount) in &expected {
        match found.get(id) {
            Some(now) if now == mount => {}
            Some(now) => {
                drift.push(Drift::new(Aspect::Mounts, mount.describe(), now.describe()));
            }
            None => drift.push(Drift::new(
                Aspect::Mounts,
                mount.describe(),
                format!("nothing mounted at {}", mount.point),
            )),
        }
    }
    for mount in found.iter().filter(|(id, _)| !expected.contains_key(id)).map(|(_, it)| it) {
        let expected = format!("nothing more mounted at {}", mount.point);
        drift.push(Drift::new(Aspect::Mounts, expected, mount.describe()));
    }
    drift
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
700 600 0:50 / / ro,nosuid,nodev - erofs /dev/loop0 ro,cache_strategy=readaround
701 700 0:51 / /proc rw,nosuid - proc none rw
702 700 0:52 / /tmp rw,nosuid,nodev,noexec - tmpfs none rw,size=1024k
704 700 8:1 /volumes/x/data /var/lib/data rw,nosuid - ext4 /dev/vda rw
703 700 0:30 /kiln/web-1 /sys/fs/cgroup/memory ro - cgroup none rw,memory
";

    fn found(tamper: impl Fn(&str) -> String) -> String {
        let drift = differences(TABLE, &tamper(TABLE));
        let lines = drift.iter().map(|d| format!("{}, not {}", d.found, d.expected));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_mounted_over_removed_or_remounted_is_named() {
        assert_eq!(found(str::to_owned), "");
        let over = found(|t| format!("{t}710 700 0:60 / /etc rw - tmpfs none rw\n"));
        assert_eq!(over, "tmpfs at /etc (rw; rw), not nothing more mounted at /etc");
        let bind = found(|t| format!("{t}711 702 8:1 /root /tmp/x rw - ext4 /dev/vda rw\n"));
        assert!(bind.starts_with("ext4 of /root at /tmp/x (rw)"), "{bind}");
        let exec = found(|t| t.replace("nodev,noexec", "nodev"));
        assert!(exec.starts_with("tmpfs at /tmp (rw,nosuid,nodev; rw,size=1024k)"), "{exec}");
        let larger = found(|t| t.replace("size=1024k", "size=9024k"));
        assert!(larger.contains("size=9024k"), "{larger}");
        let gone = found(|t| t.lines().take(2).fold(String::new(), |all, l| all + l + "\n"));
        assert!(gone.contains("nothing mounted at /tmp"), "{gone}");
        let writable = found(|t| t.replace("/ / ro,nosuid", "/ / rw,nosuid"));
        assert!(writable.starts_with("erofs at / (rw,nosuid,nodev;"), "{writable}");
    }

    #[test]
    fn what_the_host_does_to_its_own_mounts_is_no_difference() {
        assert_eq!(found(|t| t.replace("rw,memory", "rw,memory,release_agent=/x")), "");
        assert_eq!(found(|t| t.replace("- proc none rw", "- proc none rw,hidepid=2")), "");
        assert_eq!(found(|t| t.replace("/dev/vda rw", "/dev/vda rw,commit=30")), "");
    }
}
