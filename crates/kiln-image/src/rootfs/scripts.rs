//! Maintainer scripts: which are there, and whether an image can do without them.

use crate::deb::Deb;

/// Packages whose scripts were read: what they do is done here, or serves only a running system
/// (services, upgrades, debconf).
const COVERED: [&str; 38] = [
    // Directories and files: `layout::base_files`.
    "base-files",
    "base-passwd",
    // The bundle: `finish::certificates`.
    "ca-certificates",
    // Links to themselves on systems that come from before merged /usr.
    "bash",
    "dash",
    // Lists of shells, shadowed passwords, information pages.
    "coreutils",
    "debianutils",
    "passwd",
    // File capabilities that debconf may ask for.
    "iproute2",
    // Caches, and upgrades of a running system.
    "libc6",
    "libc-bin",
    "libgcrypt20",
    "libgssapi-krb5-2",
    "libpam0g",
    "libpam-modules",
    "libpam-runtime",
    "libssl3",
    "libssl3t64",
    "openssl",
    "zlib1g",
    // Host names, which an instance is given; keys of an interactive shell.
    "netbase",
    "readline-common",
    // Services, log files; the link: `finish::known_links`.
    "nginx",
    "nginx-common",
    // Clusters of a running system; the user is read from the script.
    "postgresql-15",
    "postgresql-17",
    "postgresql-client-15",
    "postgresql-client-17",
    "postgresql-common",
    // Byte code, which Python makes for itself or does without.
    "libpython3.11-minimal",
    "libpython3.13-minimal",
    "python3",
    "python3-minimal",
    "python3.11-minimal",
    "python3.13-minimal",
    // Ownership of files below /etc/redis and /var/lib/redis, which instances mount.
    "redis-server",
    "redis-tools",
    // The zone of a host.
    "tzdata",
];

/// Words with which a line begins that does nothing to an image's files.
const HARMLESS: [&str; 25] = [
    "set",
    "exit",
    "case",
    "esac",
    ";;",
    "if",
    "then",
    "else",
    "elif",
    "fi",
    "true",
    ":",
    "echo",
    "return",
    "}",
    "{",
    "done",
    "#",
    "ldconfig",
    "dpkg-maintscript-helper",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "invoke-rc.d",
    "update-rc.d",
    "systemctl",
];

/// Commands that are carried out by reading them.
const READ_ELSEWHERE: [&str; 6] =
    ["adduser", "addgroup", "useradd", "groupadd", "update-alternatives", "dpkg-trigger"];

/// One maintainer script that would run when a package is installed.
pub(super) struct Script<'a> {
    package: &'a str,
    name: &'static str,
    pub(super) text: String,
}

impl<'a> Script<'a> {
    /// The scripts of a package that run on installation.
    pub(super) fn all_of(package: &'a str, deb: &Deb) -> Vec<Self> {
        let read = |name: &'static str| {
            let bytes = deb.control_files.get(name)?;
            let text = String::from_utf8_lossy(bytes).into_owned();
            Some(Self { package, name, text })
        };
        ["preinst", "postinst"].into_iter().filter_map(read).collect()
    }

    /// What the user should know, if the script does more than is covered.
    pub(super) fn warning(&self) -> Option<String> {
        if COVERED.contains(&self.package) || does_nothing(&self.text) {
            return None;
        }
        let Self { package, name, .. } = self;
        Some(format!(
            "package {package} has a {name} script that is not run; \
             if the program misses something, add it with a `file`, `directory` or `user` step"
        ))
    }
}

/// Whether nothing is left of a script when what debhelper adds for services and caches, and what
/// is carried out by reading, are taken away.
fn does_nothing(script: &str) -> bool {
    let mut generated = false;
    let script = script.replace("\\\n", " ");
    script.lines().map(str::trim).all(|line| {
        if line.starts_with("# Automatically added by ") {
            generated = true;
        } else if line == "# End automatically added section" {
            generated = false;
        }
        if generated || line.is_empty() || line.starts_with('#') {
            return true;
        }
        let first = line.split([' ', '\t', ';']).next().unwrap_or_default();
        // The patterns of a `case`: `configure)`, `abort-upgrade|abort-remove)`.
        let pattern = line.trim_end_matches(";;").trim_end().ends_with(')') && !line.contains('$');
        pattern || first.is_empty() || HARMLESS.contains(&first) || READ_ELSEWHERE.contains(&first)
    })
}

#[cfg(test)]
mod tests {
    use super::does_nothing;

    #[test]
    fn generated_parts_and_frames_do_nothing() {
        assert!(does_nothing(
            "#!/bin/sh\nset -e\ncase \"$1\" in\n configure)\n  adduser --system \\\n   x\n ;;\n *)\n \
             exit 1\n ;;\nesac\n# Automatically added by dh_x\nrm -rf /\n# End automatically added section\n"
        ));
        assert!(!does_nothing("#!/bin/sh\nmkdir /var/lib/x\n"));
        assert!(!does_nothing("#!/usr/bin/perl\nuse strict;\n"));
    }
}
