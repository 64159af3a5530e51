//! Which copy and which part of the log restore a moment.

use kiln_model::quantity::Timestamp;

use crate::catalogue::{Catalogue, Copy, Line};
use crate::segment::Segment;

/// What is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// All that there is.
    Latest,
    /// What was acknowledged up to an instant.
    At(Timestamp),
    /// A copy as it was when it was whole.
    Copy(String),
}

impl std::str::FromStr for Moment {
    type Err = String;

    /// `latest`, an instant, or the name of a copy.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if is_id(text) {
            return Ok(Self::Copy(text.to_owned()));
        }
        text.parse::<Timestamp>().map(Self::At).map_err(|error| {
            format!("{error}, nor `latest`, nor the name of a backup, such as 20260501T133000")
        })
    }
}

/// Whether a text has the form of a copy's name.
pub fn is_id(text: &str) -> bool {
    let fits = |(at, b): (usize, u8)| if at == 8 { b == b'T' } else { b.is_ascii_digit() };
    text.len() == 15 && text.bytes().enumerate().all(fits)
}

/// What restores a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The line.
    pub line: &'a Line,
    /// The copy that is the beginning.
    pub copy: &'a Copy,
    /// The segments that come after, in order; on more than one timeline where there are some.
    pub segments: Vec<Segment>,
    /// The first segment after those that is missing, while later ones are there.
    pub gap: Option<Segment>,
}

/// Why nothing restores a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoChoice {
    /// There is nothing at all.
    #[error("there is no backup yet")]
    Nothing,
    /// No copy has that name.
    #[error("there is no backup {0}")]
    Unknown(String),
    /// All copies were made later.
    #[error("nothing before {first} can be restored, and {asked} is")]
    TooEarly {
        /// What was asked for.
        asked: Timestamp,
        /// When the first copy was whole.
        first: Timestamp,
    },
    /// A piece of the log is missing before the moment.
    #[error("segment {number} of the log is missing: {reaches} can be restored, and nothing after")]
    Gap {
        /// The name of the segment.
        number: String,
        /// When the last segment before it was put there.
        reaches: Timestamp,
    },
}

/// What restores a moment. `current` is the line that writes go to, where there is one. With `only`, copies
/// that are not it are passed over.
pub fn choose<'a>(
    catalogue: &'a Catalogue,
    current: Option<&str>,
    moment: &Moment,
) -> Result<Choice<'a>, NoChoice> {
    let all = || catalogue.lines.iter().flat_map(|line| line.copies.iter().map(move |c| (line, c)));
    let chosen = match moment {
        Moment::Copy(id) => {
            let found = all().find(|(_, copy)| copy.base.id == *id);
            let (line, copy) = found.ok_or_else(|| NoChoice::Unknown(id.clone()))?;
            let mut choice = with_log(line, copy);
            let last = copy.base.stop.last_segment();
            choice.segments.retain(|segment| segment.number <= last);
            choice.gap = choice.gap.filter(|gap| gap.number <= last);
            return Ok(choice);
        }
        Moment::Latest => {
            let own = |line: &&Line| current.is_none_or(|name| line.name == name);
            let own = catalogue.lines.iter().rfind(|line| own(line) && !line.copies.is_empty());
            let line = own.or_else(|| catalogue.lines.iter().rfind(|l| !l.copies.is_empty()));
            line.and_then(|line| Some((line, newest(line, Timestamp(u64::MAX))?)))
        }
        Moment::At(at) => {
            // The line that writes went to then: the last one that had begun.
            let mut begun = catalogue.lines.iter().rev().filter(|line| line.about.began <= *at);
            begun.find_map(|line| Some((line, newest(line, *at)?)))
        }
    };
    let Some((line, copy)) = chosen else {
        let first = all().map(|(_, copy)| copy.base.ended).min();
        return Err(match (moment, first) {
            (Moment::At(asked), Some(first)) => NoChoice::TooEarly { asked: *asked, first },
            _ => NoChoice::Nothing,
        });
    };
    let choice = with_log(line, copy);
    if let Some(gap) = choice.gap {
        let reaches = choice.segments.iter().filter_map(|it| line.segments.get(it)).max().copied();
        let reaches = reaches.unwrap_or(copy.base.ended);
        let lacks = match moment {
            Moment::At(at) => *at >= reaches,
            _ => true,
        };
        if lacks {
            return Err(NoChoice::Gap { number: gap.to_string(), reaches });
        }
    }
    Ok(choice)
}

