//! Which copies and segments are kept, and which go.
//!
//! Any moment within `keep` can be restored: that needs the newest copy that was whole before it began,
//! all later ones, and the log from the first of them on. Where that copy is known to be damaged, the
//! one before it is needed as well. The newest copy that was proved is never removed.

use std::collections::BTreeSet;

use kiln_model::quantity::{Millis, Timestamp};

use crate::catalogue::{Catalogue, Copy, Line};

/// What goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Copies, each with its line.
    pub copies: BTreeSet<(String, String)>,
    /// Segments of a line below this number.
    pub below: Vec<(String, u64)>,
    /// Lines of which all goes.
    pub lines: BTreeSet<String>,
}

/// What goes at `now`. `current` is the line that writes go to.
pub fn expired(catalogue: &Catalogue, current: &str, now: Timestamp, keep: Millis) -> Expired {
    let since = Timestamp(now.0.saturating_sub(keep.0));
    let newest_proved = newest_proved(catalogue);
    let is_newest = |line: &Line, copy: &Copy| {
        newest_proved == Some((line.name.as_str(), copy.base.id.as_str()))
    };
    let mut expired = Expired::default();
    for line in &catalogue.lines {
        let holds_newest = line.copies.iter().any(|copy| is_newest(line, copy));
        if line.name != current && line.last() < since && !holds_newest {
            expired.lines.insert(line.name.clone());
            continue;
        }
        let anchor = anchor(&line.copies, since);
        let goes = |(at, copy): (usize, &Copy)| {
            let own_newest = line.copies.iter().rposition(Copy::is_proved) == Some(at);
            (anchor.is_some_and(|anchor| at < anchor) && !is_newest(line, copy) && !own_newest)
                .then(|| copy.base.id.clone())
        };
        let going: BTreeSet<String> = line.copies.iter().enumerate().filter_map(goes).collect();
        let stays = line.copies.iter().filter(|copy| !going.contains(&copy.base.id));
        if let Some(first) = stays.map(|copy| copy.base.start.segment()).min() {
            expired.below.push((line.name.clone(), first));
        }
        expired.copies.extend(going.into_iter().map(|id| (line.name.clone(), id)));
    }
    expired
}

/// The place of the oldest copy that is needed; none where all are.
fn anchor(copies: &[Copy], since: Timestamp) -> Option<usize> {
    copies.iter().rposition(|copy| copy.base.ended <= since && !copy.is_damaged())
}

fn newest_proved(catalogue: &Catalogue) -> Option<(&str, &str)> {
    let all = catalogue.lines.iter().flat_map(|line| line.copies.iter().map(move |c| (line, c)));
    let proved = all.filter(|(_, copy)| copy.is_proved());
    let newest = proved.max_by_key(|(_, copy)| copy.base.ended);
    newest.map(|(line, copy)| (line.name.as_str(), copy.base.id.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::choice::tests::{catalogue, copy};

    #[test]
    fn the_copy_before_the_window_is_needed_and_those_before_it_are_not() {
        let copies = vec![copy(10, 1, None), copy(20, 2, None), copy(30, 3, None)];
        let found = expired(&catalogue(&[("a", copies)]), "a", Timestamp(35), Millis(10));
        assert_eq!(found.copies, [("a".to_owned(), "0010".to_owned())].into());
        assert_eq!(found.below, [("a".to_owned(), 2)]);
    }

    #[test]
    fn a_damaged_copy_stands_for_no_moment() {
        let copies = vec![copy(10, 1, Some(true)), copy(20, 2, Some(false)), copy(30, 3, None)];
        let found = expired(&catalogue(&[("a", copies)]), "a", Timestamp(35), Millis(10));
        assert_eq!(found, Expired { below: vec![("a".to_owned(), 1)], ..Expired::default() });
    }

    #[test]
    fn lines_that_were_left_go_when_they_are_old() {
        let lines = catalogue(&[
            ("a", vec![copy(10, 1, Some(true))]),
            ("b", vec![copy(50, 1, Some(true))]),
        ]);
        let found = expired(&lines, "b", Timestamp(60), Millis(20));
        assert_eq!(found.lines, ["a".to_owned()].into());
        let found = expired(&lines, "b", Timestamp(60), Millis(55));
        assert_eq!(found.lines, BTreeSet::new());
    }

    proptest! {
        /// Whatever is removed, each moment of the window that could be restored still can, and the
        /// newest proved copy is there.
        #[test]
        fn every_moment_of_the_window_stays(
            ends in proptest::collection::vec((1_u64..1_000, proptest::option::of(any::<bool>())), 1..12),
            keep in 1_u64..1_000,
            since in 0_u64..1_000,
        ) {
            let mut ends = ends;
            ends.sort_unstable();
            ends.dedup_by_key(|(at, _)| *at);
            let copies: Vec<Copy> =
                ends.iter().map(|(at, proved)| copy(*at, *at, *proved)).collect();
            let now = ends.last().unwrap().0 + since;
            let found = expired(&catalogue(&[("a", copies.clone())]), "a", Timestamp(now), Millis(keep));
            let kept: Vec<&Copy> = copies
                .iter()
                .filter(|copy| !found.copies.contains(&("a".to_owned(), copy.base.id.clone())))
                .collect();
            let floor = found.below[0].1;
            prop_assert!(kept.iter().all(|copy| copy.base.start.segment() >= floor));
            for moment in now.saturating_sub(keep)..=now {
                let serves = |copy: &Copy| copy.base.ended.0 <= moment && !copy.is_damaged();
                let could = copies.iter().any(serves);
                prop_assert_eq!(could, kept.iter().any(|copy| serves(copy)), "at {}", moment);
            }
            let newest = copies.iter().rfind(|copy| copy.is_proved());
            prop_assert!(newest.is_none_or(|newest| kept.contains(&newest)));
        }
    }
}
