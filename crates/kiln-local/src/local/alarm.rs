//! Telling of alarms: a webhook and a program, each with a bound, a few times, in the background.

use std::time::Duration;

use kiln_engine::alarm::{AlarmDocument, Raised};
use rustls_native_certs::load_native_certs;
use tokio::sync::mpsc;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::program;

/// Alarms that wait to be told; beyond them, more are written to the daemon's log alone.
const WAITING: usize = 64;

/// How often each is tried, and the pause after the first time; it doubles.
const TIMES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// How long one attempt may take.
const WEBHOOK: Duration = Duration::from_secs(5);
const COMMAND: Duration = Duration::from_secs(10);

/// Who tells of alarms, one after the other.
pub(super) struct Herald {
    queue: mpsc::Sender<Raised>,
}

impl Herald {
    /// Must be called inside a tokio runtime.
    pub(super) fn start() -> Self {
        let (queue, mut raised) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while let Some(raised) = raised.recv().await {
                tell(&raised).await;
            }
        });
        Self { queue }
    }

    /// Has an alarm told of, and returns at once.
    pub(super) fn tell(&self, raised: Raised) {
        let (stack, what) = (&raised.stack, &raised.alarm.what);
        eprintln!("kiln: alarm: {stack}: {}: {what}", raised.alarm.cause);
        if !raised.hooks.is_default() && self.queue.try_send(raised).is_err() {
            eprintln!("kiln: nobody is told of that alarm: {WAITING} others wait");
        }
    }
}

async fn tell(raised: &Raised) {
    let document = AlarmDocument::of(raised);
    let Ok(text) = serde_json::to_string(&document) else { return };
    let hooks = &raised.hooks;
    let webhook = async {
        if let Some(url) = &hooks.webhook {
            patiently("its webhook", WEBHOOK, || post(url.clone(), text.clone())).await;
        }
    };
    let command = async {
        if let Some(command) = &hooks.command {
            let run = || program::run_with(command, hooks.user.as_deref(), &[], text.as_bytes());
            patiently("its command", COMMAND, || async { run().await.map(drop) }).await;
        }
    };
    tokio::join!(webhook, command);
}

/// Tries a few times; what does not succeed is written to the daemon's log.
async fn patiently<F: Future<Output = Result<(), String>>>(
    whom: &str,
    bound: Duration,
    attempt: impl Fn() -> F,
) {
    let mut last = String::new();
    for n in 0..TIMES {
        if n > 0 {
            tokio::time::sleep(PAUSE * (1 << (n - 1))).await;
        }
        match tokio::time::timeout(bound, attempt()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => last = error,
            Err(_) => last = format!("no answer within {} s", bound.as_secs()),
        }
    }
    eprintln!("kiln: {whom} is not told of an alarm, after {TIMES} attempts: {last}");
}

async fn post(url: String, text: String) -> Result<(), String> {
    let posted = tokio::task::spawn_blocking(move || {
        let sent = agent(url.starts_with("https:"))
            .post(&url)
            .header("content-type", "application/json")
            .send(text);
        let answer = sent.map_err(|error| error.to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("{url} answered {status}")) }
    });
    posted.await.map_err(|error| error.to_string())?
}

/// It trusts whom the machine trusts, and goes nowhere else than it is told.
fn agent(tls: bool) -> Agent {
    let config = Agent::config_builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(WEBHOOK));
    if !tls {
        return Agent::new_with_config(config.build());
    }
    let found = load_native_certs().certs;
    let trusted: Vec<Certificate<'static>> =
        found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let roots = RootCerts::new_with_certs(&trusted);
    Agent::new_with_config(
        config.tls_config(TlsConfig::builder().root_certs(roots).build()).build(),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use kiln_model::alarm::{Alarm, Cause, Hooks};
    use kiln_model::quantity::Timestamp;

    use super::*;

    fn raised(hooks: Hooks) -> Raised {
        let what = "web-1: stopped".to_owned();
        let component = Some("server.web".parse().unwrap());
        Raised {
            at: Timestamp(1_000),
            stack: "shop".parse().unwrap(),
            generation: Some(7),
            alarm: Alarm { cause: Cause::Drift, component, what },
            hooks,
        }
    }

    /// A whole request with its body.
    fn request(stream: &mut TcpStream) -> String {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while !text.contains("\"what\":") {
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        text
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_webhook_that_fails_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let webhook = Some(format!("http://{}/hook", listener.local_addr().unwrap()));
        let server = tokio::task::spawn_blocking(move || {
            for answer in ["500 Oh", "204 Good"] {
                let (mut stream, _) = listener.accept().unwrap();
                let text = request(&mut stream);
                assert!(text.starts_with("POST /hook HTTP/1.1\r\n"), "{text}");
                let (_, body) = text.split_once("\r\n\r\n").unwrap();
                let document: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!(document["cause"], "drift");
                assert_eq!(document["component"], "server.web");
                assert_eq!(document["stack"], "shop");
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let begun = Instant::now();
        Herald::start().tell(raised(Hooks { webhook, ..Hooks::default() }));
        assert!(begun.elapsed() < Duration::from_millis(500), "whoever raises it does not wait");
        tokio::time::timeout(Duration::from_secs(30), server).await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_gets_it_on_its_standard_input() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alarm.json");
        let script = format!("cat > {0}.new && mv {0}.new {0}", path.display());
        let command = Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script]);
        // The directory of the test is not nobody's.
        let user = rustix::process::geteuid().is_root().then(|| "root".to_owned());
        Herald::start().tell(raised(Hooks { command, user, ..Hooks::default() }));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !path.exists() {
            assert!(Instant::now() < deadline, "nobody was told");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let document: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(document["what"], "web-1: stopped");
        assert_eq!(document["generation"], 7);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn hooks_that_hang_keep_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let webhook = Some(format!("http://{}/", listener.local_addr().unwrap()));
        let herald = Herald::start();
        let begun = Instant::now();
        for _ in 0..3 * WAITING {
            herald.tell(raised(Hooks { webhook: webhook.clone(), ..Hooks::default() }));
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
