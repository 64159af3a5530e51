//! From HTTP requests to keepers and back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use kiln_engine::actor::{Actor, Peer};
use kiln_engine::engine::{Committed, Handle, Refusal};
use kiln_engine::journal::Event;
use kiln_engine::store::StoreError;
use kiln_engine::{Clock, Store, Target, metrics};
use kiln_model::name::StackName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::document::Metrics;
use crate::api::{self, Decision, Fault, FaultKind, MAX_BODY_BYTES};
use crate::follow::registry::{Follow, is_id};

use super::followers::{Followers, Word};
use super::watch::{Goal, watch_to_the_end};
use super::{Daemon, metrics as of, status};

/// What is answered: one document, or lines.
pub(super) type Body = Either<Full<Bytes>, Channel<Bytes>>;

type Answer = Result<Response<Body>, Fault>;

/// How long a status waits for a new look.
const LOOK_BOUND: Duration = Duration::from_secs(1);

/// How many lines may wait for a slow client.
const LINES_AHEAD: usize = 256;

/// Answers one request.
pub(super) async fn answer<T: Target, C: Clock, S: Store>(
    daemon: Arc<Daemon<T, C, S>>,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let by = daemon.actor(peer);
    let answer = route(&daemon, by, request).await.unwrap_or_else(|fault| refuse(&fault));
    Ok(answer)
}

async fn route<T: Target, C: Clock, S: Store>(
    daemon: &Arc<Daemon<T, C, S>>,
    by: Actor,
    request: Request<Incoming>,
) -> Answer {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (get, post) = (request.method() == Method::GET, request.method() == Method::POST);
    match segments.as_slice() {
        ["v1", "version"] if get => {
            document(&api::Version { version: api::VERSION.to_owned(), pid: std::process::id() })
        }
        ["v1", "metrics"] if get => document(&measured(daemon).await?),
        ["metrics"] if get => {
            let families = measured(daemon).await?.families;
            Ok(text(metrics::text(&families), "text/plain; version=0.0.4"))
        }
        ["v1", "guard"] if get => match daemon.engine.target.guard() {
            Some(report) => document(&report),
            None => Err(unknown(&path)),
        },
        ["v1", "stacks"] if get => document(&daemon.stacks()),
        ["v1", "stacks", stack, verb] if get || post => {
            let stack: StackName = stack.parse().map_err(|e| fault(FaultKind::BadRequest, &e))?;
            match (*verb, get) {
                ("apply", false) => apply(daemon, &stack, by, request).await,
                ("scale", false) => scale(daemon, &stack, by, request).await,
                ("resume", false) => {
                    daemon.known(&stack)?.pin(None, by).await?;
                    if let Some(followers) = daemon.followers.get() {
                        followers.resumed(stack.as_str()).await;
                    }
                    document(&())
                }
                ("cancel", false) => document(&daemon.known(&stack)?.cancel(by).await?),
                ("measure", false) => {
                    let snapshot = daemon.known(&stack)?.measure().await?;
                    document(&status::drift(&snapshot))
                }
                ("backups", false) => backups(daemon, &stack, request).await,
                ("status", true) => show_status(daemon, &stack).await,
                _ => Err(unknown(&path)),
            }
        }
        ["v1", "accept"] if post => accept(daemon, by, request).await,
        ["v1", "follows", rest @ ..] if get || post => {
            let followers = daemon.followers.get().ok_or_else(|| unknown(&path))?;
            follows(daemon, followers, rest, by, request).await
        }
        _ => Err(unknown(&path)),
    }
}

/// Takes the store as it is, and begins to keep what could not be kept.
async fn accept<T: Target, C: Clock, S: Store>(
    daemon: &Arc<Daemon<T, C, S>>,
    by: Actor,
    request: Request<Incoming>,
) -> Answer {
    let wanted: api::Acceptance = read(request).await?;
    let (store, at) = (daemon.engine.store.clone(), daemon.engine.clock.now());
    let accepted =
        tokio::task::spawn_blocking(move || store.accept(&by, at, &wanted.because)).await;
    let accepted = accepted.map_err(|error| fault(FaultKind::Internal, &error))?;
    let problems = accepted.map_err(Refusal::from)?;
    daemon.keep_all();
    document(&problems)
}

