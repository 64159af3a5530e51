//! Room for inodes: front to back, and in the ends of blocks that were too short for others.

use std::collections::VecDeque;
use std::ops::Range;

use super::format::{BLOCK, SLOT, align};

/// How many unused ends of blocks are remembered. More would save little and tear the inodes of
/// a directory apart.
const MAX_GAPS: usize = 64;

/// The part of an image that holds inodes, as far as it is given out.
#[derive(Debug)]
pub(super) struct Space {
    end: u64,
    gaps: VecDeque<Range<u64>>,
}

impl Space {
    /// Starts at offset `start`.
    pub(super) fn new(start: u64) -> Self {
        Self { end: start, gaps: VecDeque::new() }
    }

    /// A place of `need` bytes at a slot, within one block if that is possible at all.
    pub(super) fn take(&mut self, need: u64) -> u64 {
        let fitting = self.gaps.iter_mut().filter(|gap| gap.end - gap.start >= need);
        if let Some(gap) = fitting.min_by_key(|gap| gap.end - gap.start) {
            let at = gap.start;
            gap.start = align(at + need, SLOT);
            self.gaps.retain(|gap| !gap.is_empty());
            return at;
        }
        let mut at = align(self.end, SLOT);
        if at % BLOCK + need > BLOCK {
            let next = align(at, BLOCK);
            self.gaps.push_back(at..next);
            self.gaps.retain(|gap| !gap.is_empty());
            if self.gaps.len() > MAX_GAPS {
                self.gaps.pop_front();
            }
            at = next;
        }
        self.end = at + need;
        at
    }

    /// The offset behind everything that was given out.
    pub(super) fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_into_no_block_end_starts_a_block() {
        let mut space = Space::new(1152);
        assert_eq!(space.take(32), 1152);
        assert_eq!(space.take(3000), 4096);
        assert_eq!(space.take(2000), 1184);
        assert_eq!(space.take(1000), 7104);
        assert_eq!(space.take(5000), 8192);
        assert_eq!(space.take(3200), 16_384);
        assert_eq!(space.take(896), 3200);
        assert_eq!(space.end(), 19_584);
    }
}
