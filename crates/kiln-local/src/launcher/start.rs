//! The launcher's side of a start, up to the point where the child is on its own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_netns::Namespace;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::attach;
use super::base::Base;
use super::check::check;
use super::child::{self, Birth, GO_EXEC, GO_MOUNT};
use super::ids::{COUNT, IdRanges};
use super::images::{Image, Images};
use super::mounts::{self, CgroupView};
use super::pipes::{self, Pipe};
use super::protocol::{LaunchError, LaunchSpec, NetworkAttachment, Stage, VolumeMount};
use super::sys::{self, Cloned};
use super::table::report;
use super::user::{self, Identity};
use crate::cgroup::{CgroupError, Cgroups, Group};
use crate::instance::record::{self, Record};
use crate::seccomp::Filter;

/// What starts have in common.
pub(super) struct Starter {
    pub(super) base: Base,
    /// The root as the launcher reaches it.
    pub(super) root: PathBuf,
    pub(super) cgroups: Cgroups,
    pub(super) ids: IdRanges,
    images: Images,
    views: Vec<CgroupView>,
    null: OwnedFd,
    boot: String,
}

/// A child that is on its way to its program.
pub(super) struct Newborn {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// The child reports here and closes it by executing its program.
    pub(super) socket: OwnedFd,
    pub(super) output: [OwnedFd; 2],
    pub(super) group: Group,
    pub(super) image: Image,
    pub(super) first_host_id: Option<u32>,
    pub(super) network: Option<NetworkAttachment>,
    pub(super) started_at_ms: u64,
}

