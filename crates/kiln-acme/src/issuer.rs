//! The loop that keeps certificates from running out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_gateway::{Gateway, GatewayError};
use kiln_model::certificate::{Acme, Certificate};
use kiln_model::name::StackName;
use tokio::sync::Notify;

use crate::due::{Due, Seconds, due};
use crate::order::obtain;
use crate::store::{Asked, Failure, Files, Record};

/// How long the loop sleeps at most: clocks are set, and machines sleep.
const SWEEP: Duration = Duration::from_secs(60);

/// Where it is told what is done.
pub type Log = Box<dyn Fn(&str) + Send + Sync>;

/// Whose certificate it is.
type Whose = (StackName, String);

/// Obtains and renews what the gateway's tables name, until it is dropped.
#[derive(Clone)]
pub struct Issuer {
    shared: Arc<Shared>,
    _running: Arc<Running>,
}

struct Shared {
    files: Files,
    gateway: Gateway,
    log: Log,
    wake: Notify,
    /// Why a certificate was not obtained the last time.
    troubles: Mutex<BTreeMap<Whose, String>>,
}

struct Running(tokio::task::JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Issuer {
    /// Begins. Must be called inside a tokio runtime.
    pub fn start(root: &Path, log: Log) -> Self {
        let shared = Arc::new(Shared {
            files: Files::new(root),
            gateway: Gateway::of(root),
            log,
            wake: Notify::new(),
            troubles: Mutex::default(),
        });
        let running = tokio::spawn(run(Arc::clone(&shared)));
        Self { shared, _running: Arc::new(Running(running)) }
    }

    /// Says that the gateway's tables may name others now.
    pub fn look(&self) {
        self.shared.wake.notify_one();
    }

    /// Why the certificate of a name was not obtained or renewed, where it was not.
    pub fn trouble(&self, stack: &StackName, name: &str) -> Option<String> {
        self.shared.troubles().get(&(stack.clone(), name.to_owned())).cloned()
    }
}

impl Shared {
    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Whose, String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(shared: Arc<Shared>) {
    loop {
        let until = match wanted(&shared.gateway).await {
            Ok(wanted) => turn(&shared, &wanted).await,
            // Nothing is routed, or the gateway is about to answer again.
            Err(_) => SWEEP,
        };
        tokio::select! {
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(until.min(SWEEP)) => {}
        }
    }
}

/// What the gateway's tables name.
async fn wanted(gateway: &Gateway) -> Result<BTreeMap<Whose, Acme>, GatewayError> {
    let gateway = gateway.clone();
    let asked = tokio::task::spawn_blocking(move || gateway.status()).await;
    let Ok(status) = asked else { return Ok(BTreeMap::new()) };
    let mut wanted = BTreeMap::new();
    for table in status?.tables {
        for certificate in table.endpoints.iter().flat_map(|endpoint| &endpoint.handling.tls) {
            let Certificate::Acme { acme } = certificate else { continue };
            for name in &acme.names {
                let whose = (table.stack.clone(), name.clone());
                wanted.entry(whose).or_insert_with(|| acme.clone());
            }
        }
    }
    Ok(wanted)
}

/// Obtains what is due, one after the other; how long there is nothing to do then.
async fn turn(shared: &Shared, wanted: &BTreeMap<Whose, Acme>) -> Duration {
    shared.troubles().retain(|whose, _| wanted.contains_key(whose));
    let mut next = Seconds::MAX;
    for (whose, acme) in wanted {
        let (stack, name) = whose;
        let record = shared.files.record(stack, name);
        let held = shared.files.held(stack, name);
        let now = now();
        let due = due(now, acme, name, held, &record);
        if let Due::At(at) = due {
            next = next.min(at);
            let past = record.failure.filter(|failure| failure.asked.is_same(acme));
            match past {
                Some(failure) => drop(tell(shared, whose, &failure.error, at)),
                None => drop(shared.troubles().remove(whose)),
            }
            continue;
        }
        next = next.min(attempt(shared, whose, acme, record).await);
    }
    let left = next.saturating_sub(now()).max(0);
    Duration::from_secs(u64::try_from(left).unwrap_or_default())
}

/// Tries once; when to look again.
async fn attempt(shared: &Shared, whose: &Whose, acme: &Acme, before: Record) -> Seconds {
    let (stack, name) = whose;
    let asks = &acme.directory;
    (shared.log)(&format!("{stack}: asking {asks} for a certificate for {name}"));
    let obtained = obtain(&shared.files, &shared.gateway, acme, name).await;
    let kept = obtained
        .and_then(|issued| Ok(shared.files.keep(stack, name, &issued.chain, &issued.key)?));
    let record = match &kept {
        Ok(()) => Record { directory: Some(acme.directory.clone()), failure: None },
        Err(error) => {
            let count = before.failure.as_ref().map_or(0, |failure| failure.count);
            let failure = Failure {
                count: count.saturating_add(1),
                at: now(),
                error: chain(error),
                asked: Asked::of(acme),
            };
            Record { failure: Some(failure), ..before }
        }
    };
    if let Err(error) = shared.files.note(stack, name, &record) {
        (shared.log)(&format!("{stack}: what became of {name} cannot be noted: {error}"));
    }
    let next = match due(now(), acme, name, shared.files.held(stack, name), &record) {
        // What was issued is due again: nothing helps but time.
        Due::Now => now() + 1,
        Due::At(at) => at,
    };
    match record.failure {
        None => {
            shared.troubles().remove(whose);
            (shared.log)(&format!("{stack}: the certificate for {name} was issued"));
        }
        Some(failure) => {
            let text = tell(shared, whose, &failure.error, next);
            (shared.log)(&format!("{stack}: no certificate for {name}: {text}"));
        }
    }
    next
}

/// Notes for the status why there is no new certificate; the text.
fn tell(shared: &Shared, whose: &Whose, error: &str, next: Seconds) -> String {
    let minutes = (next - now()).max(0).div_euclid(60) + 1;
    shared.troubles().insert(whose.clone(), error.to_owned());
    format!("{error}; tried again within {minutes} min, the one before stays in use")
}

fn now() -> Seconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        // Some say what their cause says.
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = inner.source();
    }
    text
}
