//! What a keeper last saw, as documents.

use std::collections::BTreeSet;

use kiln_engine::engine::Snapshot;
use kiln_model::data::ObservedVolume;
use kiln_model::generation::Generation;
use kiln_model::name::{ComponentId, Kind};
use kiln_model::observed::{CRASH_LOOP, Drift, ObservedInstance, ObservedNetwork, Pace, Verdict};
use kiln_model::plan::Outcome;
use kiln_model::quantity::Timestamp;
use kiln_model::spec::scale::Scale;
use kiln_model::spec::{Body, Spec};

use crate::api::document;
use crate::api::follows::Following;

/// The state of a stack. `active` is the generation that serves.
pub(super) fn status(snapshot: &Snapshot, active: Option<&Generation>) -> document::Status {
    let Snapshot { desired, observed, report, state, trouble, .. } = snapshot;
    let ids: BTreeSet<&ComponentId> = desired
        .content
        .components
        .keys()
        .chain(observed.instances.iter().map(|i| &i.component))
        .chain(observed.networks.iter().map(|n| &n.component))
        .collect();
    let components: Vec<document::Component> =
        ids.into_iter().map(|id| component(id, snapshot)).collect();
    let sound = components.iter().all(is_sound);
    let going = !matches!(report.outcome, Outcome::Expired | Outcome::Worse) && trouble.is_none();
    document::Status {
        stack: desired.stack.to_string(),
        generation: state.active,
        commit: active.and_then(|g| g.commit.clone()),
        healthy: state.active.is_some() && sound && going,
        measured_at: observed.at.to_string(),
        rollout: state.rollout.as_ref().map(|rollout| document::Rollout {
            generation: rollout.generation,
            started_at: rollout.started.to_string(),
            deadline: rollout.deadline.to_string(),
        }),
        pinned: state.pin,
        trouble: trouble.clone(),
        alarms: alarms(snapshot),
        follow: None,
        components,
    }
}

fn alarms(snapshot: &Snapshot) -> Vec<document::Alarm> {
    let recent = snapshot.state.alarms.recent(snapshot.observed.at);
    let document = |(at, alarm): (Timestamp, kiln_model::alarm::Alarm)| document::Alarm {
        at: at.to_string(),
        cause: alarm.cause.name().to_owned(),
        component: alarm.component.map(|component| component.to_string()),
        what: alarm.what,
    };
    recent.into_iter().map(document).collect()
}

/// Adds what follows a branch. Where the branch has moved on without changing anything of the stack,
/// the newest such commit is the one that serves.
pub(super) fn add_following(status: &mut document::Status, following: Option<Following>) {
    let Some(following) = following else { return };
    if let Some(newest) = following.results.iter().find(|result| result.serves())
        && newest.generation == status.generation
    {
        status.commit = Some(newest.commit.clone());
    }
    let last = following.results.into_iter().next();
    status.follow = Some(document::Branch {
        url: following.url,
        branch: following.branch,
        path: following.path,
        phase: following.phase,
        commit: following.commit,
        trouble: following.trouble,
        last,
    });
}

/// Whether a component has what it wants and nothing differs.
fn is_sound(component: &document::Component) -> bool {
    component.replicas.as_ref().is_none_or(|r| r.ready >= r.wanted)
        && component.instances.iter().all(|i| i.drift.is_empty())
}

/// What differs in a stack.
pub(super) fn drift(snapshot: &Snapshot) -> document::Drift {
    let observed = &snapshot.observed;
    let networks = observed.networks.iter().map(|n| (&n.component, &n.id, &n.drift));
    let instances = observed.instances.iter().map(|i| (&i.component, &i.id, &i.drift));
    let drifted = networks.chain(instances).filter(|(_, _, drift)| !drift.is_empty());
    document::Drift {
        stack: snapshot.desired.stack.to_string(),
        generation: snapshot.state.aim(),
        measured_at: observed.at.to_string(),
        drift: drifted
            .map(|(component, id, drift)| document::Drifted {
                kind: component.kind.to_string(),
                name: component.name.clone(),
                instance: id.to_string(),
                differences: differences(drift),
            })
            .collect(),
    }
}