async fn follows<T: Target, C: Clock, S: Store>(
    daemon: &Daemon<T, C, S>,
    followers: &Followers,
    rest: &[&str],
    by: Actor,
    request: Request<Incoming>,
) -> Answer {
    match (rest, request.method() == Method::GET) {
        ([], true) => document(&followers.list()?),
        ([], false) => {
            let wanted: Follow = read(request).await?;
            let (id, url, branch) = (wanted.id(), wanted.url.clone(), wanted.branch.clone());
            daemon.note(&by, Event::Followed { id, url, branch })?;
            document(&followers.follow(&wanted).await?)
        }
        ([id, "look"], false) => document(&followers.tell(id, Word::Look).await?),
        ([id, "retry"], false) => document(&followers.tell(id, Word::Retry).await?),
        ([id, "stop"], false) if is_id(id) => {
            let stopped = followers.unfollow(id).await?;
            daemon.note(&by, Event::Unfollowed { id: (*id).to_owned() })?;
            document(&stopped)
        }
        _ => Err(unknown(request.uri().path())),
    }
}

async fn apply<T: Target, C: Clock, S: Store>(
    daemon: &Daemon<T, C, S>,
    stack: &StackName,
    by: Actor,
    request: Request<Incoming>,
) -> Answer {
    let wanted: api::Apply = read(request).await?;
    let handle = daemon.known_or_new(stack)?;
    let heard = handle.watch();
    let decision = match handle.commit(wanted.proposed(by)).await? {
        Committed::Started(number) => Decision::Started(number),
        Committed::Joined(number) => Decision::Joined(number),
        Committed::Unchanged(number) => Decision::Unchanged(number),
    };
    Ok(stream(handle, heard, Goal { decision, scaled: None }))
}

async fn scale<T: Target, C: Clock, S: Store>(
    daemon: &Daemon<T, C, S>,
    stack: &StackName,
    by: Actor,
    request: Request<Incoming>,
) -> Answer {
    let wanted: api::Scale = read(request).await?;
    let handle = daemon.known(stack)?;
    let heard = handle.watch();
    handle.scale(wanted.component.clone(), wanted.count, by).await?;
    // Only what is seen from now on tells whether the count is there.
    let snapshot = handle.measure().await?;
    let decision = Decision::Scaled(snapshot.desired.number);
    Ok(stream(handle, heard, Goal { decision, scaled: Some((wanted.component, wanted.count)) }))
}

/// What is asked of the backups of a database, which may take long.
async fn backups<T: Target, C: Clock, S: Store>(
    daemon: &Daemon<T, C, S>,
    stack: &StackName,
    request: Request<Incoming>,
) -> Answer {
    let api::BackupQuestion { database, ask } = read(request).await?;
    daemon.known(stack)?;
    let answer = daemon.engine.target.backups(stack, &database, ask).await;
    let answer = answer.map_err(|error| Fault {
        kind: if error.permanent { FaultKind::Conflict } else { FaultKind::Internal },
        message: format!("{}: {}", error.what, error.cause),
        causes: Vec::new(),
        help: error.hint,
    });
    document(&answer?)
}

async fn show_status<T: Target, C: Clock, S: Store>(
    daemon: &Daemon<T, C, S>,
    stack: &StackName,
) -> Answer {
    let handle = daemon.known(stack)?;
    // A keeper in the middle of its steps does not look: what it saw before them is shown then.
    let snapshot = match tokio::time::timeout(LOOK_BOUND, handle.measure()).await {
        Ok(snapshot) => snapshot?,
        Err(_) => match handle.snapshot() {
            Some(snapshot) => snapshot,
            None => handle.measure().await?,
        },
    };
    let active = match snapshot.state.active {
        Some(number) if number == snapshot.desired.number => Some(snapshot.desired.clone()),
        // What is not in order is told as trouble, beside what was seen.
        Some(number) => daemon.engine.store.generation(stack, number).ok().flatten(),
        None => None,
    };
    let mut shown = status::status(&snapshot, active.as_deref());
    if let Err(error) = daemon.engine.store.sound() {
        shown.healthy = false;
        shown.trouble = Some(format!("{error}; {}", super::store::HELP));
    }
    if let Some(followers) = daemon.followers.get() {
        let mut list = followers.list()?;
        list.retain(|following| following.stack.as_deref() == Some(stack.as_str()));
        status::add_following(&mut shown, list.pop());
    }
    document(&shown)
}

