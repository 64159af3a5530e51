//! Making networks and instances.

use std::collections::BTreeMap;

use kiln_engine::TargetError;
use kiln_model::plan::{InstanceCreation, NetworkCreation};
use kiln_model::quantity::Bytes;
use kiln_model::text::{Part, Text};

use super::Machine;
use super::labels::{InstanceLabels, NetworkLabels};
use super::seal::SealError;
use super::seams::ImageFiles;
use crate::instance::client::ClientError;
use crate::launcher::ensure_running;
use crate::launcher::protocol::{
    FileMount, ImageSource, LaunchSpec, Limits, NetworkAttachment, Refusal, Stage, WritableMount,
};
use crate::network;

/// Where programs are looked for when neither image nor server says so.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files of one process.
pub(crate) const OPEN_FILES: u64 = 16_384;

impl Machine {
    pub(super) fn create_network(&self, creation: &NetworkCreation) -> Result<(), TargetError> {
        let what = format!("create {}", creation.component);
        let labels = NetworkLabels::of(creation);
        if NetworkLabels::exist(&self.root, &creation.id) {
            return Err(TargetError::passing(what, "it exists"));
        }
        // The record first: what is half made is then found as such.
        labels.write(&self.root).map_err(|e| TargetError::passing(&what, e))?;
        let Err(error) = self.networks.create(&labels.spec()) else {
            self.guard.ring();
            return Ok(());
        };
        let permanent =
            matches!(error, network::Error::Overlap { .. } | network::Error::Spec { .. });
        // A record that can't be removed now is found to have no network at the next look.
        let _ = NetworkLabels::remove(&self.root, &creation.id);
        let cause = chain(&error);
        Err(TargetError { what, cause, hint: None, permanent })
    }

    pub(super) fn create_instance(&self, creation: &InstanceCreation) -> Result<(), TargetError> {
        self.launch(self.prepared(creation)?)
    }

    /// What an instance is to be; its image is verified and sealed.
    pub(super) fn prepared(&self, creation: &InstanceCreation) -> Result<LaunchSpec, TargetError> {
        let what = format!("start {}", creation.component);
        let image = self
            .images
            .get(&creation.image, &creation.demands)
            .map_err(|refusal| TargetError::permanent(&what, refusal.cause, refusal.hint))?;
        let (image, source) = self.sealed(creation, image)?;
        self.launch_spec(creation, image, source)
    }

    /// Starts an instance.
    pub(super) fn launch(&self, spec: LaunchSpec) -> Result<(), TargetError> {
        let what = format!("start {}", spec.labels.component);
        let seal = spec.image.seal.clone();
        let mut launcher = ensure_running(&self.root, &self.exe)
            .map_err(|error| TargetError::passing(&what, chain(&error)))?;
        match launcher.launch(spec) {
            Ok(_) => Ok(()),
            Err(error) => {
                let cause = chain(&error);
                if matches!(stage(&error), Some(Stage::Seal | Stage::Image)) {
                    self.seals.unusable(&seal, &cause);
                }
                let hint = stage(&error).and_then(way_out).map(str::to_owned);
                let permanent = stage(&error).is_some_and(is_permanent);
                Err(TargetError { what, cause, hint, permanent })
            }
        }
    }

    /// Keeps an image's filesystem from being altered, as strongly as the stack demands. One that
    /// was altered is made anew where that can be.
    fn sealed(
        &self,
        creation: &InstanceCreation,
        mut image: ImageFiles,
    ) -> Result<(ImageFiles, ImageSource), TargetError> {
        let what = || format!("start {}", creation.component);
        let seal =
            |image: &ImageFiles| self.seals.seal(&*self.images, image, creation.demands.integrity);
        let mut sealed = seal(&image);
        if let Err(error @ SealError::Altered(_)) = &sealed {
            let anew = self.images.remake(&creation.image);
            image = anew.map_err(|hint| TargetError::permanent(what(), chain(error), hint))?;
            sealed = seal(&image);
        }
        match sealed {
            Ok(source) => Ok((image, source)),
            Err(error @ SealError::Io { .. }) => Err(TargetError::passing(what(), chain(&error))),
            Err(error) => {
                let hint = "keep the root on a filesystem that has it, or let `require_integrity` \
                            permit a weaker way";
                Err(TargetError::permanent(what(), chain(&error), hint))
            }
        }
    }

