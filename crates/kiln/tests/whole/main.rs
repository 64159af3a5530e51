//! The whole program on the real kernel: a root, a stack, a daemon, instances, traffic.
//!
//! Each test has a root and ports of its own and leaves the machine as it found it, so that
//! several runs can go side by side. The instances run `kiln-probe`, built statically; its path
//! is in `KILN_PROBE`, or it stands where its documentation says that it is built. A test that
//! lacks it, or root's rights, says so and counts as skipped.

#![allow(unreachable_pub, reason = "a test program: its modules are public to each other only")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: a failed expectation is a panic"
)]

mod backups;
mod breakouts;
mod catalogue;
mod certificates;
mod clients;
mod crash;
mod databases;
mod docker;
mod engines;
mod failure;
mod follow;
mod full_disk;
mod health;
mod hook;
mod images;
mod isolation;
mod kills;
mod leftovers;
mod load;
mod measured;
mod openssl;
mod overload;
mod podman;
mod quarantine;
mod registry;
mod replace;
mod replacements;
mod rollouts;
mod scaling;
mod scripts;
mod sealing;
mod secrets;
mod site;
mod steps;
mod tampering;
mod target;
mod trial;
mod trust;
mod upgrade;
