//! Planning against a machine that obeys: every plan is checked by the independent checker.

use super::machine::Machine;
use super::*;
use crate::fixture::{endpoint, generation, id, image, network, server};
use crate::observed::{Aspect, Drift, Ending, Phase, RolloutRecord, Verdict};
use crate::spec::Spec;

fn shop(inputs: &str, replicas: u32) -> Vec<Spec> {
    vec![
        image("web", inputs),
        network("front", "10.0.0.0/24"),
        server("api").spec(),
        server("web").connects("api").replicas(replicas).spec(),
        endpoint("shop", "127.0.0.1:8080", "web"),
    ]
}

/// Plans and acts until nothing is left to do; fails on a broken invariant or when the number
/// of ready web instances in rotation falls below `floor`.
fn converge(machine: &mut Machine, desired: &Generation, floor: usize) {
    for _ in 0..200 {
        let (plan, report) = plan(desired, &machine.observed);
        assert_eq!(check::check(desired, &machine.observed, &plan), []);
        if report.outcome == Outcome::Converged {
            assert!(plan.is_empty());
            return;
        }
        machine.take(&plan);
        let table = machine.observed.table.as_ref();
        let serving = table.and_then(|t| t.endpoints.first()).map_or(0, |e| e.backends.len());
        assert!(serving >= floor, "only {serving} in rotation");
    }
    panic!("does not converge: {:?}", machine.observed);
}

#[test]
fn the_first_generation_is_built_and_the_second_replaces_it() {
    let mut machine = Machine::new();
    let first = generation(1, shop("v1", 3));
    converge(&mut machine, &first, 0);
    assert_eq!((machine.count("server.web"), machine.count("server.api")), (3, 1));
    let old: Vec<_> = machine.observed.instances.iter().map(|i| i.id.clone()).collect();
    let second = generation(2, shop("v2", 3));
    converge(&mut machine, &second, 3);
    assert!(machine.observed.instances.iter().all(|i| !old.contains(&i.id)));
    converge(&mut machine, &first, 3);
    let digest = first.content.components[&id("server.web")].digest;
    let web = machine.observed.instances.iter().filter(|i| i.component == id("server.web"));
    assert!(web.clone().count() == 3 && web.clone().all(|i| i.digest == digest));
}

#[test]
fn a_changed_network_is_replaced_with_all_that_is_in_it() {
    let mut machine = Machine::new();
    converge(&mut machine, &generation(1, shop("v1", 3)), 0);
    let old = machine.observed.networks[0].id.clone();
    let mut specs = shop("v1", 3);
    specs[1] = network("front", "10.9.0.0/24");
    converge(&mut machine, &generation(2, specs), 3);
    assert_eq!(machine.observed.networks.len(), 1);
    assert!(machine.observed.instances.iter().all(|i| i.network != old));
}

#[test]
fn what_drifts_serves_until_another_is_ready() {
    let mut machine = Machine::new();
    let desired = generation(1, shop("v1", 1));
    converge(&mut machine, &desired, 0);
    let web = |machine: &Machine| {
        let found = machine.observed.instances.iter().find(|i| i.component == id("server.web"));
        found.unwrap().id.clone()
    };
    let drift = Drift::new(Aspect::Image, "as it was", "altered");
    let odd = web(&machine);
    machine.instance(&odd).drift.push(drift.clone());
    let (_, report) = plan(&desired, &machine.observed);
    assert_ne!(report.outcome, Outcome::Converged);
    converge(&mut machine, &desired, 1);
    assert_ne!(web(&machine), odd);
    // One that does not serve is of no use to anybody.
    let odd = web(&machine);
    let instance = machine.instance(&odd);
    (instance.health, instance.drift) = (Verdict::Starting { last: None }, vec![drift]);
    let (steps, _) = plan(&desired, &machine.observed);
    assert!(steps.steps.iter().any(|step| step.action == Action::Drain(odd.clone())));
}

