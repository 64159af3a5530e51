//! Which alarms were raised of late, so that one that lasts does not ring without end.

use std::collections::BTreeMap;

use kiln_model::alarm::{Alarm, Cause, Hooks};
use kiln_model::name::{ComponentId, StackName};
use kiln_model::quantity::{Millis, Timestamp};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failure::RECENT;

/// An alarm that somebody is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// When it was raised.
    pub at: Timestamp,
    /// The stack that is concerned.
    pub stack: StackName,
    /// The generation that the stack is held to, where there is one.
    pub generation: Option<u64>,
    /// What it is.
    pub alarm: Alarm,
    /// Whom to tell.
    pub hooks: Hooks,
}

/// What a webhook and a command get of an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "alarm")]
pub struct AlarmDocument {
    /// `drift`, `storm`, `crash_loop`, `abandoned` or `tampered`.
    pub cause: String,
    /// The stack that is concerned.
    pub stack: String,
    /// The component that is concerned, where it is one.
    pub component: Option<String>,
    /// What happened, in words.
    pub what: String,
    /// The generation that the stack is held to, where there is one.
    pub generation: Option<u64>,
    /// When it was raised, RFC 3339 in UTC.
    pub at: String,
}

impl AlarmDocument {
    /// The document of an alarm.
    pub fn of(raised: &Raised) -> Self {
        let Raised { at, stack, generation, alarm, .. } = raised;
        Self {
            cause: alarm.cause.name().to_owned(),
            stack: stack.to_string(),
            component: alarm.component.as_ref().map(ToString::to_string),
            what: alarm.what.clone(),
            generation: *generation,
            at: at.to_string(),
        }
    }
}

/// The last alarm of each cause and component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alarms {
    last: BTreeMap<(Cause, Option<ComponentId>), (Timestamp, String)>,
}

impl Alarms {
    /// One more was raised.
    pub fn raised(&mut self, at: Timestamp, alarm: &Alarm) {
        let key = (alarm.cause, alarm.component.clone());
        self.last.insert(key, (at, alarm.what.clone()));
    }

    /// Whether an alarm is to be raised, or was so shortly before that it is known.
    pub fn is_due(&self, alarm: &Alarm, now: Timestamp) -> bool {
        let Some((at, _)) = self.last.get(&(alarm.cause, alarm.component.clone())) else {
            return true;
        };
        // A clock that was set back must not keep alarms from being raised.
        now < *at || now.since(*at) >= rest(alarm.cause)
    }

    /// Those of the last ten minutes, the newest first.
    pub fn recent(&self, now: Timestamp) -> Vec<(Timestamp, Alarm)> {
        let recent = self.last.iter().filter(|(_, (at, _))| now.since(*at) < RECENT);
        let mut recent: Vec<(Timestamp, Alarm)> = recent
            .map(|((cause, component), (at, what))| {
                let (cause, component, what) = (*cause, component.clone(), what.clone());
                (*at, Alarm { cause, component, what })
            })
            .collect();
        recent.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        recent
    }
}

/// For how long an alarm of the same cause and component is not raised again.
fn rest(cause: Cause) -> Millis {
    match cause {
        Cause::Drift => Millis::seconds(60),
        Cause::Storm | Cause::CrashLoop => RECENT,
        // Each is another.
        Cause::Abandoned | Cause::Tampered | Cause::Backup => Millis(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_that_lasts_is_raised_now_and_then_and_others_at_once() {
        let component = |name: &str| Some(name.parse().unwrap());
        let alarm = |cause, name| Alarm { cause, component: component(name), what: String::new() };
        let drift = alarm(Cause::Drift, "server.web");
        let mut alarms = Alarms::default();
        assert!(alarms.is_due(&drift, Timestamp(1_000_000)));
        alarms.raised(Timestamp(1_000_000), &drift);
        assert!(!alarms.is_due(&drift, Timestamp(1_059_999)));
        assert!(alarms.is_due(&drift, Timestamp(1_060_000)));
        assert!(alarms.is_due(&drift, Timestamp(999_999)), "the clock was set back");
        assert!(alarms.is_due(&alarm(Cause::Drift, "server.api"), Timestamp(1_000_001)));
        assert!(alarms.is_due(&alarm(Cause::Storm, "server.web"), Timestamp(1_000_001)));
        assert_eq!(alarms.recent(Timestamp(1_599_999)).len(), 1);
        assert_eq!(alarms.recent(Timestamp(1_600_000)).len(), 0);
    }

    #[test]
    fn each_rollout_that_is_given_up_is_told_of() {
        let alarm = Alarm { cause: Cause::Abandoned, component: None, what: String::new() };
        let mut alarms = Alarms::default();
        alarms.raised(Timestamp(5), &alarm);
        assert!(alarms.is_due(&alarm, Timestamp(5)));
    }
}
