//! The daemon's API over a real socket and a real store, on a target that is a map.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod memory;

use std::sync::Arc;

use kiln_daemon::api::{Apply, Decision, End, FaultKind, Line, Scale};
use kiln_daemon::client::{Client, ClientError, Lines};
use kiln_daemon::ledger::Ledger;
use kiln_daemon::root::Root;
use kiln_daemon::server::{Daemon, DaemonLog};
use kiln_engine::clock::SystemClock;
use kiln_engine::engine::Engine;
use kiln_engine::journal::AbandonKind;
use kiln_model::fixture::{generation, image, network, server};
use kiln_model::generation::{Content, Origin};
use kiln_model::name::StackName;
use kiln_model::quantity::Millis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::memory::Memory;

/// A daemon in this process, on a root of its own.
struct World {
    _directory: tempfile::TempDir,
    root: Root,
    target: Arc<Memory>,
    stack: StackName,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["run", "store", "logs"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let root = Root::new(directory.path());
        let (store, _) = Ledger::create(&root).unwrap().into_parts();
        let target = Arc::new(Memory::default());
        let engine = Engine::new(target.clone(), Arc::new(SystemClock), Arc::new(store));
        let log = DaemonLog::open(&root.daemon_log()).unwrap();
        let daemon = Daemon::start(Arc::new(engine), log).unwrap();
        let socket = UnixListener::bind(root.socket()).unwrap();
        tokio::spawn(async move { daemon.answer(socket).await });
        Self { _directory: directory, root, target, stack: "shop".parse().unwrap() }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.root).await.unwrap()
    }

    async fn apply(&self, release: &str, parent: Option<u64>) -> Result<Lines, ClientError> {
        let wanted = Apply {
            content: content(release),
            parent,
            origin: Origin::Apply,
            commit: Some("abc".to_owned()),
            cause: None,
        };
        self.client().await.apply(&self.stack, &wanted).await
    }
}

fn content(release: &str) -> Content {
    let web = server("web").replicas(2).deadline(Millis(400)).spec();
    generation(1, vec![image("web", release), network("front", "10.0.0.0/24"), web]).content
}

/// First and last line of a stream.
async fn ends(mut lines: Lines) -> (Decision, End) {
    let mut decision = None;
    while let Some(line) = lines.next().await.unwrap() {
        match line {
            Line::Decided(decided) => decision = Some(decided),
            Line::Progress(_) => assert!(decision.is_some(), "the decision comes first"),
            Line::End(end) => {
                assert_eq!(lines.next().await.unwrap(), None, "the end comes last");
                return (decision.unwrap(), end);
            }
        }
    }
    panic!("a stream without an end");
}

#[tokio::test]
async fn a_stack_is_applied_replaced_and_scaled() {
    let world = World::new();
    let (decision, end) = ends(world.apply("v1", None).await.unwrap()).await;
    assert_eq!(decision, Decision::Started(1));
    assert_eq!(end, End::Active { generation: 1, settled: true });
    let status = world.client().await.status(&world.stack).await.unwrap();
    assert!(status.healthy, "{status:?}");
    assert_eq!((status.generation, status.commit.as_deref()), (Some(1), Some("abc")));
    let before: Vec<String> = servers(&status);
    assert_eq!(before.len(), 2);

    let (decision, _) = ends(world.apply("v1", Some(1)).await.unwrap()).await;
    assert_eq!(decision, Decision::Unchanged(1));

    let (decision, end) = ends(world.apply("v2", Some(1)).await.unwrap()).await;
    assert_eq!(decision, Decision::Started(2));
    assert_eq!(end, End::Active { generation: 2, settled: true });
    let status = world.client().await.status(&world.stack).await.unwrap();
    let after = servers(&status);
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");

    let wanted = Scale { component: "server.web".parse().unwrap(), count: Some(5) };
    let lines = world.client().await.scale(&world.stack, &wanted).await.unwrap();
    let (decision, end) = ends(lines).await;
    assert_eq!(decision, Decision::Scaled(2));
    assert_eq!(end, End::Active { generation: 2, settled: true });
    let status = world.client().await.status(&world.stack).await.unwrap();
    assert_eq!(servers(&status).len(), 5);
}

