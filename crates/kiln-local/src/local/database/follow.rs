//! Who follows whom, as each primary said it last.
//!
//! What a primary that is gone said last still holds: what follows it then has all that it had
//! acknowledged, where writes only counted by being there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use kiln_database::State;
use kiln_model::name::InstanceId;

use super::lock;

/// By the one that follows, and by the primary.
#[derive(Debug, Default)]
pub(super) struct Follows(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_follower: BTreeMap<InstanceId, Followed>,
    quorums: BTreeMap<InstanceId, Quorum>,
}

/// Those of whom each write of a primary is in one.
#[derive(Debug, Default)]
struct Quorum {
    members: BTreeSet<InstanceId>,
    doubt: Doubt,
}

/// Whether the members have, together, all that was acknowledged. One that went may have been the only
/// one with a write, and one that stays may lag: so after each going, and in the beginning, one of them
/// has to have come as far as the primary was after that.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// How far the primary is has to be heard first.
    #[default]
    Fresh,
    /// One of them has to come so far.
    Until(u64),
    None,
}

impl Quorum {
    /// Takes in one report.
    fn heard(&mut self, state: &State, members: BTreeMap<InstanceId, u64>, by_rows: bool) {
        // What was read of followers and of the position in one report is not of one moment.
        self.doubt = match self.doubt {
            Doubt::Fresh => Doubt::Until(state.position),
            doubt => doubt,
        };
        if let Doubt::Until(position) = self.doubt
            && members.values().any(|has| *has >= position)
        {
            self.doubt = Doubt::None;
        }
        if by_rows || self.members.iter().any(|member| !members.contains_key(member)) {
            self.doubt = Doubt::Fresh;
        }
        self.members = members.into_keys().collect();
    }
}

/// Whom an instance follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Followed {
    pub(super) primary: InstanceId,
    /// Whether writes count by being there, and all that counted so far is in those of whom this is so.
    pub(super) synchronous: bool,
    /// How far it has confirmed to have all, in bytes of the primary's log.
    pub(super) position: Option<u64>,
}

impl Follows {
    /// Takes in what an instance says of those who follow it.
    pub(super) fn heard(&self, primary: &InstanceId, state: &State) {
        let mut known = lock(&self.0);
        let Known { by_follower, quorums } = &mut *known;
        by_follower.retain(|_, followed| followed.primary != *primary);
        let streaming = state.followers.iter().filter(|follower| follower.streams);
        // A name that is none is that of a copy being made.
        let named = streaming.filter_map(|it| Some((it.name.parse::<InstanceId>().ok()?, it)));
        let named: Vec<_> = named.collect();
        let synchronous = || named.iter().filter(|(_, follower)| follower.synchronous);
        let members = synchronous().map(|(id, it)| (id.clone(), it.position.unwrap_or(0)));
        let members = members.collect();
        // A write may have counted by being with one that takes rows, of whatever tables.
        let by_rows = synchronous().any(|(_, follower)| follower.takes_rows);
        let quorum = quorums.entry(primary.clone()).or_default();
        quorum.heard(state, members, by_rows);
        by_follower.extend(named.into_iter().map(|(id, follower)| {
            let synchronous = follower.synchronous && quorum.doubt == Doubt::None;
            let position = follower.position;
            (id, Followed { primary: primary.clone(), synchronous, position })
        }));
    }

    pub(super) fn of(&self, id: &InstanceId) -> Option<Followed> {
        lock(&self.0).by_follower.get(id).cloned()
    }

