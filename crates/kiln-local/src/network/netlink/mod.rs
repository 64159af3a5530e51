//! Netlink: how the kernel is told about interfaces, addresses, routes and packet filters.
//!
//! A small encoder and decoder for what Kiln needs, instead of one process of `ip` or `nft` per
//! change. Requests go in [`Batch`]es, several per system call, and are answered before `send`
//! returns. Layouts are those of `linux/netlink.h`: everything is aligned to four bytes, and
//! integers are in the host's order unless a protocol says otherwise.

mod attribute;
mod batch;
mod listener;
mod socket;

pub(crate) use attribute::{Attributes, attributes, find, text, u16_host, u32_be, u32_host};
pub(crate) use batch::Batch;
pub(crate) use listener::Listener;
pub(crate) use socket::{Protocol, Socket};

use std::io;

/// Asks for an acknowledgement.
pub(crate) const ACK: u16 = 0x4;
/// The object must not exist yet (`NLM_F_EXCL`) and is made (`NLM_F_CREATE`).
pub(crate) const NEW: u16 = 0x200 | 0x400;
/// The object is made if need be.
pub(crate) const CREATE: u16 = 0x400;
/// The object takes the place of one that is there.
pub(crate) const REPLACE: u16 = 0x100;
/// What is added goes behind what is there.
pub(crate) const APPEND: u16 = 0x800;

/// A request that the kernel has refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Refused {
    /// What was asked for, as a verb with its object.
    pub what: &'static str,
    /// The kernel's own words, where it gave any.
    pub detail: Option<String>,
    /// The kernel's error.
    pub source: io::Error,
}

impl Refused {
    pub(crate) fn new(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self { what, detail: None, source: source.into() }
    }

    /// Whether the thing that was named isn't there.
    pub(crate) fn is_absent(&self) -> bool {
        let errno = self.source.raw_os_error();
        [libc::ENOENT, libc::ENODEV, libc::ESRCH, libc::ENXIO].map(Some).contains(&errno)
    }
}
