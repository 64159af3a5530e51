//! What the program may do: ids, capabilities, limits and the system call filter.

use std::io;

use rustix::process::{Resource, Rlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::landlock::Ruleset;
use super::protocol::{LaunchError, LaunchSpec, Stage};
use super::user::Identity;
use crate::seccomp::Filter;

/// How many files a program may have open unless it asks for more or is given a limit.
const DEFAULT_OPEN_FILES: u64 = 1024;

/// Becomes user 0 of the instance's user namespace, with the capabilities that this gives.
pub(crate) fn become_root_of_user_namespace() -> Result<(), LaunchError> {
    change_ids(&Identity::default())
        .map_err(|error| LaunchError::os(Stage::UserNamespace, "become user 0 of it", error))
}

/// Gives up everything that is not `identity`'s, for good, and enters the system call filter.
pub(super) fn drop_all(
    identity: &Identity,
    spec: &LaunchSpec,
    filter: &Filter,
) -> Result<(), LaunchError> {
    let fail = |what: &'static str| move |error| LaunchError::os(Stage::Privileges, what, error);
    let open_files = spec.limits.open_files;
    limit_files(open_files).map_err(|error| {
        let text = format!("limit open files to {}", open_files.unwrap_or(DEFAULT_OPEN_FILES));
        LaunchError::os(Stage::Privileges, text, error)
    })?;
    // As long as every directory can be entered.
    let volumes = spec.volumes.iter().filter(|volume| !volume.read_only);
    let writable = spec.writable.iter().map(|mount| mount.path.as_str());
    let rules = Ruleset::new(writable.chain(volumes.map(|volume| volume.path.as_str())))
        .map_err(fail("make the rules of Landlock"))?;
    drop_bounding_set().map_err(fail("empty the bounding set"))?;
    lock_secure_bits().map_err(fail("lock the secure bits"))?;
    change_ids(identity).map_err(fail("change user and groups"))?;
    drop_capabilities().map_err(fail("drop capabilities"))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(io::Error::from)
        .map_err(fail("set no_new_privs"))?;
    if let Some(rules) = rules {
        rules.restrict().map_err(fail("enter the rules of Landlock"))?;
    }
    filter.install().map_err(fail("install the system call filter"))
}

/// The launcher's own limit on core files, none, is inherited.
pub(crate) fn limit_files(count: Option<u64>) -> io::Result<()> {
    let limit = match count {
        Some(count) => Rlimit { current: Some(count), maximum: Some(count) },
        // A program that wants more than the customary number raises it itself.
        None => Rlimit {
            current: Some(DEFAULT_OPEN_FILES),
            maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
        },
    };
    Ok(rustix::process::setrlimit(Resource::Nofile, limit)?)
}

fn drop_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Beyond the last capability that this kernel knows.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// Makes user 0 an ordinary user: neither `execve` nor a change of ids gives capabilities back.
fn lock_secure_bits() -> io::Result<()> {
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    Ok(rustix::thread::set_capabilities_secure_bits(bits)?)
}

pub(crate) fn change_ids(identity: &Identity) -> io::Result<()> {
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
