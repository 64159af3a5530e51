//! Whether a specification makes sense, before anything is done about it.

use std::path::{Component, Path};

use super::protocol::{LaunchError, LaunchSpec, Stage, WritableMount};

/// Refuses what no instance can be made from.
pub(super) fn check(spec: &LaunchSpec) -> Result<(), LaunchError> {
    let id = spec.instance.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let complaint = if id.is_empty() || id.len() > 63 || !id.iter().all(plain) {
        format!("the instance id `{}` is not 1 to 63 of a-z, 0-9 and -", spec.instance)
    } else if spec.argv.is_empty() {
        "there is no program to run; give the image an entrypoint".to_owned()
    } else if spec.hostname.is_empty() || spec.hostname.len() > 64 {
        format!("the host name `{}` is not 1 to 64 bytes long", spec.hostname)
    } else if spec.network.is_some() && spec.joins.is_some() {
        "it can be attached to a network or share another instance's, not both".to_owned()
    } else if let Some(name) = bad_variable(&spec.env) {
        format!("`{name}` cannot be the name of an environment variable")
    } else if let Some(mount) = spec.writable.iter().find(|mount| !may_be_writable(mount)) {
        format!(
            "`{}` of {} bytes cannot be writable space: name a directory of the image outside \
             /proc, /sys and /dev (but for /dev/shm), and a size",
            mount.path, mount.size_bytes
        )
    } else if let Some(path) = mounted_at(spec).find(|path| !may_be_mounted_on(path)) {
        format!("`{path}` is no place to mount on: name a directory outside /proc, /sys and /dev")
    } else {
        return Ok(());
    };
    Err(LaunchError::new(Stage::Spec, complaint))
}

fn may_be_writable(mount: &WritableMount) -> bool {
    // A tmpfs of size 0 is one without bounds.
    mount.size_bytes > 0 && (mount.path == "/dev/shm" || may_be_mounted_on(&mount.path))
}

/// Where volumes and directories are mounted.
fn mounted_at(spec: &LaunchSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.volumes.iter().map(|volume| volume.path.as_str());
    volumes.chain(spec.directories.iter().map(|directory| directory.path.as_str()))
}

fn may_be_mounted_on(path: &str) -> bool {
    let path = Path::new(path);
    let plain =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let kernel = ["/proc", "/sys", "/dev"].into_iter().any(|top| path.starts_with(top));
    plain && !kernel && path.is_absolute() && path.parent().is_some()
}

fn bad_variable(env: &[(String, String)]) -> Option<&str> {
    let bad = |name: &str| name.is_empty() || name.contains(['=', '\0']);
    env.iter().map(|(name, _)| name.as_str()).find(|name| bad(name))
}
