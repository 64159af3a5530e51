//! Maintainer scripts of packages (`scripts = "sandbox"`), run as dpkg would when it installs the
//! packages anew.
//!
//! All packages are unpacked by then, so that a `preinst` sees its package in place already. What
//! scripts call and an image does without is stood in for: services are not started, diversions
//! and alternatives are Kiln's own, and questions of debconf have no answers. A program that the
//! image has is always preferred to its stand-in.

use std::collections::BTreeMap;

use super::{Ground, RunError, environment, execute, on_directory};
use crate::deb::Deb;
use crate::rootfs::Rootfs;
use crate::sandbox::{Bounds, Job, JobFile};
use crate::tree::{Inode, Metadata, TreeError};

/// One script that is to be run.
#[derive(Clone, Debug)]
pub(in crate::build) struct MaintainerScript<'a> {
    /// The package.
    pub(in crate::build) package: &'a str,
    /// `preinst` or `postinst`.
    pub(in crate::build) name: &'a str,
    /// The script.
    pub(in crate::build) text: String,
    /// Its arguments: `install`, or `configure` and an empty version.
    pub(in crate::build) arguments: Vec<String>,
    /// What stands beside it, by the end of its name: `templates` and `config` of debconf.
    pub(in crate::build) beside: Vec<(&'static str, String)>,
}

/// What dpkg would run when it installs `packages`, in their order.
pub(in crate::build) fn pending(packages: &[(String, Deb)]) -> Vec<MaintainerScript<'_>> {
    let arguments = |name| match name {
        "preinst" => vec!["install".to_owned()],
        // The version that was configured before: none.
        _ => vec!["configure".to_owned(), String::new()],
    };
    let mut all = Vec::new();
    for (package, deb) in packages {
        let text_of = |name: &'static str| {
            let bytes = deb.control_files.get(name)?;
            Some((name, String::from_utf8_lossy(bytes).into_owned()))
        };
        let beside: Vec<_> = BESIDE.into_iter().filter_map(text_of).collect();
        for name in ["preinst", "postinst"] {
            if let Some((_, text)) = text_of(name) {
                let (arguments, beside) = (arguments(name), beside.clone());
                all.push(MaintainerScript { package, name, text, arguments, beside });
            }
        }
    }
    all
}

