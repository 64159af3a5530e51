//! The target that is this machine: instances, networks and their measurement.

pub mod cgroup;
pub mod instance;
pub mod launcher;
pub mod logs;
pub mod seccomp;