    /// Forgets instances that are gone. A write counts when one of those has it that its primary
    /// waits for, whichever that is: where one of them does not answer, nothing is known of the
    /// others until their primary says it again.
    pub(super) fn keep(
        &self,
        here: impl Fn(&InstanceId) -> bool,
        answers: impl Fn(&InstanceId) -> bool,
    ) {
        let mut known = lock(&self.0);
        known.quorums.retain(|id, _| here(id));
        let follows = &mut known.by_follower;
        let silent = follows.iter().filter(|(id, followed)| followed.synchronous && !answers(id));
        let doubtful: BTreeSet<InstanceId> =
            silent.map(|(_, followed)| followed.primary.clone()).collect();
        follows.retain(|id, _| here(id));
        for followed in follows.values_mut() {
            followed.synchronous &= !doubtful.contains(&followed.primary);
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_database::Follower;
    use kiln_model::data::Role;

    use super::*;

    fn state(names: &[&str]) -> State {
        let follower = |name: &&str| follower(name, 1);
        state_at(1, names.iter().map(follower).collect())
    }

    fn state_at(position: u64, followers: Vec<Follower>) -> State {
        State { role: Role::Primary, position, receives: false, takes_over: false, followers }
    }

    fn follower(name: &str, position: u64) -> Follower {
        Follower {
            name: name.to_owned(),
            streams: true,
            synchronous: true,
            takes_rows: false,
            position: Some(position),
        }
    }

    #[test]
    fn one_that_lags_counts_when_it_has_what_one_that_went_may_have_had() {
        let follows = Follows::default();
        let id = |text: &str| text.parse::<InstanceId>().unwrap();
        let sure = |text: &str| follows.of(&id(text)).is_some_and(|it| it.synchronous);
        let both = |b, c| state_at(20, vec![follower("b", b), follower("c", c)]);
        follows.heard(&id("a"), &both(20, 5));
        assert!(sure("b") && sure("c"), "one of them has all");
        follows.heard(&id("a"), &state_at(22, vec![follower("c", 5)]));
        assert!(!sure("c"), "b may have been the only one that had it");
        follows.heard(&id("a"), &state_at(25, vec![follower("c", 21)]));
        follows.heard(&id("a"), &state_at(40, vec![follower("c", 24)]));
        assert!(!sure("c"));
        follows.heard(&id("a"), &state_at(50, vec![follower("c", 25)]));
        assert!(sure("c"), "it has all that could be acknowledged while b was there");
        // One that comes takes nothing away.
        follows.heard(&id("a"), &state_at(60, vec![follower("c", 60), follower("d", 3)]));
        assert!(sure("c") && sure("d"));
    }

    #[test]
    fn the_last_word_of_each_primary_counts() {
        let follows = Follows::default();
        let id = |text: &str| text.parse::<InstanceId>().unwrap();
        let primary = |text: &str| follows.of(&id(text)).map(|followed| followed.primary);
        follows.heard(&id("a"), &state(&["b", "c", "copy of d"]));
        assert_eq!((primary("b"), primary("c")), (Some(id("a")), Some(id("a"))));
        follows.heard(&id("a"), &state(&["b"]));
        assert_eq!((primary("b"), primary("c")), (Some(id("a")), None));
        // One that another says it has is the other's, whatever the first one said.
        follows.heard(&id("e"), &state(&["b"]));
        follows.heard(&id("a"), &state(&[]));
        assert_eq!(primary("b"), Some(id("e")));
        follows.keep(|known| *known != id("b"), |_| true);
        assert_eq!(primary("b"), None);
    }

    #[test]
    fn with_one_that_takes_rows_nothing_is_sure() {
        let follows = Follows::default();
        let id = |text: &str| text.parse::<InstanceId>().unwrap();
        let mut told = state(&["b", "c"]);
        told.followers[1].takes_rows = true;
        told.followers[1].position = Some(7);
        follows.heard(&id("a"), &told);
        assert!(!follows.of(&id("b")).unwrap().synchronous);
        assert_eq!(follows.of(&id("c")).unwrap().position, Some(7));
    }

    #[test]
    fn all_that_writes_wait_for_have_to_answer() {
        let follows = Follows::default();
        let id = |text: &str| text.parse::<InstanceId>().unwrap();
        let sure = |text: &str| follows.of(&id(text)).is_some_and(|it| it.synchronous);
        follows.heard(&id("a"), &state(&["b", "c"]));
        follows.keep(|_| true, |_| true);
        assert!(sure("b") && sure("c"));
        follows.keep(|known| *known != id("c"), |known| *known != id("c"));
        assert!(!sure("b"), "the other may have had what it lacks");
        follows.heard(&id("a"), &state(&["b"]));
        assert!(!sure("b"), "how far the primary is since then is to be heard first");
        follows.heard(&id("a"), &state(&["b"]));
        assert!(sure("b"));
    }
}