/// What is measured of everything, at once.
async fn measured<T: Target, C: Clock, S: Store>(
    daemon: &Daemon<T, C, S>,
) -> Result<Metrics, Fault> {
    let handles: Vec<Handle> = daemon.keepers().values().cloned().collect();
    let snapshots: Vec<_> = handles.iter().filter_map(Handle::snapshot).collect();
    let mut families = of::daemon(daemon.begun);
    families.extend(of::stacks(&snapshots));
    let target = tokio::time::timeout(LOOK_BOUND, daemon.engine.target.metrics()).await;
    let target = target.map_err(|error| fault(FaultKind::Internal, &error))?;
    families.extend(target.map_err(|error| fault(FaultKind::Internal, &error))?);
    Ok(Metrics { families })
}

/// A stream that goes on as long as its client does.
fn stream(
    handle: Handle,
    heard: tokio::sync::broadcast::Receiver<kiln_engine::progress::Progress>,
    goal: Goal,
) -> Response<Body> {
    let (out, body) = Channel::new(LINES_AHEAD);
    tokio::spawn(watch_to_the_end(handle, heard, goal, out));
    let mut response = Response::new(Either::Right(body));
    let kind = header::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn read<D: DeserializeOwned>(request: Request<Incoming>) -> Result<D, Fault> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|error| {
        let most = MAX_BODY_BYTES >> 20;
        if error.is::<LengthLimitError>() {
            bad(format!("the request is longer than {most} MiB"))
        } else {
            bad(format!("the request ended early: {error}"))
        }
    })?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| bad(format!("the request cannot be understood: {error}")))
}

fn document<D: Serialize>(document: &D) -> Answer {
    let text = serde_json::to_vec(document).map_err(|e| fault(FaultKind::Internal, &e))?;
    Ok(json(StatusCode::OK, text))
}

fn refuse(fault: &Fault) -> Response<Body> {
    let status = match fault.kind {
        FaultKind::BadRequest => StatusCode::BAD_REQUEST,
        FaultKind::NotFound => StatusCode::NOT_FOUND,
        FaultKind::Conflict | FaultKind::Pinned => StatusCode::CONFLICT,
        FaultKind::Tampered | FaultKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        FaultKind::Ending => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, serde_json::to_vec(fault).unwrap_or_default())
}

fn json(status: StatusCode, document: Vec<u8>) -> Response<Body> {
    let mut response = text(document, "application/json");
    *response.status_mut() = status;
    response
}

fn text(text: impl Into<Bytes>, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text.into())));
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn unknown(path: &str) -> Fault {
    let message = format!("this daemon knows no {path}");
    Fault { kind: FaultKind::NotFound, message, causes: Vec::new(), help: None }
}

fn bad(message: String) -> Fault {
    Fault { kind: FaultKind::BadRequest, message, causes: Vec::new(), help: None }
}

/// An error as a fault, its sources as causes.
pub(super) fn fault(kind: FaultKind, error: &dyn std::error::Error) -> Fault {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    Fault { kind, message: error.to_string(), causes, help: None }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::ParentChanged { .. } | Refusal::NoRollout(_) | Refusal::PastReturn(_) => {
                FaultKind::Conflict
            }
            Refusal::Pinned { .. } => FaultKind::Pinned,
            Refusal::NoSuchServer { .. } => FaultKind::NotFound,
            Refusal::Encode(_) => FaultKind::BadRequest,
            Refusal::Store(StoreError::Unsound(_)) => FaultKind::Tampered,
            Refusal::Store(_) | Refusal::Journal(_) => FaultKind::Internal,
            Refusal::ShuttingDown => FaultKind::Ending,
        };
        let help = (kind == FaultKind::Tampered).then(|| super::store::HELP.to_owned());
        Fault { help, ..fault(kind, &refusal) }
    }
}
