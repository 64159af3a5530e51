//! Talking to the daemon of a root.

mod start;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use kiln_engine::backup::{Answer, Ask};
use kiln_engine::guard::GuardReport;
use kiln_model::name::{ComponentId, StackName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::api::document::{Drift, Metrics, Status};
use crate::api::follows::Following;
use crate::api::{self, Fault, FaultKind, Line};
use crate::follow::registry::Follow;
use crate::root::{Root, RootError};

pub use start::ensure_daemon;

/// How long a daemon may take to say its version.
const GREETING_BOUND: Duration = Duration::from_secs(10);

/// A connection to the daemon of a root. It carries one request at a time.
#[derive(Debug)]
pub struct Client {
    requests: SendRequest<Full<Bytes>>,
}

/// Why the daemon can't be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("no daemon serves {root}")]
    NotRunning {
        /// The root directory.
        root: String,
    },
    /// It can't be reached.
    #[error("the daemon of {root} cannot be reached")]
    Unreachable {
        /// The root directory.
        root: String,
        /// Why.
        source: io::Error,
    },
    /// It is another program than this one.
    #[error("the daemon of {root} is kiln {found}, and this is kiln {own}", own = api::VERSION)]
    OtherVersion {
        /// The root directory.
        root: String,
        /// Its version.
        found: String,
        /// Its process.
        pid: u32,
    },
    /// It was started and does not answer.
    #[error("the daemon of {root} was started and {what}")]
    NotStarted {
        /// The root directory.
        root: String,
        /// What is known.
        what: String,
        /// The last line of its log.
        last_line: Option<String>,
    },
    /// The program can't be run.
    #[error("{program} cannot be started as the daemon")]
    Spawn {
        /// This program's path.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The root can't be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// It refused.
    #[error("{}", .0.message)]
    Refused(Fault),
    /// The connection broke.
    #[error("the connection to the daemon broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answered what makes no sense.
    #[error("the daemon's answer cannot be understood")]
    Answer(#[source] serde_json::Error),
}

impl ClientError {
    /// Whether the daemon has ended before it answered: another one can be asked.
    pub fn is_its_end(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Refused(fault) => fault.kind == FaultKind::Ending,
            _ => false,
        }
    }

    /// The way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotRunning { root } => Some(format!(
                "start it with `kiln --root {root} serve`; `kiln apply` starts it by itself"
            )),
            Self::OtherVersion { pid, .. } => Some(format!(
                "end it with `kill {pid}`: instances and traffic go on, and the next command \
                 starts this version"
            )),
            Self::NotStarted { root, .. } => {
                Some(format!("see {root}/logs/daemon.log for what it did"))
            }
            Self::Broken(_) => Some(
                "what was committed goes on; `kiln status` shows how far it has come".to_owned(),
            ),
            Self::Root(error) => error.help().map(str::to_owned),
            Self::Refused(fault) => fault.help.clone(),
            Self::Unreachable { .. } | Self::Spawn { .. } | Self::Answer(_) => None,
        }
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
    ClientError::Broken(Box::new(error))
}

