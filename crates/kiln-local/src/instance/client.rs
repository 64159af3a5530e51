//! A blocking client of the launcher.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::launcher::clients::{frame, frame_length};
use crate::launcher::protocol::{
    Answer, Envelope, Event, InstanceState, LaunchSpec, Launched, MAX_MESSAGE_BYTES, Message,
    Refusal, Request, VERSION,
};
use crate::launcher::{SOCKET, short_socket_path};

/// How long any answer may take. A start has a deadline of its own, which is shorter.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The launcher could not be asked, or has refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error("cannot reach the launcher at {}; it is started by the daemon", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The connection broke, or no answer came in time.
    #[error("the launcher does not answer")]
    Lost(#[source] io::Error),
    /// What came is no message.
    #[error("the launcher sent something that is no message")]
    Malformed(#[source] serde_json::Error),
    /// The answer belongs to another question.
    #[error("the launcher sent the answer to another question")]
    Confused,
    /// The launcher has refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A connection to a launcher. One question at a time; events wait meanwhile.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    input: Vec<u8>,
    events: VecDeque<Event>,
    next_id: u64,
}

impl Client {
    /// Connects to the launcher of the root at `root`.
    pub fn connect(root: &Path) -> Result<Self, ClientError> {
        let connect = || {
            let (_directory, path) = short_socket_path(root)?;
            UnixStream::connect(path)
        };
        let socket =
            connect().map_err(|source| ClientError::Connect { path: root.join(SOCKET), source })?;
        Ok(Self { socket, input: Vec::new(), events: VecDeque::new(), next_id: 1 })
    }

    /// Makes an instance; returns when its program runs.
    pub fn launch(&mut self, spec: LaunchSpec) -> Result<Launched, ClientError> {
        match self.ask(Request::Launch(Box::new(spec)))? {
            Answer::Launched(launched) => Ok(launched),
            _ => Err(ClientError::Confused),
        }
    }

    /// Makes many instances at once; gives their results in the order of `specs`.
    pub fn launch_all(
        &mut self,
        specs: Vec<LaunchSpec>,
    ) -> Result<Vec<Result<Launched, Refusal>>, ClientError> {
        let first = self.next_id;
        let count = specs.len();
        for spec in specs {
            self.send(Request::Launch(Box::new(spec)))?;
        }
        let mut results = vec![None; count];
        for _ in 0..count {
            let (id, result) = self.next_reply()?;
            let index = id.checked_sub(first).and_then(|index| usize::try_from(index).ok());
            let slot = index.and_then(|index| results.get_mut(index));
            *slot.ok_or(ClientError::Confused)? = Some(match result {
                Ok(Answer::Launched(launched)) => Ok(launched),
                Ok(_) => return Err(ClientError::Confused),
                Err(refusal) => Err(refusal),
            });
        }
        results.into_iter().collect::<Option<_>>().ok_or(ClientError::Confused)
    }

    /// Asks the main process to end by `signal`, and ends the instance after `grace`.
    pub fn stop(
        &mut self,
        instance: &str,
        signal: i32,
        grace: Duration,
    ) -> Result<(), ClientError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.done(Request::Stop { instance: instance.to_owned(), signal, grace_ms })
    }

    /// Sends SIGKILL to every process of the instance.
    pub fn kill(&mut self, instance: &str) -> Result<(), ClientError> {
        self.done(Request::Kill { instance: instance.to_owned() })
    }

    /// All instances that run or are not yet forgotten.
    pub fn list(&mut self) -> Result<Vec<InstanceState>, ClientError> {
        match self.ask(Request::List)? {
            Answer::Instances(instances) => Ok(instances),
            _ => Err(ClientError::Confused),
        }
    }

    /// Removes what is kept of an instance that has ended.
    pub fn forget(&mut self, instance: &str) -> Result<(), ClientError> {
        self.done(Request::Forget { instance: instance.to_owned() })
    }

    /// Asks for events on this connection.
    pub fn subscribe(&mut self) -> Result<(), ClientError> {
        self.done(Request::Subscribe)
    }

    /// Ends the launcher.
    pub fn shutdown(&mut self) -> Result<(), ClientError> {
        self.done(Request::Shutdown)
    }

    /// The next event, if one comes within `limit` (`None` waits for ever).
    pub fn next_event(&mut self, limit: Option<Duration>) -> Result<Option<Event>, ClientError> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        match self.receive(deadline)? {
            Some(Message::Event(event)) => Ok(Some(event)),
            Some(Message::Reply { .. }) => Err(ClientError::Confused),
            None => Ok(None),
        }
    }

    fn done(&mut self, request: Request) -> Result<(), ClientError> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            _ => Err(ClientError::Confused),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Answer, ClientError> {
        let id = self.send(request)?;
        match self.next_reply()? {
            (replied, result) if replied == id => Ok(result?),
            _ => Err(ClientError::Confused),
        }
    }

    fn send(&mut self, request: Request) -> Result<u64, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let frame =
            frame(&Envelope { version: VERSION, id, request }).map_err(ClientError::Lost)?;
        self.socket.write_all(&frame).map_err(ClientError::Lost)?;
        Ok(id)
    }

    fn next_reply(&mut self) -> Result<(u64, Result<Answer, Refusal>), ClientError> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            match self.receive(Some(deadline))? {
                Some(Message::Reply { id, result }) => return Ok((id, result)),
                Some(Message::Event(event)) => self.events.push_back(event),
                None => return Err(ClientError::Lost(io::ErrorKind::TimedOut.into())),
            }
        }
    }

    /// The next message; none when the deadline passes first.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<Message>, ClientError> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            self.socket.set_read_timeout(left).map_err(ClientError::Lost)?;
            let mut buffer = [0; 16 << 10];
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Lost(error)),
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Message>, ClientError> {
        let Some(length) = frame_length(&self.input) else { return Ok(None) };
        if length > MAX_MESSAGE_BYTES {
            return Err(ClientError::Lost(io::ErrorKind::InvalidData.into()));
        }
        let head = size_of::<u32>();
        let Some(body) = self.input.get(head..head + length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(ClientError::Malformed)?;
        self.input.drain(..head + length);
        Ok(Some(message))
    }
}

impl AsFd for Client {
    /// The socket, to be waited on for events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