fn servers(status: &kiln_daemon::api::document::Status) -> Vec<String> {
    let of_servers = status.components.iter().filter(|c| c.kind == "server");
    of_servers.flat_map(|c| &c.instances).map(|i| i.id.clone()).collect()
}

#[tokio::test]
async fn what_never_gets_ready_is_given_up_and_the_old_serves_on() {
    let world = World::new();
    ends(world.apply("v1", None).await.unwrap()).await;
    world.target.let_nothing_get_ready();
    let (_, end) = ends(world.apply("v2", Some(1)).await.unwrap()).await;
    let End::Abandoned { generation: 2, reason, serving: Some(1) } = end else {
        panic!("{end:?}");
    };
    assert_eq!(reason.kind, AbandonKind::Deadline);
    assert!(reason.blame[0].cause.contains("connection refused"), "{reason:?}");
    assert_eq!(reason.blame[0].last_words, ["no such file"]);
    let status = world.client().await.status(&world.stack).await.unwrap();
    assert!(status.healthy && status.generation == Some(1), "{status:?}");
}

#[tokio::test]
async fn a_rollout_can_be_cancelled() {
    let world = World::new();
    ends(world.apply("v1", None).await.unwrap()).await;
    world.target.let_nothing_get_ready();
    let mut lines = world.apply("v2", Some(1)).await.unwrap();
    assert!(matches!(lines.next().await.unwrap(), Some(Line::Decided(Decision::Started(2)))));
    assert_eq!(world.client().await.cancel(&world.stack).await.unwrap(), 2);
    loop {
        let line = lines.next().await.unwrap().expect("the end comes");
        if let Line::End(end) = line {
            assert!(matches!(end, End::Abandoned { generation: 2, .. }), "{end:?}");
            break;
        }
    }
    let error = world.client().await.cancel(&world.stack).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(f) if f.kind == FaultKind::Conflict), "{error}");
}

#[tokio::test]
async fn refusals_say_what_and_why() {
    let world = World::new();
    let unknown = world.client().await.status(&world.stack).await.unwrap_err();
    let ClientError::Refused(fault) = &unknown else { panic!("{unknown}") };
    assert_eq!(fault.kind, FaultKind::NotFound);
    assert!(fault.help.as_ref().is_some_and(|help| help.contains("kiln apply")));
    ends(world.apply("v1", None).await.unwrap()).await;
    let stale = world.apply("v2", None).await.unwrap_err();
    let ClientError::Refused(fault) = &stale else { panic!("{stale}") };
    assert_eq!(fault.kind, FaultKind::Conflict);
    assert!(fault.message.contains("generation 1 now"), "{}", fault.message);
    let wanted = Scale { component: "server.none".parse().unwrap(), count: Some(5) };
    let none = world.client().await.scale(&world.stack, &wanted).await.unwrap_err();
    assert!(matches!(&none, ClientError::Refused(f) if f.kind == FaultKind::NotFound), "{none}");
}

#[tokio::test]
async fn a_client_that_vanishes_changes_nothing() {
    let world = World::new();
    drop(world.apply("v1", None).await.unwrap());
    let mut client = world.client().await;
    for _ in 0..200 {
        if client.status(&world.stack).await.unwrap().generation == Some(1) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the rollout did not go on without its client");
}

#[tokio::test]
async fn a_daemon_of_another_version_is_told() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("run")).unwrap();
    let root = Root::new(directory.path());
    let none = Client::connect(&root).await.unwrap_err();
    assert!(matches!(none, ClientError::NotRunning { .. }), "{none}");
    let socket = UnixListener::bind(root.socket()).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = socket.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await.unwrap();
        let body = r#"{"version":"99.0.0","pid":4711,"more":true}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).await.unwrap();
    });
    let error = Client::connect(&root).await.unwrap_err();
    assert!(matches!(&error, ClientError::OtherVersion { found, .. } if found == "99.0.0"));
    assert!(error.help().unwrap().contains("kill 4711"));
}