fn component(id: &ComponentId, snapshot: &Snapshot) -> document::Component {
    let (desired, observed) = (&snapshot.desired, &snapshot.observed);
    let declared = desired.content.components.get(id);
    let of_servers = observed.instances.iter().filter(|i| i.component == *id);
    let of_networks = observed.networks.iter().filter(|n| n.component == *id);
    let digest = declared
        .map(|c| c.digest)
        .or_else(|| observed.instances.iter().find(|i| i.component == *id).map(|i| i.digest))
        .or_else(|| observed.networks.iter().find(|n| n.component == *id).map(|n| n.digest));
    // What the last change replaced may be kept for a while: it is not among those wanted.
    let counts = |i: &&&ObservedInstance| {
        observed.rollout.is_some() || declared.is_none_or(|c| c.digest == i.digest)
    };
    let serving = of_servers.clone().filter(|i| i.is_ready() && i.draining_since.is_none());
    let ready = serving.filter(|i| counts(&i)).count();
    let policy = declared.and_then(|c| c.spec.as_server()).map(|server| &server.policy);
    let database = declared.and_then(|c| c.spec.as_database());
    let declared_count = policy.map(|policy| policy.replicas);
    let of_database = database.map(|database| database.policy.replicas.saturating_add(1));
    let usual = declared_count.or(of_database).unwrap_or(0);
    let replicas = has_instances(id).then(|| document::Replicas {
        wanted: observed.wanted.get(id).copied().unwrap_or(usual),
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        pinned: snapshot.state.scale.contains_key(id),
    });
    let scale = policy.and_then(|policy| policy.scale.as_ref());
    let waiting = snapshot.report.waiting.iter().find(|w| w.component == *id);
    let mut instances: Vec<document::Instance> = of_networks.map(network_instance).collect();
    instances.extend(of_servers.map(server_instance));
    // The one that takes writes comes first.
    instances.sort_by_key(|instance| instance.role.as_deref() != Some("primary"));
    document::Component {
        kind: id.kind.to_string(),
        name: id.name.clone(),
        digest: digest.map(|d| d.to_string()).unwrap_or_default(),
        address: declared.and_then(|c| address(&c.spec)),
        to: declared.and_then(|c| Some(c.spec.as_endpoint()?.policy.to.to_string())),
        replicas,
        scale: scale.map(|scale| self::scale(id, scale, snapshot)),
        failures: failures(id, snapshot),
        problem: waiting
            .and_then(|w| w.why.as_ref())
            .map(ToString::to_string)
            .or_else(|| observed.troubles.get(id).cloned()),
        instances,
        volumes: observed.volumes.iter().filter(|v| v.component == *id).map(volume).collect(),
    }
}

fn volume(volume: &ObservedVolume) -> document::Volume {
    let place = match volume {
        ObservedVolume { head: true, .. } => Some("head"),
        ObservedVolume { tip: true, .. } => Some("end"),
        ObservedVolume { left_at: Some(_), .. } => Some("kept"),
        _ => None,
    };
    document::Volume {
        id: volume.id.to_string(),
        generation: volume.generation,
        branch: volume.branch,
        place: place.map(str::to_owned),
        version: volume.version,
        used: volume.used.0,
        left_at: volume.left_at.map(|at| at.to_string()),
    }
}

/// The instances of a server that failed lately.
fn failures(id: &ComponentId, snapshot: &Snapshot) -> Option<document::Failures> {
    let now = snapshot.observed.at;
    let failure = snapshot.state.failure(id, now)?;
    let pace = snapshot.observed.pace.get(id);
    let next = pace.map(Pace::not_before).filter(|next| *next > now);
    Some(document::Failures {
        in_a_row: failure.in_a_row,
        looping: failure.in_a_row >= CRASH_LOOP,
        instance: failure.instance.to_string(),
        at: failure.at.to_string(),
        cause: failure.cause.clone(),
        next_at: next.map(|next| next.to_string()),
        last_words: failure.last_words.clone(),
    })
}

