//! Going over to another branch of the data.
//!
//! An instance is made with what the branch begins with, or from the volume in which it ended where
//! it is gone back to. Writes go over to it as to a standby, by hold and fence; only what the two
//! hold is not compared, since it is meant to differ. The volume that writes went to until then is
//! kept as the end of its branch. Until the new one is named, the way back is open.

use crate::data::{BranchOrigin, DataOrigin, Role};
use crate::observed::ObservedInstance;

use super::{Need, Reason, Scene, Seat, count, said};

impl<'a> Scene<'a> {
    /// Whether an instance holds data of another branch than the head's.
    pub(super) fn is_aside(&self, instance: &ObservedInstance) -> bool {
        let branch = instance.data.as_ref().map(|data| data.branch);
        self.head.is_some_and(|head| Some(head.branch) != branch)
    }

    /// Whether the data is to go on in another branch than it is in.
    pub(super) fn turns(&self) -> bool {
        self.head.is_some_and(|head| head.branch != self.branch.number)
    }

    /// Those with data of the branch that it is to go on in, as the generation wants them.
    fn candidates(&self) -> impl Iterator<Item = &'a ObservedInstance> {
        let of_branch = |i: &&&'a ObservedInstance| {
            self.is_fresh(i)
                && i.data.as_ref().is_some_and(|data| data.branch == self.branch.number)
                && said(i).is_none_or(|said| said.role == Role::Primary)
        };
        self.aside.iter().filter(of_branch).copied()
    }

    /// Who is to take writes now, on the way to another branch.
    pub(super) fn turn(&self) -> Seat {
        let next = self.candidates().find(|i| i.is_ready() && said(i).is_some());
        let holder = self.holder.filter(|holder| holder.is_ready());
        let restoring = Reason::Restoring { branch: self.branch.number };
        if let (Some(unheard), None) = (self.holder, holder)
            && self.route.is_some_and(|route| route.primary.as_ref() == Some(&unheard.id))
        {
            return self.unheard(unheard);
        }
        match (next, holder) {
            (Some(next), Some(holder)) => self.switch(holder, next, None),
            (Some(next), None) => {
                // Nobody to be held: what is there of the one before is cut off first.
                let fenced = self.route.is_none_or(|route| route.primary.is_none());
                if fenced { Seat::of(next, None) } else { Seat::empty(Reason::SwitchingOver) }
            }
            (None, Some(holder)) => Seat::of(holder, Some(restoring)),
            (None, None) => match self.holder {
                Some(_) => Seat::empty(Reason::Recovering),
                None => Seat { pending: Some(restoring), ..self.after_loss() },
            },
        }
    }

    /// The instance that is missing for going over to another branch.
    pub(super) fn opening(&mut self) -> Option<Need> {
        if !self.turns() || count(self.candidates()) > 0 {
            return None;
        }
        let branch = self.branch.number;
        let volumes = || self.maker.observed.volumes.iter().filter(|v| v.component == *self.id);
        let tip = volumes().find(|v| v.branch == branch && v.tip);
        let origin_of = || match &self.branch.from {
            BranchOrigin::Volume { volume, .. } => volumes().find(|v| v.id == *volume),
            BranchOrigin::Beginning | BranchOrigin::Backup { .. } | BranchOrigin::Discarded => None,
        };
        let wanted = self.database.identity.version;
        if let Some(other) = tip.or_else(origin_of).filter(|volume| volume.version != wanted) {
            self.held = Some((Reason::OtherVersion { data: other.version, wanted }, None));
            return None;
        }
        let origin = match tip {
            Some(tip) => {
                let holds = |i: &&&ObservedInstance| {
                    i.data.as_ref().is_some_and(|data| data.volume == tip.id)
                };
                // Two must never hold one volume.
                if self.all.iter().any(|i| holds(&i)) {
                    return None;
                }
                DataOrigin::Volume { volume: tip.id.clone() }
            }
            None => DataOrigin::Branch { from: self.branch.from.clone() },
        };
        Some(Need { origin, branch, because: Reason::OtherBranch { branch } })
    }

    /// Those with data of a branch that is of no use on the way to another.
    pub(super) fn useless_aside(&self) -> Vec<(&'a ObservedInstance, Reason)> {
        if !self.turns() {
            return Vec::new();
        }
        let kept: Vec<_> = self.candidates().map(|i| &i.id).collect();
        // The oldest of those that would do is enough.
        let useless = self.aside.iter().filter(|i| kept.first() != Some(&&i.id));
        useless.map(|i| (*i, Reason::NotWanted)).collect()
    }
}
