//! Connections to instances, over their unix sockets.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::gate::{Aim, Gate, Linked};
use super::pipe::{Inlet, Outlet};
use super::wire::{self, CancelKey, Fault, Step, code};
use crate::load::{Enlisted, InFlight, Load, Unit};

/// What PostgreSQL calls its socket at the port that is usual.
const SOCKET: &str = ".s.PGSQL.5432";

/// How long an instance has to begin a session.
const BEGIN: Duration = Duration::from_secs(5);

/// The longest message that is taken for an answer to what is asked here.
const ANSWER: usize = 64 << 20;

/// A session with an instance.
#[derive(Debug)]
pub(super) struct Link {
    // Before the socket, which has to be open as long as it is listed.
    enlisted: Enlisted,
    pub(super) stream: UnixStream,
    pub(super) inlet: Inlet,
    pub(super) outlet: Outlet,
    pub(super) linked: Linked,
    _in_flight: InFlight,
}

/// What an instance says at the beginning.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// Settings and their values, in order.
    pub(super) parameters: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) key: Option<CancelKey>,
    /// Messages that are for the client.
    pub(super) notices: Vec<u8>,
}

/// Why there is no session with an instance.
#[derive(Debug)]
pub(super) enum Unreached {
    /// It may be there in a moment.
    NotYet(String),
    /// It refuses this client, with the message that says why.
    Refused { message: Vec<u8>, why: String },
}

impl From<io::Error> for Unreached {
    fn from(error: io::Error) -> Self {
        Unreached::NotYet(error.to_string())
    }
}

/// A connection to the socket in a directory, whose path may be longer than an address can be.
pub(super) async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())).await
}

impl Link {
    /// Begins a session with the instance of an aim, if that is a primary.
    pub(super) async fn begin(
        gate: &Arc<Gate>,
        aim: &Aim,
        startup: &[u8],
    ) -> Result<(Self, Greeting), Unreached> {
        let not_yet = |why: &str| Unreached::NotYet(why.to_owned());
        let load: &Arc<Load> = aim.open().ok_or_else(|| not_yet("none answers"))?;
        let linked = gate.link(aim).ok_or_else(|| not_yet("another one is to answer"))?;
        let in_flight = load.enter(Unit::Connection).ok_or_else(|| not_yet("it is to end"))?;
        let begun = timeout(BEGIN, async {
            let stream = connect(&gate.socket_directory(load.instance())).await?;
            let enlisted = load.enlist(&stream)?;
            let (inlet, outlet) = Default::default();
            let mut link = Self { enlisted, stream, inlet, outlet, linked, _in_flight: in_flight };
            let greeting = link.greet(startup).await?;
            Ok((link, greeting))
        });
        begun.await.unwrap_or_else(|_elapsed| Err(not_yet("it does not answer")))
    }

    async fn greet(&mut self, startup: &[u8]) -> Result<Greeting, Unreached> {
        let (mut greeting, mut refused) = (Greeting::default(), None);
        let asked = self
            .converse(startup, 1, |_, kind, message| {
                let body = wire::body(message);
                match kind {
                    b'S' => greeting.parameters.extend(read_parameter(body)),
                    b'K' => greeting.key = CancelKey::read(body),
                    b'N' | b'A' => greeting.notices.extend_from_slice(message),
                    b'E' => refused = Some(message.to_vec()),
                    b'R' if body != [0; 4] => {
                        let mut message = Vec::new();
                        let why = "the instance asks for a password: its pg_hba.conf has to trust \
                                   who comes over its socket";
                        wire::fatal(&mut message, code::NOT_ALLOWED, why);
                        refused = Some(message);
                    }
                    _ => {}
                }
            })
            .await;
        if let Some(message) = refused {
            let fault = Fault::read(wire::body(&message));
            let why = fault.to_string();
            return Err(if fault.is_of_instance() {
                Unreached::NotYet(why)
            } else {
                Unreached::Refused { message, why }
            });
        }
        asked?;
        let standby = greeting.parameters.iter().find(|(name, _)| name == b"in_hot_standby");
        let standby = match standby {
            Some((_, value)) => value != b"off",
            // Before version 14 it has to be asked.
            None => self.is_in_recovery().await?,
        };
        if standby {
            return Err(Unreached::NotYet("it is a standby".to_owned()));
        }
        Ok(greeting)
    }

    async fn is_in_recovery(&mut self) -> io::Result<bool> {
        let (mut question, mut recovers) = (Vec::new(), true);
        wire::query(&mut question, b"select pg_catalog.pg_is_in_recovery()");
        self.converse(&question, 1, |_, kind, message| {
            if kind == b'D'
                && let Some(columns) = wire::columns(wire::body(message))
            {
                recovers = columns != [Some(&b"f"[..])];
            }
        })
        .await?;
        Ok(recovers)
    }

    /// Sends `bytes` and reads what comes until so many `ReadyForQuery` have; `each` is told each
    /// message, with how many came before it. What had begun before is left to `each` as well.
    pub(super) async fn converse(
        &mut self,
        bytes: &[u8],
        rounds: usize,
        mut each: impl FnMut(usize, u8, &[u8]),
    ) -> io::Result<()> {
        let (mut read, mut write) = self.stream.split();
        let inlet = &mut self.inlet;
        let receive = async {
            let mut round = 0;
            loop {
                let mut at = 0;
                while round < rounds {
                    let step = inlet.scanner.step(&inlet.kept[at..], |_| Some(ANSWER));
                    let step = step.map_err(|m| io::Error::other(m.0))?;
                    at += step.size();
                    match step {
                        Step::Whole { kind, bytes } => {
                            each(round, kind, bytes);
                            round += usize::from(kind == b'Z');
                        }
                        Step::Begun { .. } | Step::Rest(_) => {
                            return Err(io::Error::other("an answer is too long"));
                        }
                        Step::More => break,
                    }
                }
                inlet.kept.drain(..at);
                if round == rounds {
                    return Ok(());
                }
                if read.read_buf(&mut inlet.kept).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        };
        tokio::try_join!(write.write_all(bytes), receive)?;
        if self.inlet.kept.is_empty() {
            self.inlet.kept = Vec::new();
        }
        Ok(())
    }

    /// Whether the daemon had the connection cut.
    pub(super) fn is_severed(&self) -> bool {
        self.enlisted.is_severed()
    }
}

/// A setting and its value.
pub(super) fn read_parameter(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name, rest) = wire::split_text(body)?;
    let (value, _) = wire::split_text(rest)?;
    Some((name.to_vec(), value.to_vec()))
}