fn scale(id: &ComponentId, scale: &Scale, snapshot: &Snapshot) -> document::Scale {
    let known = snapshot.scaling.get(id);
    let decided = snapshot.state.sized.get(id).map(|sized| document::Decided {
        at: sized.at.to_string(),
        count: sized.count,
        because: sized.because.clone(),
    });
    document::Scale {
        min: scale.min,
        max: scale.max,
        because: known.map(|known| known.because.clone()).filter(|because| !because.is_empty()),
        decided,
        trouble: known.and_then(|known| known.trouble.clone()),
    }
}

fn has_instances(id: &ComponentId) -> bool {
    matches!(id.kind, Kind::Server | Kind::Database)
}

fn address(spec: &Spec) -> Option<String> {
    match &spec.body {
        Body::Server(server) => Some(server.policy.address.to_string()),
        Body::Database(database) => Some(database.policy.address.to_string()),
        Body::Endpoint(endpoint) => Some(endpoint.identity.listen.to_string()),
        Body::Network(network) => Some(network.identity.cidr.to_string()),
        Body::Image(_) | Body::Secret(_) => None,
    }
}

fn network_instance(network: &ObservedNetwork) -> document::Instance {
    document::Instance {
        id: network.id.to_string(),
        digest: network.digest.to_string(),
        generation: None,
        state: if network.drift.is_empty() { "ready" } else { "unready" }.to_owned(),
        address: None,
        pid: None,
        started_at: None,
        in_flight: None,
        reason: None,
        since: None,
        integrity: None,
        role: None,
        position: None,
        drift: differences(&network.drift),
    }
}

fn server_instance(instance: &ObservedInstance) -> document::Instance {
    let (state, reason) = state(instance);
    let said = instance.data.as_ref().and_then(|data| data.said.as_ref());
    document::Instance {
        id: instance.id.to_string(),
        digest: instance.digest.to_string(),
        generation: Some(instance.generation),
        state: state.to_owned(),
        address: Some(instance.address.to_string()),
        pid: instance.pid,
        started_at: Some(instance.created_at.to_string()),
        in_flight: Some(instance.in_flight),
        reason,
        since: since(instance).map(|since| since.to_string()),
        integrity: instance.integrity.map(|integrity| integrity.to_string()),
        role: said.map(|said| said.role.as_str().to_owned()),
        position: said.map(|said| said.position),
        drift: differences(&instance.drift),
    }
}

/// The state of an instance, and what is known of why it is not ready.
fn state(instance: &ObservedInstance) -> (&'static str, Option<String>) {
    use kiln_model::observed::Phase;

    match (&instance.phase, &instance.health) {
        _ if instance.draining_since.is_some() => ("draining", None),
        (Phase::Ended { cause }, _) => ("unready", Some(cause.to_string())),
        (Phase::Running, Verdict::Ready { .. }) => ("ready", None),
        (Phase::Running, Verdict::Starting { last }) => ("starting", last.clone()),
        (Phase::Running, Verdict::Unready { reason, .. } | Verdict::Dead { reason, .. }) => {
            ("unready", Some(reason.clone()))
        }
    }
}

/// Since when an instance's health has been what it is.
fn since(instance: &ObservedInstance) -> Option<Timestamp> {
    match &instance.health {
        _ if !instance.is_running() => None,
        Verdict::Starting { .. } => None,
        Verdict::Ready { since } | Verdict::Unready { since, .. } | Verdict::Dead { since, .. } => {
            Some(*since)
        }
    }
}

