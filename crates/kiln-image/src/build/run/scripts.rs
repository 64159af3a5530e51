//! Maintainer scripts of packages (`scripts = "sandbox"`), run as dpkg would when it installs the
//! packages anew. Which they are, and in which order, [`Rootfs`] says: they stand in the tree.
//!
//! All packages are unpacked by then, so that a `preinst` sees its package in place already. What
//! scripts call and an image does without is stood in for: services are not started, diversions
//! and alternatives are Kiln's own, and questions of debconf have no answers. A program that the
//! image has is always preferred to its stand-in.

use std::collections::BTreeMap;

use super::{Ground, RunError, environment, execute, on_directory};
use crate::rootfs::{PendingScript, Rootfs};
use crate::sandbox::{Bounds, Job, JobFile};
use crate::tree::{Inode, Metadata, TreeError};

/// Where stand-ins are while scripts run; gone with `/tmp`.
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

/// Runs the scripts that are pending, in their order.
pub(in crate::build) fn run_all(
    root: &mut Rootfs,
    architecture: &str,
    ground: &Ground<'_>,
) -> Result<(), RunError> {
    let scripts = std::mem::take(&mut root.pending);
    let Some(first) = scripts.first() else { return Ok(()) };
    for script in &scripts {
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
        for script in &scripts {
            let name = label(script);
            let own = [&script.path].into_iter().chain(&script.arguments);
            let argv: Vec<String> = own.cloned().collect();
            let job = Job {
                root: directory,
                argv: &argv,
                env: &script_environment(&common, script),
                workdir: "/",
                user: (0, 0),
                files: &stand_ins,
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
    root.scripts_have_run().map_err(|source| RunError::Scripts { source: Box::new(source) })
}

/// `PACKAGE.postinst`, as dpkg calls its file.
fn label(script: &PendingScript) -> String {
    format!("{}.{}", script.package, script.name)
}

/// The environment that dpkg(1) promises to scripts. The image's own programs come first.
fn script_environment(
    common: &BTreeMap<String, String>,
    script: &PendingScript,
) -> BTreeMap<String, String> {
    let mut env = common.clone();
    let path = env.get("PATH").map_or(super::PATH, String::as_str);
    env.insert("PATH".to_owned(), format!("{path}:{PLACE}/bin"));
    env.extend(script.environment.iter().cloned());
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
fn check_interpreter(root: &Rootfs, script: &PendingScript) -> Result<(), RunError> {
    let text = String::from_utf8_lossy(&script.text);
    let line = text.lines().next().and_then(|line| line.strip_prefix("#!"));
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