impl Starter {
    pub(super) fn new(
        base: Base,
        root: &Path,
        cgroups: Cgroups,
        root_id: &str,
    ) -> io::Result<Self> {
        let views = views(&cgroups);
        // Compiled here, once, rather than in each child.
        Filter::default_profile();
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Self {
            root: base.host(root),
            images: Images::new(base.host(Path::new("/dev")), root_id),
            base,
            cgroups,
            ids: IdRanges::new(root_id),
            views,
            null: rustix::fs::open("/dev/null", flags, Mode::empty())?,
            boot: record::boot_id()?,
        })
    }

    /// Starts `spec`. Whatever was made is gone again when this fails.
    pub(super) fn start(&mut self, spec: &LaunchSpec) -> Result<Newborn, LaunchError> {
        check(spec)?;
        let image = self.images.open(&spec.image, &self.base)?;
        let identity = user::resolve(image.root(), &spec.user)
            .map_err(|text| LaunchError::new(Stage::User, text))?;
        let group = self.cgroups.create(&spec.instance, &spec.limits).map_err(|error| {
            let errno = error.errno();
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let text = format!("{error}{}", cause.unwrap_or_default());
            LaunchError { stage: Stage::Cgroup, errno, text }
        })?;
        self.start_in(spec, &identity, image, &group).inspect_err(|_| {
            // The start's own error is the one that explains.
            let _ = group.remove();
            let _ = record::remove(&self.root, &spec.instance);
        })
    }

    fn start_in(
        &mut self,
        spec: &LaunchSpec,
        identity: &Identity,
        image: Image,
        group: &Group,
    ) -> Result<Newborn, LaunchError> {
        let first = self.ids.take().ok_or_else(|| {
            LaunchError::new(Stage::UserNamespace, "all ranges of user ids are in use")
        })?;
        let result = self.attempt(spec, identity, image.clone(), group, Ok(first));
        if result.is_err() {
            self.ids.give_back(first);
        }
        match result {
            Err(error) if lacks_user_namespaces(&error) => {
                // Tried anew at each start: the lack may be a limit that was reached.
                self.attempt(spec, identity, image, group, Err(&error.to_string()))
            }
            result => result,
        }
    }

    /// Starts with a user namespace whose ids begin with the given one, or without one for the
    /// given reason.
    fn attempt(
        &self,
        spec: &LaunchSpec,
        identity: &Identity,
        image: Image,
        group: &Group,
        user_namespace: Result<u32, &str>,
    ) -> Result<Newborn, LaunchError> {
        let first_host_id = user_namespace.ok();
        let root = image
            .instance_mount()
            .map_err(|error| LaunchError::os(Stage::Image, "a mount for the instance", error))?;
        let dev = Base::dev_mount().map_err(|error| LaunchError::os(Stage::Dev, "clone", error))?;
        let volumes = self.volumes(&spec.volumes, identity)?;
        let output = open_output(identity, first_host_id)
            .map_err(|error| LaunchError::os(Stage::Clone, "pipes for the output", error))?;
        // Compiled here, where a profile that can't be used is told of.
        let own = filter(spec)?;
        let (socket, child_socket) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(|error| LaunchError::os(Stage::Clone, "socket pair", error))?;
        let (v1_tasks, unified) = open_group(group)?;
        let birth = Birth {
            spec,
            identity,
            socket: &child_socket,
            image: &root,
            dev: &dev,
            volumes: &volumes,
            v1_tasks: &v1_tasks,
            cgroups: &self.views,
            stdio: [self.null.as_fd(), output[0].write.as_fd(), output[1].write.as_fd()],
            user_namespace: first_host_id.is_some(),
            filter: own.as_ref().unwrap_or_else(|| Filter::default_profile()),
        };
        let into = unified.as_ref().map(AsFd::as_fd);
        let cloned = match &spec.joins {
            None => clone(&birth, into, NAMESPACES | libc::CLONE_NEWNET as u64),
            Some(other) => self
                .network_of(other)?
                .enter(|| clone(&birth, into, NAMESPACES))
                .map_err(|error| LaunchError::new(Stage::Network, error.to_string()))?,
        };
        let (pid, pidfd) = cloned
            .map_err(|error| LaunchError::os(Stage::Clone, "clone into new namespaces", error))?;
        let [stdout, stderr] = output;
        let newborn = Newborn {
            pid,
            pidfd,
            socket,
            output: [stdout.read, stderr.read],
            group: group.clone(),
            image,
            first_host_id,
            network: spec.network.clone(),
            started_at_ms: now_ms(),
        };
        let mounts = Mounts { root: &root, dev: &dev, volumes: &volumes };
        match self.guide(spec, identity, &newborn, &mounts, user_namespace.err()) {
            Ok(()) => Ok(newborn),
            Err(error) => {
                end(&newborn.pidfd);
                self.detach(&spec.instance, newborn.network.as_ref());
                Err(error)
            }
        }
    }

    /// Clones the mounts of directories of the host.
    fn volumes(
        &self,
        volumes: &[VolumeMount],
        identity: &Identity,
    ) -> Result<Vec<OwnedFd>, LaunchError> {
        let open = |volume: &VolumeMount| -> io::Result<OwnedFd> {
            if volume.own {
                give(&self.base.host(&volume.source), identity)?;
            }
            let mount = self.base.bind(&volume.source)?;
            sys::mount_setattr(mount.as_fd(), c"", mounts::volume_attributes(volume))?;
            Ok(mount)
        };
        let failed = |volume: &VolumeMount, error| {
            LaunchError::os(Stage::Volumes, volume.source.display(), error)
        };
        volumes.iter().map(|volume| open(volume).map_err(|e| failed(volume, e))).collect()
    }

    /// The network namespace of a running instance.
    fn network_of(&self, instance: &str) -> Result<Namespace, LaunchError> {
        let absent = || {
            let text = format!("there is no running instance {instance} whose network to share");
            LaunchError::new(Stage::Network, text)
        };
        let record = record::read(&self.root, instance).ok().flatten().ok_or_else(absent)?;
        if !self.cgroups.group(instance).processes().contains(&record.pid) {
            return Err(absent());
        }
        Namespace::of_process(record.pid.unsigned_abs()).map_err(|_| absent())
    }

    /// What the launcher does for the child while that works on its mounts.
    fn guide(
        &self,
        spec: &LaunchSpec,
        identity: &Identity,
        newborn: &Newborn,
        mounts: &Mounts<'_>,
        no_user_namespace: Option<&str>,
    ) -> Result<(), LaunchError> {
        if let Some(first) = newborn.first_host_id {
            map_ids(newborn.pid, first, mounts).map_err(|error| {
                LaunchError::os(Stage::UserNamespace, "map the ids of files and users", error)
            })?;
        }
        tell(newborn, GO_MOUNT);
        if let Some(network) = &spec.network {
            let namespace = self.base.host(&network.namespace);
            attach::attach(network, &namespace, &spec.instance, newborn.pid)?;
        }
        let mut record = self.record(spec, identity, newborn);
        record.no_user_namespace_because = no_user_namespace.map(str::to_owned);
        record::write(&self.root, &record)
            .map_err(|error| LaunchError::os(Stage::Record, "write", error))?;
        tell(newborn, GO_EXEC);
        Ok(())
    }

    /// Takes what a failed start leaves on the side of the network.
    pub(super) fn detach(&self, instance: &str, network: Option<&NetworkAttachment>) {
        let Some(network) = network else { return };
        let namespace = self.base.host(&network.namespace);
        report("leave a network", attach::detach(network, &namespace, instance));
    }

    fn record(&self, spec: &LaunchSpec, identity: &Identity, newborn: &Newborn) -> Record {
        Record {
            instance: spec.instance.clone(),
            labels: spec.labels.clone(),
            image: spec.image.clone(),
            program: spec.argv.first().cloned().unwrap_or_default(),
            user: (identity.uid, identity.gid),
            limits: spec.limits.clone(),
            network: spec.network.clone(),
            user_namespace: newborn.first_host_id.is_some(),
            no_user_namespace_because: None,
            first_host_id: newborn.first_host_id,
            pid: newborn.pid,
            started_at_ms: newborn.started_at_ms,
            boot: self.boot.clone(),
            baseline: true,
        }
    }
}

