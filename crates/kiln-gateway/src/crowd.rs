//! Who holds how many connections: no client may take those of all others.
//!
//! As long as descriptors are plenty nobody is counted against. When three quarters of what the
//! process may have are in use, a client's address that holds more than its share gets no
//! further ones, and slow heads and idle connections are given less time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::http::limits;

/// Descriptors that are not for connections: listeners, control, certificates, logs.
const RESERVE: usize = 64;

/// The share of connections that one address may hold while descriptors are short: one in so
/// many.
const SHARE: usize = 8;

/// The connections of clients from outside, by address.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// Connections that the process can have; each may take a second descriptor for the
    /// instance.
    most: usize,
    open: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, u32>>,
}

/// One connection; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    /// For a process that may have so many descriptors.
    pub(crate) fn new(descriptors: u64) -> Arc<Self> {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Arc::new(Self {
            most: descriptors.saturating_sub(RESERVE) / 2,
            open: AtomicUsize::new(0),
            addresses: Mutex::default(),
        })
    }

    /// Counts one more, or refuses it.
    pub(crate) fn join(self: &Arc<Self>, address: IpAddr) -> Option<Member> {
        let address = address.to_canonical();
        let mut addresses = self.addresses();
        let count = addresses.get(&address).copied().unwrap_or(0);
        if self.is_short() && count as usize >= self.most / SHARE {
            return None;
        }
        addresses.insert(address, count + 1);
        drop(addresses);
        self.open.fetch_add(1, Relaxed);
        Some(Member { crowd: Arc::clone(self), address })
    }

    /// Whether descriptors are short.
    pub(crate) fn is_short(&self) -> bool {
        self.open.load(Relaxed) >= self.most / 4 * 3
    }

    /// What is left of a time that a client usually has.
    pub(crate) fn patience(&self, usual: Duration) -> Duration {
        if self.is_short() { usual.min(limits::SHORT) } else { usual }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.open.fetch_sub(1, Relaxed);
        let mut addresses = self.crowd.addresses();
        match addresses.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(addresses.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all() {
        let crowd = Crowd::new(2 * 800 + 64);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut members = Vec::new();
        while let Some(member) = crowd.join(one) {
            members.push(member);
            assert!(members.len() < 10_000);
        }
        assert_eq!(members.len(), 600);
        assert_eq!(crowd.patience(Duration::from_secs(10)), limits::SHORT);
        let others: Vec<_> = (0..50).filter_map(|_| crowd.join(two)).collect();
        assert_eq!(others.len(), 50);
        members.truncate(10);
        assert!(crowd.join(one).is_some() && !crowd.is_short());
        drop((members, others));
        assert!(crowd.addresses().is_empty());
    }
}