/// The newest copy that was whole at an instant; one that is known to be damaged only where there is
/// no other.
fn newest(line: &Line, at: Timestamp) -> Option<&Copy> {
    let whole = || line.copies.iter().filter(|copy| copy.base.ended <= at);
    whole().rfind(|copy| !copy.is_damaged()).or_else(|| whole().next_back())
}

/// A copy with all of the log after it, as far as that goes without a gap.
pub fn with_log<'a>(line: &'a Line, copy: &'a Copy) -> Choice<'a> {
    let first = copy.base.start.segment();
    let gap = line.gap(first, copy.base.timeline);
    let wanted = |segment: &&Segment| {
        segment.number >= first
            && segment.timeline >= copy.base.timeline
            && gap.is_none_or(|gap| (segment.timeline, segment.number) < (gap.timeline, gap.number))
    };
    let mut segments: Vec<Segment> = line.segments.keys().filter(wanted).copied().collect();
    segments.sort_by_key(|segment| (segment.number, segment.timeline));
    Choice { line, copy, segments, gap }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::catalogue::{About, Base, Proof};
    use crate::segment::{Position, SIZE};

    pub(crate) fn copy(ended: u64, segment: u64, proved: Option<bool>) -> Copy {
        let base = Base {
            id: format!("{ended:04}"),
            began: Timestamp(ended.saturating_sub(1)),
            ended: Timestamp(ended),
            version: 15,
            system: 42,
            timeline: 1,
            start: Position(segment * SIZE + 40),
            stop: Position(segment * SIZE + 400),
            files: BTreeMap::new(),
        };
        let proof = proved.map(|good| Proof {
            at: Timestamp(ended),
            passed: Vec::new(),
            faults: if good { Vec::new() } else { vec!["data.tar.gz: cut off".to_owned()] },
        });
        Copy { base, proof }
    }

    /// Lines with a segment for each of ten numbers, put there at the number times ten.
    pub(crate) fn catalogue(lines: &[(&str, Vec<Copy>)]) -> Catalogue {
        let lines = lines.iter().map(|(name, copies)| Line {
            name: (*name).to_owned(),
            about: About {
                stack: "shop".parse().unwrap(),
                component: "database.orders".parse().unwrap(),
                version: 15,
                system: 42,
                began: copies.first().map_or(Timestamp(0), |copy| copy.base.began),
            },
            copies: copies.clone(),
            unfinished: BTreeSet::new(),
            segments: BTreeMap::new(),
            histories: Vec::new(),
            names: Vec::new(),
        });
        Catalogue { lines: lines.collect(), faults: Vec::new() }
    }

    fn with_segments(mut catalogue: Catalogue, numbers: &[u64]) -> Catalogue {
        for line in &mut catalogue.lines {
            let segments = numbers
                .iter()
                .map(|number| (Segment { timeline: 1, number: *number }, Timestamp(number * 10)));
            line.segments = segments.collect();
        }
        catalogue
    }

    #[test]
    fn a_moment_is_restored_from_the_copy_before_it() {
        let lines = vec![copy(10, 1, None), copy(20, 2, None), copy(30, 3, None)];
        let all = with_segments(catalogue(&[("a", lines)]), &[1, 2, 3, 4]);
        let at = |moment| choose(&all, Some("a"), &moment).unwrap();
        let choice = at(Moment::At(Timestamp(29)));
        assert_eq!(choice.copy.base.id, "0020");
        assert_eq!(choice.segments.first().unwrap().number, 2);
        assert_eq!(choice.segments.last().unwrap().number, 4);
        assert_eq!(at(Moment::Latest).copy.base.id, "0030");
        let choice = at(Moment::Copy("0010".to_owned()));
        assert_eq!(choice.segments, [Segment { timeline: 1, number: 1 }]);
        let early = choose(&all, Some("a"), &Moment::At(Timestamp(9))).unwrap_err();
        assert_eq!(early, NoChoice::TooEarly { asked: Timestamp(9), first: Timestamp(10) });
    }

    #[test]
    fn what_is_damaged_is_passed_over() {
        let lines = vec![copy(10, 1, Some(true)), copy(20, 2, Some(false))];
        let all = with_segments(catalogue(&[("a", lines)]), &[1, 2, 3]);
        assert_eq!(choose(&all, None, &Moment::Latest).unwrap().copy.base.id, "0010");
    }

    #[test]
    fn a_gap_ends_what_can_be_restored_and_is_named() {
        let lines = vec![copy(10, 1, None)];
        let all = with_segments(catalogue(&[("a", lines)]), &[1, 2, 4, 5]);
        let told = choose(&all, Some("a"), &Moment::Latest).unwrap_err();
        let number = "000000010000000000000003".to_owned();
        assert_eq!(told, NoChoice::Gap { number, reaches: Timestamp(20) });
        let choice = choose(&all, Some("a"), &Moment::At(Timestamp(15))).unwrap();
        let three = Segment { timeline: 1, number: 3 };
        assert_eq!((choice.segments.len(), choice.gap), (2, Some(three)));
        // A copy holds all that it needs.
        let choice = choose(&all, Some("a"), &Moment::Copy("0010".to_owned())).unwrap();
        assert_eq!(choice.gap, None);
    }

    #[test]
    fn each_timeline_goes_on_where_the_one_before_was_left() {
        let line = |segments: &[(u32, u64)]| {
            let mut all = catalogue(&[("a", vec![copy(10, 1, None)])]);
            let segments = segments.iter().map(|(timeline, number)| {
                (Segment { timeline: *timeline, number: *number }, Timestamp(number * 10))
            });
            all.lines[0].segments = segments.collect();
            all.lines.remove(0).gap(1, 1).map(|it| (it.timeline, it.number))
        };
        // The one that was left wrote a little more before it ended.
        assert_eq!(line(&[(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (2, 4)]), None);
        assert_eq!(line(&[(1, 1), (1, 2), (2, 3), (2, 4)]), None);
        assert_eq!(line(&[(1, 1), (1, 2), (1, 3), (2, 2), (2, 4)]), Some((2, 3)));
        assert_eq!(line(&[(1, 1), (2, 3)]), Some((2, 2)));
        assert_eq!(line(&[(1, 2)]), Some((1, 1)));
    }

    #[test]
    fn a_moment_before_a_restore_is_in_the_line_that_was_left() {
        let lines = [("a", vec![copy(10, 1, None)]), ("b", vec![copy(50, 1, None)])];
        let all = with_segments(catalogue(&lines), &[1, 2]);
        assert_eq!(choose(&all, Some("b"), &Moment::At(Timestamp(30))).unwrap().line.name, "a");
        assert_eq!(choose(&all, Some("b"), &Moment::At(Timestamp(60))).unwrap().line.name, "b");
        assert_eq!(choose(&all, Some("a"), &Moment::Latest).unwrap().line.name, "a");
    }

    #[test]
    fn words_are_read() {
        assert_eq!("latest".parse(), Ok(Moment::Latest));
        assert_eq!("20260501T133000".parse(), Ok(Moment::Copy("20260501T133000".to_owned())));
        let at = "2026-05-01T13:30:00Z".parse().unwrap();
        assert_eq!("2026-05-01T13:30:00Z".parse(), Ok(Moment::At(at)));
        assert!("soon".parse::<Moment>().unwrap_err().contains("latest"));
    }
}
