//! How an instance is shown that is being made.

use std::sync::Arc;

use kiln_model::name::InstanceId;
use kiln_model::observed::{ObservedInstance, Phase, Verdict};

use super::{Begun, Course, DataLabels, Making, lock};

pub(super) fn shown(
    id: &InstanceId,
    begun: Begun,
    making: Option<&Arc<Making>>,
) -> ObservedInstance {
    let course = making.map(|making| lock(&making.course).clone());
    let health = match course {
        Some(Course::UnderWay(stage)) => Verdict::Starting { last: Some(stage.to_owned()) },
        Some(Course::Failed { since, reason, .. }) => Verdict::Dead { since, reason },
        Some(Course::Over) => Verdict::Starting { last: None },
        None => Verdict::Dead {
            since: begun.at,
            reason: "the daemon ended while it was being made".to_owned(),
        },
    };
    ObservedInstance {
        id: id.clone(),
        component: begun.labels.component,
        digest: begun.labels.digest,
        generation: begun.labels.generation,
        network: begun.labels.network,
        address: begun.address,
        connects: begun.labels.connects,
        created_at: begun.at,
        pid: None,
        phase: Phase::Running,
        health,
        draining_since: begun.draining_since,
        in_flight: 0,
        answers: kiln_model::analysis::Answers::default(),
        integrity: None,
        // Nobody else may have it.
        data: begun.labels.data.map(DataLabels::observed),
        drift: Vec::new(),
    }
}
