//! The host's user and group ids that instances are mapped to.
//!
//! Each instance with a user namespace has 65,536 ids of its own, so that its processes are
//! nobody to the host and to each other. They lie above the ranges that systemd gives to
//! containers and dynamic users (systemd's UIDS-GIDS.md) and below 2^31.

use std::collections::BTreeSet;

/// The first id of the first range.
const FIRST: u32 = 0x7000_0000;
/// Ids of one instance.
pub(super) const COUNT: u32 = 0x1_0000;
/// How many ranges there are; so many instances of one root can run at a time.
const RANGES: u32 = 4093;

/// The ranges in use.
#[derive(Debug)]
pub(super) struct IdRanges {
    used: BTreeSet<u32>,
    next: u32,
}

impl IdRanges {
    /// All ranges free. Roots start at different places, so that they seldom meet.
    pub(super) fn new(root_id: &str) -> Self {
        let seed = root_id
            .bytes()
            .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        Self { used: BTreeSet::new(), next: seed % RANGES }
    }

    /// Takes the next free range; gives its first id.
    pub(super) fn take(&mut self) -> Option<u32> {
        let slot = (0..RANGES)
            .map(|step| (self.next + step) % RANGES)
            .find(|slot| !self.used.contains(slot))?;
        self.used.insert(slot);
        self.next = (slot + 1) % RANGES;
        Some(FIRST + slot * COUNT)
    }

    /// Marks the range that begins with `first` as in use.
    pub(super) fn keep(&mut self, first: u32) {
        self.used.extend(Self::slot(first));
    }

    /// Gives a range back.
    pub(super) fn give_back(&mut self, first: u32) {
        if let Some(slot) = Self::slot(first) {
            self.used.remove(&slot);
        }
    }

    fn slot(first: u32) -> Option<u32> {
        let slot = first.checked_sub(FIRST)? / COUNT;
        (slot < RANGES).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_come_back() {
        let mut ranges = IdRanges::new("0a1b2c3d");
        let all: BTreeSet<u32> = (0..RANGES).filter_map(|_| ranges.take()).collect();
        assert_eq!(all.len(), RANGES as usize);
        assert!(all.iter().all(|first| first % COUNT == 0 && i32::try_from(*first).is_ok()));
        assert_eq!(ranges.take(), None);
        let first = *all.first().unwrap();
        ranges.give_back(first);
        assert_eq!(ranges.take(), Some(first));
    }
}
