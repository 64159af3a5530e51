//! What the commands of maintainer scripts mean for an image.

/// What is done about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It tells something: `test`, `getent`.
    Test,
    /// It works on text: `echo`, `sed`.
    Text,
    /// It works on files: `mkdir`, `chown`.
    File,
    /// It is one of Debian's own: `adduser`, `update-alternatives`.
    Tool,
    /// It serves a running system, or is done for all packages together.
    Elsewhere,
    /// It asks for something that is not there in an image that is being made.
    Absent,
    /// It tells something that is not known before it runs, and changes nothing.
    Opaque,
    /// Nothing is known of it.
    Unknown,
}

impl Role {
    /// Whether such a command may change an image.
    pub(super) fn acts(self) -> bool {
        matches!(self, Self::File | Self::Tool | Self::Unknown)
    }
}

const TESTS: &[&str] = &[
    "[",
    "test",
    "command",
    "which",
    "type",
    "hash",
    "getent",
    "id",
    "true",
    ":",
    "false",
    "read",
    "dpkg",
    "dpkg-query",
    "dpkg-architecture",
    "mountpoint",
    "expr",
    "ls",
    "[[",
    "eval",
    "shift",
    "set",
    "unset",
    "export",
    "local",
    "readonly",
    "declare",
];
const TEXTS: &[&str] = &[
    "echo", "printf", "cat", "grep", "egrep", "fgrep", "sed", "basename", "dirname", "readlink",
    "sort", "uniq", "head", "tail", "tr", "cut", "tee", "xargs", "uname", "stat",
];
const FILES: &[&str] = &[
    "mkdir", "install", "chown", "chgrp", "chmod", "ln", "touch", "rm", "rmdir", "cp", "mv",
    "find", "mktemp", "tempfile",
];
const TOOLS: &[&str] = &[
    "adduser",
    "addgroup",
    "useradd",
    "groupadd",
    "usermod",
    "gpasswd",
    "update-alternatives",
    "dpkg-statoverride",
    "dpkg-divert",
    "ucf",
    "db_get",
    "add-shell",
    "a2enmod",
    "a2enconf",
    "a2ensite",
    "sh",
    "bash",
    "dash",
];

/// Commands that bear on a running system, on data that an instance has and an image has not, or on
/// caches that are made for all packages together or done without.
const ELSEWHERE: &[&str] = &[
    // Services and the kernel.
    "systemctl",
    "service",
    "invoke-rc.d",
    "update-rc.d",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "systemd-tmpfiles",
    "systemd-sysusers",
    "systemd-machine-id-setup",
    "systemd-hwdb",
    "udevadm",
    "modprobe",
    "depmod",
    "sysctl",
    "kill",
    "killall",
    "pkill",
    "start-stop-daemon",
    "update-initramfs",
    "update-grub",
    "telinit",
    "logger",
    "wall",
    "sleep",
    "sync",
    "wait",
    "setcap",
    "getcap",
    "update-binfmts",
    "runit-helper",
    "apparmor_parser",
    "restorecon",
    "chcon",
    "semanage",
    "dbus-send",
    "stty",
    "clear",
    "nice",
    "ionice",
    // The shell itself.
    "umask",
    "ulimit",
    "trap",
    "alias",
    "cd",
    "pushd",
    "popd",
    "exec",
    // Questions to a person.
    "db_input",
    "db_go",
    "db_stop",
    "db_set",
    "db_fset",
    "db_purge",
    "db_title",
    "db_beginblock",
    "db_endblock",
    "db_subst",
    "db_metaget",
    "db_reset",
    "db_register",
    "db_unregister",
    "db_version",
    "db_capb",
    "db_settitle",
    "db_fget",
    "db_text",
    // dpkg's own books, and what was there before a first installation.
    "dpkg-maintscript-helper",
    "dpkg-trigger",
    "ucfr",
    "update-shells",
    "remove-shell",
    "delgroup",
    "deluser",
    "dpkg-preconfigure",
    // Caches, and what is done here for all packages together.
    "ldconfig",
    "update-ca-certificates",
    "fc-cache",
    "py3compile",
    "py3clean",
    "pycompile",
    "pyclean",
    "py_compile.py",
    "mandb",
    "install-info",
    "update-info-dir",
    "update-menus",
    "update-mime",
    "update-mime-database",
    "update-desktop-database",
    "gtk-update-icon-cache",
    "update-icon-caches",
    "glib-compile-schemas",
    "gio-querymodules",
    "gdk-pixbuf-query-loaders",
    "update-fonts-dir",
    "update-fonts-scale",
    "update-fonts-alias",
    "php_invoke",
    "phpenmod",
    "phpquery",
    "pam-auth-update",
    "update-gconf-defaults",
    "locale-gen",
    "update-locale",
    "update-python-modules",
    "iconvconfig",
    "pwconv",
    "grpconv",
    "shadowconfig",
    "update-passwd",
    // Data of a server, which belongs to an instance: clusters, tables, keys, host names.
    "pg_createcluster",
    "pg_updatedicts",
    "pg_checksystem",
    "pg_updateaptconfig",
    "pg_lsclusters",
    "pg_conftool",
    "mysql_install_db",
    "mariadb-install-db",
    "mariadbd",
    "mysqld",
    "make-ssl-cert",
    "ssh-keygen",
    "newaliases",
    "postmap",
    "hostname",
    "dbus-uuidgen",
];

/// Programs that say no where nothing runs.
const ABSENT: &[&str] = &[
    "pgrep",
    "pidof",
    "ischroot",
    "aa-status",
    "aa-enabled",
    "aa-remove-unknown",
    "selinuxenabled",
    "runlevel",
    "ypwhich",
    "systemd-detect-virt",
    "lsof",
    "fuser",
    "ps",
    "su",
    "runuser",
    "sudo",
    "is_running",
    "policy-rc.d",
    "initctl",
];

const OPAQUE: &[&str] = &[
    "awk",
    "mawk",
    "gawk",
    "date",
    "md5sum",
    "sha1sum",
    "sha256sum",
    "wc",
    "df",
    "du",
    "cmp",
    "diff",
    "comm",
    "nproc",
    "getconf",
    "locale",
    "ldd",
    "seq",
    "whoami",
    "arch",
    "mount",
    "env",
    "realpath",
    "perl",
    "python3",
    "rev",
    "tac",
    "paste",
    "fold",
    "od",
    "hexdump",
    "pam_getenv",
    "java",
];

/// What is done about a command.
pub(super) fn role(name: &str) -> Role {
    let name = name.rsplit('/').next().unwrap_or(name);
    // Interpreters of a given version byte-compile modules.
    let python =
        name.strip_prefix("python3.").is_some_and(|v| v.bytes().all(|b| b.is_ascii_digit()));
    for (names, role) in [
        (TESTS, Role::Test),
        (TEXTS, Role::Text),
        (FILES, Role::File),
        (TOOLS, Role::Tool),
        (ELSEWHERE, Role::Elsewhere),
        (ABSENT, Role::Absent),
        (OPAQUE, Role::Opaque),
    ] {
        if names.contains(&name) {
            return role;
        }
    }
    match name {
        "exit" | "return" | "break" | "continue" | "." | "source" => Role::Test,
        _ if python => Role::Elsewhere,
        _ => Role::Unknown,
    }
}
