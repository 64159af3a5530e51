//! Who follows whom, as each primary said it last.
//!
//! What a primary that is gone said last still holds: what follows it then has all that it had
//! acknowledged, where writes only counted by being there.

use std::collections::BTreeMap;
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
}

impl Follows {
    /// Takes in what an instance says of those who follow it.
    pub(super) fn heard(&self, primary: &InstanceId, state: &State) {
        let mut follows = lock(&self.0);
        follows.retain(|_, followed| followed.primary != *primary);
        let streaming = state.followers.iter().filter(|follower| follower.streams);
        // A name that is none is that of a copy being made.
        follows.extend(streaming.filter_map(|follower| {
            let (primary, synchronous) = (primary.clone(), follower.synchronous);
            Some((follower.name.parse().ok()?, Followed { primary, synchronous }))
        }));
    }

    pub(super) fn of(&self, id: &InstanceId) -> Option<Followed> {
        lock(&self.0).get(id).cloned()
    }

    /// Forgets instances that are gone.
    pub(super) fn keep(&self, here: impl Fn(&InstanceId) -> bool) {
        lock(&self.0).retain(|id, _| here(id));
    }
}

#[cfg(test)]
mod tests {
    use kiln_database::Follower;
    use kiln_model::data::Role;

    use super::*;

    fn state(names: &[&str]) -> State {
        let follower =
            |name: &&str| Follower { name: (*name).to_owned(), streams: true, synchronous: true };
        let followers = names.iter().map(follower).collect();
        State { role: Role::Primary, position: 1, receives: false, followers }
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
        follows.keep(|known| *known != id("b"));
        assert_eq!(primary("b"), None);
    }
}
