//! The target that is this machine: instances, networks and their measurement.

pub mod cgroup;
mod fanotify;
mod fs_verity;
mod guard;
pub mod instance;
pub mod laboratory;
pub mod launcher;
pub mod local;
pub mod logs;
pub mod network;
pub mod posture;
pub mod sandbox;
pub mod seccomp;
pub mod usage;