#[test]
fn what_drifts_gets_no_traffic_where_others_can_take_it() {
    let mut machine = Machine::new();
    let desired = generation(1, shop("v1", 3));
    converge(&mut machine, &desired, 0);
    let web = |i: &&crate::observed::ObservedInstance| i.component == id("server.web");
    let all: Vec<InstanceId> =
        machine.observed.instances.iter().filter(web).map(|i| i.id.clone()).collect();
    let drift = || vec![Drift::new(Aspect::Process, "its own processes only", "process 7")];
    machine.instance(&all[0]).drift = drift();
    let (first, _) = plan(&desired, &machine.observed);
    let tables = first.steps.iter().filter_map(|step| match &step.action {
        Action::Route(table) => Some(table.in_rotation().cloned().collect::<BTreeSet<_>>()),
        _ => None,
    });
    let tables: Vec<BTreeSet<InstanceId>> = tables.collect();
    assert_eq!(tables.len(), 1);
    assert!(!tables[0].contains(&all[0]) && tables[0].contains(&all[1]));
    // At once, and before it is ended another is ready.
    let ends = |step: &Step| matches!(step.action, Action::Drain(_) | Action::Destroy(_));
    assert!(!first.steps.iter().any(ends));
    assert!(first.steps.iter().any(|s| matches!(s.action, Action::Create(_))));
    converge(&mut machine, &desired, 2);
    assert!(!machine.observed.instances.iter().any(|i| i.id == all[0]));
    // Where all have drifted, they serve until others can.
    for instance in machine.observed.instances.iter_mut().filter(|i| web(&&**i)) {
        instance.drift = drift();
    }
    converge(&mut machine, &desired, 2);
    assert!(machine.observed.instances.iter().all(|i| i.drift.is_empty()));
    assert_eq!(machine.count("server.web"), 3);
}

#[test]
fn broken_networks_do_not_pile_up_while_a_rollout_is_unproved() {
    let mut machine = Machine::new();
    let desired = generation(1, shop("v1", 3));
    let (started, deadline) = (machine.observed.at, machine.observed.at.after(Millis(100)));
    machine.observed.rollout = Some(RolloutRecord::new(1, started, deadline));
    // Whatever is made turns out not to be as it was made.
    for _ in 0..50 {
        let (plan, _) = plan(&desired, &machine.observed);
        assert_eq!(check::check(&desired, &machine.observed, &plan), []);
        machine.take(&plan);
        for network in &mut machine.observed.networks {
            network.drift = vec![Drift::new(Aspect::Sysctl, "0", "1")];
        }
    }
    assert!(machine.observed.networks.len() < 5, "{}", machine.observed.networks.len());
}

#[test]
fn nothing_declared_is_nothing_left() {
    let mut machine = Machine::new();
    converge(&mut machine, &generation(1, shop("v1", 2)), 0);
    converge(&mut machine, &generation(2, Vec::new()), 0);
    let observed = &machine.observed;
    assert!(observed.instances.is_empty() && observed.networks.is_empty());
    assert_eq!(observed.table, None);
}

#[test]
fn servers_outlive_those_that_connect_to_them() {
    let mut machine = Machine::new();
    converge(&mut machine, &generation(1, shop("v1", 1)), 0);
    let nothing = generation(2, Vec::new());
    let web = machine.observed.instances.iter().find(|i| i.component == id("server.web"));
    let web = web.unwrap().id.clone();
    machine.instance(&web).in_flight = 1;
    for _ in 0..3 {
        let (plan, _) = plan(&nothing, &machine.observed);
        machine.take(&plan);
    }
    assert_eq!(machine.count("server.api"), 1, "web may still need it");
    machine.instance(&web).in_flight = 0;
    converge(&mut machine, &nothing, 0);
}

#[test]
fn what_dies_is_replaced_and_leaves_rotation_at_once() {
    let mut machine = Machine::new();
    let desired = generation(1, shop("v1", 3));
    converge(&mut machine, &desired, 0);
    let victim = machine.observed.table.as_ref().unwrap().endpoints[0].backends[0].clone();
    machine.instance(&victim.instance).phase = Phase::Ended { cause: Ending::Killed(9) };
    let (plan, _) = plan(&desired, &machine.observed);
    let creates = plan.steps.iter().filter(|s| matches!(s.action, Action::Create(_))).count();
    assert_eq!(creates, 1);
    converge(&mut machine, &desired, 2);
    assert_eq!(machine.count("server.web"), 3);
}

#[test]
fn a_release_that_never_gets_ready_expires_and_the_old_one_serves() {
    let mut machine = Machine::new();
    let first = generation(1, shop("v1", 3));
    converge(&mut machine, &first, 0);
    machine.healthy = false;
    let second = generation(2, shop("v2", 3));
    let (started, deadline) = (machine.observed.at, machine.observed.at.after(Millis(100)));
    machine.observed.rollout = Some(RolloutRecord::new(2, started, deadline));
    let expired = (0..300).find(|_| {
        let (plan, report) = plan(&second, &machine.observed);
        machine.take(&plan);
        assert_eq!(machine.observed.table.as_ref().unwrap().endpoints[0].backends.len(), 3);
        report.outcome == Outcome::Expired
    });
    assert!(expired.is_some());
    machine.observed.rollout = None;
    machine.healthy = true;
    converge(&mut machine, &first, 3);
    assert_eq!(machine.count("server.web"), 3);
}

