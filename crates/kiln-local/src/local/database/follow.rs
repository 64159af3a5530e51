//! Who follows whom, as each primary said it last.
//!
//! What a primary that is gone said last still holds: what follows it then has all that it had
//! acknowledged, where writes only counted by being there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use kiln_database::State;
use kiln_model::name::InstanceId;

use super::lock;

/// By the one that follows.
#[derive(Debug, Default)]
pub(super) struct Follows(Mutex<BTreeMap<InstanceId, Followed>>);

/// Whom an instance follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Followed {
    pub(super) primary: InstanceId,
    /// Whether writes count by being there.
    pub(super) synchronous: bool,
    /// How far it has confirmed to have all, in bytes of the primary's log.
    pub(super) position: Option<u64>,
}

impl Follows {
    /// Takes in what an instance says of those who follow it.
    pub(super) fn heard(&self, primary: &InstanceId, state: &State) {
        let mut follows = lock(&self.0);
        follows.retain(|_, followed| followed.primary != *primary);
        let streaming = || state.followers.iter().filter(|follower| follower.streams);
        // A write may have counted by being with one that takes rows, of whatever tables.
        let sure = !streaming().any(|follower| follower.takes_rows && follower.synchronous);
        // A name that is none is that of a copy being made.
        follows.extend(streaming().filter_map(|follower| {
            let (primary, synchronous) = (primary.clone(), follower.synchronous && sure);
            let position = follower.position;
            Some((follower.name.parse().ok()?, Followed { primary, synchronous, position }))
        }));
    }

    pub(super) fn of(&self, id: &InstanceId) -> Option<Followed> {
        lock(&self.0).get(id).cloned()
    }

    /// Forgets instances that are gone. A write counts when one of those has it that its primary
    /// waits for, whichever that is: where one of them does not answer, nothing is known of the
    /// others until their primary says it again.
    pub(super) fn keep(
        &self,
        here: impl Fn(&InstanceId) -> bool,
        answers: impl Fn(&InstanceId) -> bool,
    ) {
        let mut follows = lock(&self.0);
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
        let follower = |name: &&str| Follower {
            name: (*name).to_owned(),
            streams: true,
            synchronous: true,
            takes_rows: false,
            position: Some(1),
        };
        let followers = names.iter().map(follower).collect();
        State { role: Role::Primary, position: 1, receives: false, takes_over: false, followers }
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
        assert!(sure("b"));
    }
}