/// Mounts of an instance whose owners are translated.
struct Mounts<'a> {
    root: &'a OwnedFd,
    dev: &'a OwnedFd,
    volumes: &'a [OwnedFd],
}

/// Gives a directory to the instance's user, as the image numbers it.
fn give(directory: &Path, identity: &Identity) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    Ok(rustix::fs::fchown(&directory, Some(uid), Some(gid))?)
}

/// All namespaces but the network's, which may be another instance's, the user's, which not every
/// kernel permits, and the control groups', whose root would be the launcher's group; the child
/// makes that one itself.
const NAMESPACES: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;

/// Makes the child, which never returns from here: it must not leave its namespaces again.
fn clone(
    birth: &Birth<'_>,
    group: Option<BorrowedFd<'_>>,
    mut flags: u64,
) -> io::Result<(i32, OwnedFd)> {
    if birth.user_namespace {
        flags |= libc::CLONE_NEWUSER as u64;
    }
    // SAFETY: the launcher has one thread.
    match unsafe { sys::clone3(flags, group) }? {
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => child::run(birth),
    }
}

/// The filter of an instance; none where it is the default one, which is there already.
fn filter(spec: &LaunchSpec) -> Result<Option<Filter>, LaunchError> {
    if spec.learns {
        return Ok(Some(Filter::learning()));
    }
    if spec.seccomp.is_default() {
        return Ok(None);
    }
    let filter = Filter::of(&spec.seccomp);
    filter.map(Some).map_err(|error| LaunchError::new(Stage::Spec, error.to_string()))
}

/// Whether the failure is the kernel's lack of user namespaces or of translated mounts.
fn lacks_user_namespaces(error: &LaunchError) -> bool {
    let denied = [libc::EPERM, libc::EINVAL, libc::ENOSPC, libc::ENOSYS, libc::EOPNOTSUPP];
    matches!(error.stage, Stage::Clone | Stage::UserNamespace)
        && error.errno.is_some_and(|errno| denied.contains(&errno))
}

/// What the child joins its control groups by: version 1 by `tasks`, version 2 by the clone.
fn open_group(group: &Group) -> Result<(Vec<fs::File>, Option<OwnedFd>), LaunchError> {
    let failed = |error: CgroupError| {
        let errno = error.errno();
        LaunchError { stage: Stage::Cgroup, errno, text: error.to_string() }
    };
    Ok((group.open_v1_tasks().map_err(failed)?, group.open_unified().map_err(failed)?))
}

fn open_output(identity: &Identity, first: Option<u32>) -> io::Result<[Pipe; 2]> {
    let first = first.unwrap_or(0);
    let (uid, gid) = (first.saturating_add(identity.uid), first.saturating_add(identity.gid));
    Ok([pipes::open(uid, gid)?, pipes::open(uid, gid)?])
}

/// Maps the ids of a process, and of the owners of files on its mounts.
fn map_ids(pid: i32, first: u32, mounts: &Mounts<'_>) -> io::Result<()> {
    let map = format!("0 {first} {COUNT}");
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), &map)?;
    }
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user"))?;
    for mount in std::iter::once(mounts.root).chain(mounts.volumes) {
        sys::mount_idmap(mount.as_fd(), namespace.as_fd())?;
    }
    match sys::mount_idmap(mounts.dev.as_fd(), namespace.as_fd()) {
        // Before Linux 6.3 a tmpfs can't be translated. Its devices then belong to nobody, whom
        // they serve as well: everybody may open them.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

fn tell(newborn: &Newborn, byte: u8) {
    // A child that has failed has closed the socket and said why; that is read later.
    let _ = rustix::io::write(&newborn.socket, &[byte]);
}

/// Kills and reaps a child that nobody waits for.
fn end(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// How instances see the control groups.
fn views(cgroups: &Cgroups) -> Vec<CgroupView> {
    let hierarchies = cgroups.hierarchies();
    let name = |top: &Path| {
        top.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let mut views: Vec<CgroupView> = hierarchies
        .v1()
        .map(|v1| CgroupView { name: name(&v1.top), controllers: v1.controllers.clone() })
        .collect();
    if let Some(top) = hierarchies.unified() {
        let name = if views.is_empty() { String::new() } else { name(top) };
        views.push(CgroupView { name, controllers: Vec::new() });
    }
    views
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
