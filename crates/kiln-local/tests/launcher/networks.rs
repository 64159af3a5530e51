//! An instance has its place on its network before its first instruction.

use std::net::Ipv4Addr;

use kiln_local::instance::client::ClientError;
use kiln_local::launcher::protocol::{LaunchSpec, NetworkAttachment, Refusal, Stage};
use kiln_local::network::{NetworkSpec, Networks};

use crate::support::{TestRoot, until};

/// A network of the test's own; gone when it is dropped.
struct Network {
    networks: Networks,
}

impl Network {
    fn new(root: &TestRoot) -> Self {
        let networks = Networks::new(root.path().join("run/net"), &root.id).unwrap();
        let spec = NetworkSpec {
            id: "net-1".to_owned(),
            cidr: "10.77.0.0/24".parse().unwrap(),
            egress: vec![],
            label: String::new(),
        };
        networks.create(&spec).unwrap();
        Self { networks }
    }

    fn attach(&self, mut spec: LaunchSpec, host: u8) -> LaunchSpec {
        spec.network = Some(NetworkAttachment {
            namespace: self.networks.path("net-1"),
            address: Ipv4Addr::new(10, 77, 0, host),
            prefix_bits: 24,
            gateway: Ipv4Addr::new(10, 77, 0, 1),
        });
        spec
    }

    fn instances(&self) -> Vec<Option<String>> {
        let observed = self.networks.observe().unwrap();
        observed.into_iter().flat_map(|one| one.ports).map(|port| port.instance).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.networks.destroy("net-1");
    }
}

#[test]
fn the_interface_is_up_before_the_first_instruction() {
    let Some(root) = TestRoot::new("the_interface_is_up_before_the_first_instruction") else {
        return;
    };
    let network = Network::new(&root);
    let files = ["/proc/net/route", "/proc/net/fib_trie", "/sys/class/net/eth0/operstate"];
    let arguments: Vec<&str> = ["read"].into_iter().chain(files).collect();
    let (exit, output) = root.run(network.attach(root.spec("wired", &arguments), 200));
    assert_eq!(exit.code, Some(0));
    assert_eq!(output.get(files[2]), "up");
    // The default route by 10.77.0.1, as the kernel prints it: little-endian, in hexadecimal.
    let routes = output.all(files[0]);
    assert!(routes.iter().any(|line| line.starts_with("eth0\t00000000\t01004D0A\t")), "{routes:?}");
    assert!(output.all(files[1]).iter().any(|line| line.contains("10.77.0.200")), "{output:?}");
}

#[test]
fn a_failed_start_leaves_its_network_as_it_was() {
    let Some(root) = TestRoot::new("a_failed_start_leaves_its_network_as_it_was") else { return };
    let network = Network::new(&root);
    let mut client = root.client();
    let mut spec = network.attach(root.spec("absent", &[]), 201);
    spec.argv = vec!["/absent".to_owned()];
    match client.launch(spec) {
        Err(ClientError::Refused(Refusal::Launch(error))) => assert_eq!(error.stage, Stage::Exec),
        other => panic!("{other:?}"),
    }
    // The kernel removes the interface with the namespace, in its own time.
    until("the port to be gone", || network.instances().is_empty());
    let again = network.attach(root.spec("present", &["sleep"]), 201);
    root.start(&mut client, again);
    assert_eq!(network.instances(), [Some("present".to_owned())]);
}

#[test]
fn a_network_that_is_not_there_is_named() {
    let Some(root) = TestRoot::new("a_network_that_is_not_there_is_named") else { return };
    let network = Network::new(&root);
    let mut spec = network.attach(root.spec("lost", &["exit", "0"]), 202);
    let attachment = spec.network.as_mut().unwrap();
    attachment.namespace = root.path().join("run/net/other");
    match root.client().launch(spec) {
        Err(ClientError::Refused(Refusal::Launch(error))) => {
            assert_eq!(error.stage, Stage::Network);
            assert!(error.text.contains("run/net/other"), "{}", error.text);
        }
        other => panic!("{other:?}"),
    }
}
