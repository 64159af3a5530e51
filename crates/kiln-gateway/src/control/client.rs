//! The daemon's side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_model::name::InstanceId;
use kiln_model::route::RouteTable;
use serde::de::DeserializeOwned;

use crate::control::{
    Applied, Envelope, Event, Keys, MESSAGE_LIMIT, PROTOCOL, Proof, Refusal, Reply, Request,
    Status, Traffic, socket_path,
};

/// How long a request may take. The gateway answers within milliseconds unless the machine is
/// badly overloaded.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often one that has handed over is asked.
const ASKS: u32 = 100;

/// The gateway of a root. Each call makes a connection of its own, so the handle stays good
/// when one gateway ends and another takes its place. Calls block, at most ten seconds.
#[derive(Debug, Clone)]
pub struct Gateway {
    socket: PathBuf,
    patience: Duration,
}

/// Why a call to the gateway failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// No gateway listens, or the one that did is ending; [`crate::ensure_running`] starts one.
    #[error("no gateway answers at {}", path.display())]
    NotRunning {
        /// The control socket.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The connection broke or the answer did not come in time.
    #[error("the gateway at {} does not answer", path.display())]
    Broken {
        /// The control socket.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The answer cannot be understood.
    #[error("the gateway at {} gives an answer that cannot be understood", path.display())]
    Malformed {
        /// The control socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The gateway understood and refused; it has changed nothing.
    #[error("{0}")]
    Refused(Refusal),
}

impl Gateway {
    /// The gateway of `root`, running or not.
    pub fn of(root: &Path) -> Self {
        Self { socket: socket_path(root), patience: PATIENCE }
    }

    /// The same, whose calls take at most so long each.
    pub(crate) fn patient_for(&self, patience: Duration) -> Self {
        Self { socket: self.socket.clone(), patience }
    }

    /// Replaces the table of one stack. When this returns, requests are served by the new
    /// table and every endpoint of it listens; on a refusal nothing has changed.
    ///
    /// A network has to be listed for as long as an instance on it lives. When it no longer
    /// is, connections inside it end at once.
    pub fn set_table(&self, table: RouteTable) -> Result<Applied, GatewayError> {
        self.set_table_with(table, Keys::default())
    }

    /// The same with the private keys of certificates whose keys are secrets.
    pub fn set_table_with(&self, table: RouteTable, keys: Keys) -> Result<Applied, GatewayError> {
        match self.call(Request::SetTable { table, keys })? {
            Reply::Applied(applied) => Ok(applied),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Shows certificate authorities these proofs and no others, at endpoints that have
    /// certificates by ACME.
    pub fn set_proofs(&self, proofs: Vec<Proof>) -> Result<(), GatewayError> {
        match self.call(Request::SetProofs { proofs })? {
            Reply::Proving => Ok(()),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Everything that the gateway knows.
    pub fn status(&self) -> Result<Status, GatewayError> {
        match self.call(Request::Status)? {
            Reply::Status(status) => Ok(*status),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// What is asked of servers and what their instances answer: cheap enough to be read often.
    pub fn traffic(&self) -> Result<Traffic, GatewayError> {
        match self.call(Request::Traffic)? {
            Reply::Traffic(traffic) => Ok(*traffic),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Ends all requests and connections to an instance: what its drain has left at its bound.
    /// Returns how many had not ended half a second later, which is 0 unless the machine is
    /// overloaded.
    pub fn sever(&self, instance: InstanceId) -> Result<u32, GatewayError> {
        match self.call(Request::Sever { instance })? {
            Reply::Severed { left } => Ok(left),
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Subscribes to events. What happened before is in the status, read after this returns.
    pub fn watch(&self) -> Result<Watch, GatewayError> {
        let stream = self.send(&Request::Watch)?;
        let mut lines = BufReader::new(stream);
        match self.read_reply(&mut lines)? {
            Reply::Watching => {
                Ok(Watch { socket: self.socket.clone(), lines, partial: Vec::new() })
            }
            reply => Err(self.unexpected(&reply)),
        }
    }

    /// Asks again where one process has just handed over to another.
    fn call(&self, request: Request) -> Result<Reply, GatewayError> {
        let mut asked = 1;
        loop {
            let reply = self.send(&request).and_then(|s| self.read_reply(&mut BufReader::new(s)));
            match reply {
                Err(GatewayError::Refused(Refusal::HandedOver)) if asked < ASKS => {
                    asked += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
                reply => return reply,
            }
        }
    }

    fn send(&self, request: &Request) -> Result<UnixStream, GatewayError> {
        let mut stream = UnixStream::connect(&self.socket)
            .map_err(|source| GatewayError::NotRunning { path: self.socket.clone(), source })?;
        let envelope = Envelope { protocol: PROTOCOL, message: request };
        let mut line = serde_json::to_vec(&envelope).map_err(|e| self.malformed(e))?;
        line.push(b'\n');
        stream
            .set_read_timeout(Some(self.patience))
            .and_then(|()| stream.set_write_timeout(Some(self.patience)))
            .and_then(|()| stream.write_all(&line))
            .map_err(|source| self.broken(source))?;
        Ok(stream)
    }

    fn read_reply(&self, lines: &mut BufReader<UnixStream>) -> Result<Reply, GatewayError> {
        let mut line = Vec::new();
        lines
            .take(MESSAGE_LIMIT)
            .read_until(b'\n', &mut line)
            .map_err(|source| self.broken(source))?;
        if line.is_empty() {
            return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match parse(&line).map_err(|source| self.malformed(source))? {
            Reply::Refused { refusal: Refusal::Ending } => {
                Err(self.broken(io::ErrorKind::ConnectionReset.into()))
            }
            Reply::Refused { refusal } => Err(GatewayError::Refused(refusal)),
            reply => Ok(reply),
        }
    }

    /// A connection that is closed without an answer is that of a gateway that has ended.
    fn broken(&self, source: io::Error) -> GatewayError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let path = self.socket.clone();
        match source.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => {
                GatewayError::NotRunning { path, source }
            }
            _ => GatewayError::Broken { path, source },
        }
    }

    fn malformed(&self, source: serde_json::Error) -> GatewayError {
        GatewayError::Malformed { path: self.socket.clone(), source }
    }

    fn unexpected(&self, reply: &Reply) -> GatewayError {
        let reason = format!("unexpected reply {reply:?}");
        self.malformed(serde::de::Error::custom(reason))
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice::<Envelope<T>>(line).map(|envelope| envelope.message)
}

/// A subscription to events; it ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    socket: PathBuf,
    lines: BufReader<UnixStream>,
    /// The beginning of an event whose end had not come when the wait was over.
    partial: Vec<u8>,
}

impl Watch {
    /// The next event, waited for at most `timeout` (at least a millisecond); `None` when
    /// there was none. An error means that the gateway is gone.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, GatewayError> {
        let broken = |path: &Path, source| GatewayError::Broken { path: path.to_owned(), source };
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            let stream = self.lines.get_ref();
            stream.set_read_timeout(Some(left)).map_err(|e| broken(&self.socket, e))?;
            match self.lines.read_until(b'\n', &mut self.partial) {
                Ok(_) if self.partial.ends_with(b"\n") => break,
                Ok(_) => {
                    return Err(broken(&self.socket, io::ErrorKind::UnexpectedEof.into()));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(broken(&self.socket, error)),
            }
        }
        let line = std::mem::take(&mut self.partial);
        parse(&line)
            .map(Some)
            .map_err(|source| GatewayError::Malformed { path: self.socket.clone(), source })
    }
}