#[test]
fn an_unready_instance_is_replaced_where_nothing_lets_it_come_back() {
    let mut machine = Machine::new();
    let desired = generation(1, shop("v1", 2));
    converge(&mut machine, &desired, 0);
    let web = machine.observed.instances.iter().find(|i| i.component == id("server.web"));
    let web = web.unwrap().id.clone();
    let since = machine.observed.at;
    machine.instance(&web).health = Verdict::Unready { since, reason: "503".to_owned() };
    converge(&mut machine, &desired, 1);
    assert!(machine.observed.instances.iter().all(|i| i.id != web));
}

#[test]
fn an_endpoint_moves_when_its_new_server_is_whole() {
    let mut machine = Machine::new();
    converge(&mut machine, &generation(1, shop("v1", 2)), 0);
    let specs = vec![
        image("web", "v1"),
        network("front", "10.0.0.0/24"),
        server("next").replicas(2).spec(),
        endpoint("shop", "127.0.0.1:9090", "next"),
    ];
    let desired = generation(2, specs);
    let (started, deadline) = (machine.observed.at, machine.observed.at.after(Millis(100)));
    machine.observed.rollout = Some(RolloutRecord::new(2, started, deadline));
    converge(&mut machine, &desired, 2);
    assert_eq!(machine.count("server.web"), 0);
    let table = machine.observed.table.as_ref().unwrap();
    assert_eq!(table.endpoints.len(), 1, "the old listener is closed");
}

#[test]
fn what_has_not_been_asked_yet_is_kept_however_old_it_is() {
    let mut machine = Machine::new();
    let desired = generation(1, shop("v1", 1));
    converge(&mut machine, &desired, 0);
    let web = machine.observed.instances.iter().find(|i| i.component == id("server.web"));
    let web = web.unwrap().id.clone();
    machine.observed.at = machine.observed.at.after(Millis::seconds(100_000));
    let mut replaced = |last: Option<&str>| {
        let last = last.map(str::to_owned);
        machine.instance(&web).health = Verdict::Starting { last };
        let (plan, _) = plan(&desired, &machine.observed);
        plan.steps.iter().any(|s| s.action == Action::Drain(web.clone()))
    };
    assert!(!replaced(None));
    assert!(replaced(Some("connection refused")));
}

#[test]
fn failures_are_backed_off() {
    let mut machine = Machine::new();
    let desired = generation(1, shop("v1", 1));
    converge(&mut machine, &desired, 0);
    machine.observed.instances.retain(|i| i.component != id("server.web"));
    let pace = crate::observed::Pace {
        never_ready: 3,
        last_failure: Some((machine.observed.at, "exited with status 1".to_owned())),
        ..Default::default()
    };
    machine.observed.pace.insert(id("server.web"), pace);
    let (plan, report) = plan(&desired, &machine.observed);
    assert!(!plan.steps.iter().any(|s| matches!(s.action, Action::Create(_))));
    assert_eq!(report.wake_at, Some(machine.observed.at.after(Millis(400))));
}

#[test]
fn a_rule_moves_when_its_new_server_is_whole_and_its_instances_drain_before_they_go() {
    use crate::spec::Body;
    use crate::spec::endpoint::Route;

    let routed = |to: &str, servers: &[&str]| {
        let mut specs = shop("v1", 2);
        specs.extend(servers.iter().map(|name| server(name).replicas(2).spec()));
        let Some(Body::Endpoint(endpoint)) =
            specs.iter_mut().find(|s| s.id == id("endpoint.shop")).map(|s| &mut s.body)
        else {
            panic!("an endpoint");
        };
        endpoint.policy.routes =
            vec![Route { host: None, path: "/api".into(), to: id(to), port: 9000 }];
        specs
    };
    let rule = |machine: &Machine| {
        let table = machine.observed.table.as_ref().unwrap();
        let rule = table.endpoints[0].rules[0].clone();
        (rule.to, rule.backends.len(), rule.backends[0].address.port())
    };
    let mut machine = Machine::new();
    converge(&mut machine, &generation(1, routed("server.one", &["one"])), 0);
    assert_eq!(rule(&machine), (id("server.one"), 2, 9000));
    // The one before serves until the new one is whole, and then goes.
    let second = generation(2, routed("server.two", &["two"]));
    for _ in 0..200 {
        let (plan, report) = plan(&second, &machine.observed);
        assert_eq!(check::check(&second, &machine.observed, &plan), []);
        if report.outcome == Outcome::Converged {
            break;
        }
        machine.take(&plan);
        assert_eq!(rule(&machine).1, 2);
    }
    assert_eq!(rule(&machine), (id("server.two"), 2, 9000));
    assert_eq!((machine.count("server.one"), machine.count("server.two")), (0, 2));
}