impl Client {
    /// A connection to the daemon of `root`, which must be of this version.
    pub async fn connect(root: &Root) -> Result<Self, ClientError> {
        let name = || root.path().display().to_string();
        let stream = UnixStream::connect(root.socket()).await.map_err(|source| {
            use io::ErrorKind::{ConnectionRefused, NotFound};
            match source.kind() {
                NotFound | ConnectionRefused => ClientError::NotRunning { root: name() },
                _ => ClientError::Unreachable { root: name(), source },
            }
        })?;
        let (requests, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // How it ends is told to the request that is under way.
        tokio::spawn(async move { drop(connection.await) });
        let mut client = Self { requests };
        let version = tokio::time::timeout(GREETING_BOUND, client.version()).await;
        let version = version.map_err(|_| ClientError::Unreachable {
            root: name(),
            source: io::Error::new(io::ErrorKind::TimedOut, "it does not answer"),
        })?;
        let version = version.map_err(|error| match error {
            // It was ending when it was met, and nothing had been asked of it.
            ClientError::Broken(_) => ClientError::NotRunning { root: name() },
            error => error,
        })?;
        if version.version == api::VERSION {
            return Ok(client);
        }
        Err(ClientError::OtherVersion { root: name(), found: version.version, pid: version.pid })
    }

    /// Who answers.
    pub async fn version(&mut self) -> Result<api::Version, ClientError> {
        // Just these two fields must be understood by every version to come.
        #[derive(Deserialize)]
        struct Greeting {
            version: String,
            pid: u32,
        }
        let Greeting { version, pid } = self.get("/v1/version").await?;
        Ok(api::Version { version, pid })
    }

    /// The stacks that have a keeper.
    pub async fn stacks(&mut self) -> Result<Vec<StackName>, ClientError> {
        self.get("/v1/stacks").await
    }

    /// What is measured of all stacks.
    pub async fn metrics(&mut self) -> Result<Metrics, ClientError> {
        self.get("/v1/metrics").await
    }

    /// What the daemon's guard says of itself.
    pub async fn guard(&mut self) -> Result<GuardReport, ClientError> {
        self.get("/v1/guard").await
    }

    /// The state of a stack, measured now.
    pub async fn status(&mut self, stack: &StackName) -> Result<Status, ClientError> {
        self.get(&format!("/v1/stacks/{stack}/status")).await
    }

    /// What differs in a stack, measured now.
    pub async fn measure(&mut self, stack: &StackName) -> Result<Drift, ClientError> {
        self.post(&format!("/v1/stacks/{stack}/measure"), &()).await
    }

    /// Takes the pin out.
    pub async fn resume(&mut self, stack: &StackName) -> Result<(), ClientError> {
        self.post(&format!("/v1/stacks/{stack}/resume"), &()).await
    }

    /// The branches that are followed.
    pub async fn follows(&mut self) -> Result<Vec<Following>, ClientError> {
        self.get("/v1/follows").await
    }

    /// Begins to follow a branch.
    pub async fn follow(&mut self, wanted: &Follow) -> Result<Following, ClientError> {
        self.post("/v1/follows", wanted).await
    }

    /// Has a branch looked at now; with `retry`, also if its commit was given up.
    pub async fn look(&mut self, id: &str, retry: bool) -> Result<Following, ClientError> {
        let verb = if retry { "retry" } else { "look" };
        self.post(&format!("/v1/follows/{id}/{verb}"), &()).await
    }

    /// Ends the following of a branch.
    pub async fn unfollow(&mut self, id: &str) -> Result<Following, ClientError> {
        self.post(&format!("/v1/follows/{id}/stop"), &()).await
    }

    /// Has the daemon take the store as it is for the truth; what was wrong with it.
    pub async fn accept(&mut self, wanted: &api::Acceptance) -> Result<Vec<String>, ClientError> {
        self.post("/v1/accept", wanted).await
    }

    /// Gives up the rollout under way; its generation.
    pub async fn backups(
        &mut self,
        stack: &StackName,
        database: &ComponentId,
        ask: &Ask,
    ) -> Result<Answer, ClientError> {
        let question = api::BackupQuestion { database: database.clone(), ask: ask.clone() };
        self.post(&format!("/v1/stacks/{stack}/backups"), &question).await
    }

    /// Gives the rollout up that is under way; its number.
    pub async fn cancel(&mut self, stack: &StackName) -> Result<u64, ClientError> {
        self.post(&format!("/v1/stacks/{stack}/cancel"), &()).await
    }

    /// Proposes a content; what happens then.
    pub async fn apply(
        &mut self,
        stack: &StackName,
        wanted: &api::Apply,
    ) -> Result<Lines, ClientError> {
        let answer = self.send(Method::POST, &format!("/v1/stacks/{stack}/apply"), wanted).await?;
        Ok(Lines { body: answer.into_body(), read: BytesMut::new() })
    }

    /// Pins a count or gives it back; what happens then.
    pub async fn scale(
        &mut self,
        stack: &StackName,
        wanted: &api::Scale,
    ) -> Result<Lines, ClientError> {
        let answer = self.send(Method::POST, &format!("/v1/stacks/{stack}/scale"), wanted).await?;
        Ok(Lines { body: answer.into_body(), read: BytesMut::new() })
    }

    async fn get<D: DeserializeOwned>(&mut self, path: &str) -> Result<D, ClientError> {
        let answer = self.send(Method::GET, path, &()).await?;
        document(answer).await
    }

    async fn post<D: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<D, ClientError> {
        let answer = self.send(Method::POST, path, body).await?;
        document(answer).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, ClientError> {
        let text = serde_json::to_vec(body).map_err(ClientError::Answer)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "kiln")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(text))
            .map_err(broken)?;
        self.requests.ready().await.map_err(broken)?;
        let answer = self.requests.send_request(request).await.map_err(broken)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(ClientError::Refused(document(answer).await?))
    }
}

async fn document<D: DeserializeOwned>(answer: Response<Incoming>) -> Result<D, ClientError> {
    let text = answer.into_body().collect().await.map_err(broken)?.to_bytes();
    serde_json::from_slice(&text).map_err(ClientError::Answer)
}

/// The lines of a stream.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    read: BytesMut,
}

impl Lines {
    /// The next line; `None` after the last. Nothing is lost when the future is dropped before
    /// it is ready.
    pub async fn next(&mut self) -> Result<Option<Line>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(ClientError::Answer);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }
}