fn differences(drift: &[Drift]) -> Vec<document::Difference> {
    let difference = |d: &Drift| document::Difference {
        what: d.what.to_string(),
        expected: d.expected.clone(),
        found: d.found.clone(),
    };
    drift.iter().map(difference).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use kiln_engine::journal::State;
    use kiln_model::fixture::{endpoint, generation, image, network, server};
    use kiln_model::generation::Generation;
    use kiln_model::observed::{Aspect, Observed, Phase};
    use kiln_model::plan::plan;

    use super::*;

    fn declared() -> Generation {
        let specs = vec![
            image("web", "v1"),
            network("front", "10.0.0.0/24"),
            server("web").replicas(2).spec(),
            endpoint("shop", "127.0.0.1:8080", "web"),
        ];
        generation(1, specs)
    }

    /// An instance as the generation wants it.
    fn current(n: u8, health: Verdict) -> ObservedInstance {
        let web = declared().content.components[&"server.web".parse().unwrap()].digest;
        ObservedInstance { digest: web, ..instance(n, health) }
    }

    fn snapshot(instances: Vec<ObservedInstance>) -> Snapshot {
        let desired = declared();
        let observed = Observed { instances, ..Observed::default() };
        let (_, report) = plan(&desired, &observed);
        let mut state = State::default();
        (state.active, state.newest) = (Some(1), 1);
        Snapshot {
            desired: Arc::new(desired),
            observed,
            report,
            state,
            trouble: None,
            scaling: BTreeMap::new(),
        }
    }

    fn instance(n: u8, health: Verdict) -> ObservedInstance {
        ObservedInstance {
            data: None,
            id: format!("web-{n}").parse().unwrap(),
            component: "server.web".parse().unwrap(),
            digest: kiln_model::digest::Digest::of(b"x"),
            generation: 1,
            network: "front-1".parse().unwrap(),
            address: [10, 0, 0, 128 + n].into(),
            connects: Vec::new(),
            created_at: Timestamp(0),
            pid: Some(4711),
            phase: Phase::Running,
            health,
            draining_since: None,
            in_flight: 0,
            answers: kiln_model::analysis::Answers::default(),
            integrity: None,
            drift: Vec::new(),
        }
    }

    #[test]
    fn a_stack_is_healthy_when_all_that_is_wanted_is_ready() {
        let ready = || Verdict::Ready { since: Timestamp(0) };
        let status_of = |instances| status(&snapshot(instances), None);
        let whole = status_of(vec![current(1, ready()), current(2, ready())]);
        assert!(whole.healthy);
        // What was replaced, and is kept for a while, is not among those wanted.
        assert!(!status_of(vec![current(1, ready()), instance(3, ready())]).healthy);
        let web = whole.components.iter().find(|c| c.kind == "server").unwrap();
        let replicas = web.replicas.as_ref().unwrap();
        assert_eq!((replicas.wanted, replicas.ready), (2, 2));
        assert_eq!(web.address.as_deref(), Some("10.0.0.2"));
        let refused = Verdict::Starting { last: Some("connection refused".to_owned()) };
        let half = status_of(vec![current(1, ready()), current(2, refused)]);
        assert!(!half.healthy);
        let web = half.components.iter().find(|c| c.kind == "server").unwrap();
        assert_eq!(web.instances[1].state, "starting");
        assert_eq!(web.instances[1].reason.as_deref(), Some("connection refused"));
    }

    #[test]
    fn drift_is_not_healthy_and_is_listed() {
        let ready = || Verdict::Ready { since: Timestamp(0) };
        let mut odd = instance(2, ready());
        odd.drift.push(Drift::new(Aspect::CgroupMemory, "67108864", "max"));
        let snapshot = snapshot(vec![instance(1, ready()), odd]);
        assert!(!status(&snapshot, None).healthy);
        let drift = drift(&snapshot);
        assert_eq!(drift.drift.len(), 1);
        assert_eq!(drift.drift[0].instance, "web-2");
    }
}
