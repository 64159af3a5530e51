//! Databases on this machine, with the real PostgreSQL of this machine in their image. Each test has
//! a root of its own; without PostgreSQL 15 and the rights to make instances it says so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod backups;
mod drift;
mod failures;
mod image;
mod lives;
mod site;
mod switch;
mod versions;