    fn launch_spec(
        &self,
        creation: &InstanceCreation,
        image: ImageFiles,
        source: ImageSource,
    ) -> Result<LaunchSpec, TargetError> {
        let identity = &creation.server.identity;
        let what = || format!("start {}", creation.component);
        let labels = InstanceLabels::of(creation)
            .to_labels()
            .map_err(|error| TargetError::passing(what(), error))?;
        let mut argv = match &identity.command {
            Some(command) => self.reveal_all(creation, command)?,
            None => image.argv,
        };
        argv.extend(self.reveal_all(creation, &identity.args)?);
        if argv.is_empty() {
            let cause = "neither its image nor it says what to run";
            let hint = "give the image an `entrypoint` or the server a `command`";
            return Err(TargetError::permanent(what(), cause, hint));
        }
        let mut env: BTreeMap<String, String> = [("PATH".to_owned(), PATH.to_owned())].into();
        env.extend(image.env);
        for (name, text) in &identity.env {
            env.insert(name.clone(), self.reveal(creation, text)?);
        }
        let mut writable = image.writable;
        writable.extend(identity.writable.iter().map(|(path, size)| (path.clone(), *size)));
        let workdir = identity.workdir.clone().unwrap_or(image.workdir);
        Ok(LaunchSpec {
            instance: creation.id.to_string(),
            labels,
            image: source,
            argv,
            env: env.into_iter().collect(),
            workdir: if workdir.is_empty() { "/".to_owned() } else { workdir },
            user: identity.user.clone().unwrap_or(image.user),
            hostname: creation.id.as_str().chars().take(63).collect(),
            writable: writable.iter().map(|(path, size)| writable_mount(path, *size)).collect(),
            volumes: Vec::new(),
            directories: Vec::new(),
            files: files(creation),
            limits: Limits {
                memory_bytes: Some(identity.memory.0),
                cpu_millis: identity.cpu.map(|cpu| u64::from(cpu.0)),
                pids: Some(u64::from(identity.pids)),
                open_files: Some(OPEN_FILES),
                oom_score_adjust: 0,
            },
            seccomp: identity.seccomp.clone(),
            learns: false,
            network: Some(NetworkAttachment {
                namespace: self.networks.path(creation.network.as_str()),
                address: creation.address,
                prefix_bits: creation.network_identity.cidr.prefix_len(),
                gateway: creation.network_identity.resolver(),
            }),
            joins: None,
        })
    }

    fn reveal_all(
        &self,
        creation: &InstanceCreation,
        texts: &[Text],
    ) -> Result<Vec<String>, TargetError> {
        texts.iter().map(|text| self.reveal(creation, text)).collect()
    }

    /// A text with the values of its secrets.
    fn reveal(&self, creation: &InstanceCreation, text: &Text) -> Result<String, TargetError> {
        let parts = match text {
            Text::Plain(text) => return Ok(text.clone()),
            Text::Template(parts) => parts,
        };
        let mut whole = String::new();
        for part in parts {
            match part {
                Part::Literal(text) => whole.push_str(text),
                Part::Secret(secret) => {
                    let (stack, generation) = (&creation.stack, creation.generation);
                    let value = self.secrets.reveal(stack, generation, &secret.id);
                    let what = format!("start {} with {}", creation.component, secret.id);
                    // What is damaged or not kept does not come back by waiting.
                    let failed = |cause| TargetError::permanent(what, cause, SECRET_HINT);
                    whole.push_str(&value.map_err(failed)?);
                }
            }
        }
        Ok(whole)
    }
}

const SECRET_HINT: &str = "give the secret a new value and apply, or put ROOT/store back from a \
                           backup";

pub(crate) fn writable_mount(path: &str, size: Bytes) -> WritableMount {
    WritableMount { path: path.to_owned(), size_bytes: size.0, mode: 0o1777, exec: false }
}

/// The files by which an instance knows its name and its resolver.
fn files(creation: &InstanceCreation) -> Vec<FileMount> {
    let file =
        |path: &str, content: String| FileMount { path: path.to_owned(), content, mode: 0o644 };
    let (name, address) = (&creation.id, creation.address);
    let resolver = creation.network_identity.resolver();
    vec![
        file("/etc/hostname", format!("{name}\n")),
        file("/etc/hosts", format!("127.0.0.1 localhost\n{address} {name}\n")),
        file("/etc/resolv.conf", format!("nameserver {resolver}\noptions timeout:1 attempts:3\n")),
    ]
}

/// Where a start failed.
pub(crate) fn stage(error: &ClientError) -> Option<Stage> {
    match error {
        ClientError::Refused(Refusal::Launch(error)) => Some(error.stage),
        _ => None,
    }
}

/// Whether a failed start would fail again: the specification, not the machine, is at fault.
fn is_permanent(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Spec
            | Stage::User
            | Stage::Writable
            | Stage::Volumes
            | Stage::Files
            | Stage::Workdir
            | Stage::Exec
    )
}

/// What helps against a start that fails at `stage`.
fn way_out(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Writable => Some(
            "a writable path must be a directory of the image: give the image a `directory` \
             there, or the path in its own `writable`",
        ),
        Stage::Volumes | Stage::Files => Some(
            "give the image a `directory` where the engine has its data, its sockets and its \
             configuration, as in the image that a database has by itself",
        ),
        Stage::User => Some("give the image a `user` block of that name"),
        Stage::Workdir => Some("a `workdir` must be a directory of the image"),
        Stage::Exec => Some("the program must be a file of the image that can be executed there"),
        _ => None,
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
