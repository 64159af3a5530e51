//! How the data of a database goes over to a newer major version of its engine.
//!
//! An older version's files are of no use to a newer one, so the new instance has a volume of its
//! own, and receives rows instead of bytes of the log. It says how far it has come in terms of the
//! old one's log, so that writes go over by the same hold, fence and comparison as to a standby.
//! Standbys beside it can only be its own: they are made before writes go over, so that none has to
//! wait for one afterwards.
//!
//! Until it is named, the old one has everything. If that is lost meanwhile, it can only be
//! recovered as what it was: the change is called off. Once the new one has taken a write there is
//! no way back, as nothing leads from a newer version to an older.

use crate::data::DataOrigin;
use crate::generation::Generation;
use crate::observed::{Observed, ObservedInstance};
use crate::plan::Reason;

use super::{ObservedVolume, Scene, count, said};

/// Whether an instance takes the data over from one of an older major version.
pub(super) fn takes_over(instance: &ObservedInstance) -> bool {
    matches!(origin(instance), Some(DataOrigin::Upgrade { .. }))
}

fn origin(instance: &ObservedInstance) -> Option<&DataOrigin> {
    instance.data.as_ref()?.origin.as_ref()
}

/// Whether the data of a database has gone over to a newer major version in this rollout, so that
/// the generation before it cannot be had any more.
pub(in crate::plan) fn is_past_return(desired: &Generation, observed: &Observed) -> bool {
    let arrived = |version: u32, volume: &ObservedVolume| {
        let before = observed.versions_before.get(&volume.component);
        volume.head && volume.version == version && before.is_some_and(|before| *before < version)
    };
    observed.rollout.is_some()
        && desired.content.databases().any(|(id, _, database)| {
            let mut volumes = observed.volumes.iter().filter(|volume| volume.component == *id);
            volumes.any(|volume| arrived(database.identity.version, volume))
        })
}

impl<'a> Scene<'a> {
    /// Whether the data is of another version than the generation wants it to go on in.
    fn crosses(&self) -> bool {
        let wanted = self.database.identity.version;
        self.head.is_some_and(|head| head.version != wanted) && !self.turns()
    }

    /// Whether an instance's data has nothing to do with the head's any more: it was to take over
    /// from an older version, or follows one that was.
    pub(super) fn is_left_behind(&self, instance: &ObservedInstance) -> bool {
        let Some(head) = self.head.filter(|_| !self.crosses()) else { return false };
        let Some(data) = &instance.data else { return false };
        let mut volumes = self.maker.observed.volumes.iter();
        let volume = volumes.find(|v| v.component == *self.id && v.id == data.volume);
        let foreign = volume.is_some_and(|volume| volume.version != head.version);
        data.volume != head.id && (foreign || takes_over(instance))
    }

    /// The one that takes the data over.
    fn taker(&self) -> Option<&'a ObservedInstance> {
        let takers = self.fresh.iter().copied().filter(|i| takes_over(i));
        takers.min_by_key(|i| (!i.is_ready(), i.created_at, i.id.clone()))
    }

    /// Whether an instance belongs to what takes the data over: as it, or as one of its standbys.
    fn is_of_the_taker(&self, instance: &ObservedInstance) -> bool {
        self.taker().is_some_and(|taker| match origin(instance) {
            Some(DataOrigin::Standby { of }) => *of == taker.id,
            _ => instance.id == taker.id,
        })
    }

    /// Those as wanted that are of no use on the way to another version.
    pub(super) fn astray(&self) -> Vec<(&'a ObservedInstance, Reason)> {
        if !self.crosses() {
            return Vec::new();
        }
        let astray = self.fresh.iter().filter(|i| !self.is_of_the_taker(i));
        astray.map(|i| (*i, Reason::Replaced)).collect()
    }

    /// Whether one that may take over has the standbys that it needs from its first write on.
    pub(super) fn is_accompanied(&self, instance: &ObservedInstance) -> bool {
        if !self.crosses() {
            return true;
        }
        let follow = self.fresh.iter().filter(|i| {
            i.is_ready() && said(i).and_then(|s| s.follows.as_ref()) == Some(&instance.id)
        });
        takes_over(instance) && count(follow) >= self.database.policy.replicas
    }

    /// What is to be made for data that is of another version; nothing where it cannot go over.
    pub(super) fn towards(
        &mut self,
        head: &ObservedVolume,
        holder: Option<&ObservedInstance>,
    ) -> Option<(u32, DataOrigin, Reason)> {
        let wanted = self.database.identity.version;
        let Some(holder) = holder.filter(|_| head.version < wanted) else {
            self.held = Some((Reason::OtherVersion { data: head.version, wanted }, None));
            return None;
        };
        let because = self.why_standby(holder);
        let Some(taker) = self.taker() else {
            let origin = DataOrigin::Upgrade { of: holder.id.clone() };
            return Some((u32::from(holder.is_ready()), origin, because));
        };
        let here = count(self.fresh.iter().filter(|i| self.is_of_the_taker(i)));
        let missing = if taker.is_ready() { self.standbys().saturating_sub(here) } else { 0 };
        Some((missing, DataOrigin::Standby { of: taker.id.clone() }, because))
    }

    /// Why the change cannot come about any more: the one that had the data of the older version
    /// is gone, and only the generation before can recover it.
    pub(super) fn stranded(&self) -> Option<Reason> {
        let (head, wanted) = (self.head?, self.database.identity.version);
        (head.version < wanted && !self.turns()).then(|| Reason::Worse {
            what: format!(
                "the instance with the data of version {} was lost before that went over to \
                 version {wanted}",
                head.version
            ),
        })
    }
}
