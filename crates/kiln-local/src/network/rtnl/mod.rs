//! Interfaces, addresses and routes, as `linux/rtnetlink.h` and `linux/if_link.h` lay them out.

pub(crate) mod address;
pub(crate) mod link;
pub(crate) mod neighbour;
pub(crate) mod route;

/// `AF_INET` as the one byte that the headers have for it.
const INET: u8 = 2;

/// A hardware address.
pub(crate) type Mac = [u8; 6];