/// What of a package's control files stands beside its scripts.
const BESIDE: [&str; 2] = ["templates", "config"];
/// Where scripts and stand-ins are while they run; gone with `/tmp`.
const PLACE: &str = "/tmp/.kiln";
/// Refuses to start services: 101 is "action forbidden by policy".
const POLICY: (&str, &str, u16) = ("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755);
/// Questions of debconf, which nobody answers.
const CONFMODULE: (&str, &str, u16) = (
    "usr/share/debconf/confmodule",
    "for kiln_verb in version capb title input beginblock endblock block go fget fset get set \
     reset subst register unregister metaget purge progress info settitle stop x_loadtemplatefile\n\
     do eval \"db_$kiln_verb() { RET=; return 0; }\"; done\nunset kiln_verb\n",
    0o644,
);
/// What has nothing to do in an image, or is done without a program.
const IDLE: [&str; 20] = [
    "adduser",
    "addgroup",
    "useradd",
    "groupadd",
    "usermod",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "systemctl",
    "systemd-sysusers",
    "systemd-tmpfiles",
    "invoke-rc.d",
    "update-rc.d",
    "service",
    "update-alternatives",
    "update-initramfs",
    "dpkg-trigger",
    "dpkg-maintscript-helper",
    "debconf-set-selections",
    "install-info",
    "ucfr",
];
/// Stand-ins that must answer something; `ARCH` in them is the architecture.
const ANSWERING: [(&str, &str); 5] = [
    ("dpkg", "case \"$1\" in --print-architecture) echo ARCH;; *) exit 1;; esac"),
    ("dpkg-query", "exit 1"),
    ("dpkg-statoverride", "case \"$*\" in *--list*) exit 1;; esac"),
    ("dpkg-divert", "case \"$1\" in --truename) echo \"$2\";; esac"),
    ("ucf", "while [ \"${1#-}\" != \"$1\" ]; do shift; done\n[ -e \"$2\" ] || cp -p \"$1\" \"$2\""),
];

/// Runs `scripts` in their order on the tree.
pub(in crate::build) fn run_all(
    root: &mut Rootfs,
    scripts: &[MaintainerScript<'_>],
    architecture: &str,
    ground: &Ground<'_>,
) -> Result<(), RunError> {
    let Some(first) = scripts.first() else { return Ok(()) };
    for script in scripts {
        check_interpreter(root, script)?;
    }
    let first = label(first);
    let failed =
        |error: TreeError| RunError::Directory { name: first.clone(), source: error.into() };
    root.write_accounts().map_err(failed)?;
    let mut added = Vec::new();
    for (path, text, mode) in [POLICY, CONFMODULE] {
        if root.tree.get(path).is_none() {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let file = Inode::file(Metadata::new(mode), text.as_bytes().to_vec());
            let made = root.tree.make_directories(directory, &Metadata::new(0o755));
            let put = made.and_then(|_| root.tree.insert(path, file));
            put.map_err(failed)?;
            added.push(path);
        }
    }
    let common = environment(root, 0, ground, false);
    let stand_ins = stand_ins(architecture);
    on_directory(root, &first, ground, |sandbox, directory| {
        for script in scripts {
            let name = label(script);
            let path = format!("{PLACE}/{name}");
            let argv: Vec<String> = [&path].into_iter().chain(&script.arguments).cloned().collect();
            let mut files = stand_ins.clone();
            files.push(JobFile { path, content: script.text.clone(), executable: true });
            // Where debconf, if the image has it, looks for them.
            for (end, content) in &script.beside {
                let path = format!("{PLACE}/{}.{end}", script.package);
                files.push(JobFile {
                    path,
                    content: content.clone(),
                    executable: *end == "config",
                });
            }
            let job = Job {
                root: directory,
                argv: &argv,
                env: &script_environment(&common, script, architecture),
                workdir: "/",
                user: (0, 0),
                files: &files,
                network: false,
                clock: ground.clock,
                bounds: Bounds::default(),
            };
            execute(sandbox, &job, &name, ground.progress)?;
        }
        Ok(())
    })?;
    for path in added {
        // A script that has removed it has done so for us.
        let _ = root.tree.remove(path);
    }
    Ok(())
}

/// `PACKAGE.postinst`, as dpkg calls its file.
fn label(script: &MaintainerScript<'_>) -> String {
    format!("{}.{}", script.package, script.name)
}

/// The environment that dpkg(1) promises to scripts.
fn script_environment(
    common: &BTreeMap<String, String>,
    script: &MaintainerScript<'_>,
    architecture: &str,
) -> BTreeMap<String, String> {
    let mut env = common.clone();
    let path = env.get("PATH").map_or(super::PATH, String::as_str);
    let path = format!("{path}:{PLACE}/bin");
    let own = [
        ("PATH", path.as_str()),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("DPKG_ADMINDIR", "/var/lib/dpkg"),
        ("DPKG_ROOT", ""),
        ("DPKG_MAINTSCRIPT_PACKAGE", script.package),
        ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
        ("DPKG_MAINTSCRIPT_NAME", script.name),
        ("DPKG_MAINTSCRIPT_ARCH", architecture),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env
}

fn stand_ins(architecture: &str) -> Vec<JobFile> {
    let idle = IDLE.iter().map(|name| (*name, "exit 0"));
    let program = |(name, text): (&str, &str)| JobFile {
        path: format!("{PLACE}/bin/{name}"),
        content: format!("#!/bin/sh\n{}\n", text.replace("ARCH", architecture)),
        executable: true,
    };
    idle.chain(ANSWERING).map(program).collect()
}

/// Refuses a script whose interpreter is not in the image.
fn check_interpreter(root: &Rootfs, script: &MaintainerScript<'_>) -> Result<(), RunError> {
    let line = script.text.lines().next().and_then(|line| line.strip_prefix("#!"));
    let interpreter = line.and_then(|line| line.split_whitespace().next());
    match interpreter {
        Some(path) if root.tree.resolve(path).is_err() => {
            Err(RunError::Interpreter { script: label(script), interpreter: path.to_owned() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
