//! The side that hands over.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use kiln_model::name::InstanceId;
use kiln_model::route::RouteTable;
use serde::{Deserialize, Serialize};

use crate::control::server::{self, Control};
use crate::control::{Refusal, Reply};
use crate::handover::{PATIENCE, READY, TAKEN, VERSION, descriptors, receive, send};
use crate::postgres::CancelKey;

/// What the successor asks afterwards.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// What is left in flight.
    Left,
    /// A table that is in force from now on.
    Table(Box<RouteTable>),
    /// End all that is in flight to an instance.
    Sever(InstanceId),
    /// How the gates of databases are.
    Gates,
    /// Cancel what the session with this key has asked.
    Cancel(CancelKey),
}

/// What is in flight, by instance.
pub(crate) type Left = BTreeMap<InstanceId, u32>;

/// Hands everything over to the process at the other end, then answers its questions until this
/// process ends. Returns early, with nothing changed, where the other one fails before it has
/// taken over.
pub(crate) fn give(stream: &UnixStream, control: &Arc<Control>, version: u32) -> io::Result<()> {
    if version != VERSION {
        let refusal = Refusal::HandOverVersion { ours: VERSION, theirs: version };
        return server::send(stream, &Reply::Refused { refusal });
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    {
        // Held to the end: no table changes while it is handed over.
        let mut switch = control.switch();
        let presence = control.presence();
        let Some(present) = presence.as_ref().filter(|_| switch.refusal().is_none()) else {
            return server::send(stream, &Reply::Refused { refusal: Refusal::Ending });
        };
        let (estate, sockets) = switch.estate(present.lock(), present.listener())?;
        server::send(stream, &Reply::Estate(Box::new(estate)))?;
        expect(stream, READY)?;
        let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        descriptors::send(stream, &borrowed)?;
        expect(stream, TAKEN)?;
        switch.hand_over();
        drop(presence);
        control.leave();
        send(stream, &switch.left())?;
    }
    stream.set_read_timeout(None)?;
    while let Ok(question) = receive::<Question>(stream) {
        let mut switch = control.switch();
        match question {
            Question::Left => {}
            Question::Table(table) => switch.follow(*table),
            Question::Sever(instance) => drop(switch.sever(&instance)),
            Question::Gates => {
                send(stream, &switch.databases())?;
                continue;
            }
            Question::Cancel(key) => {
                let shared = Arc::clone(switch.shared());
                control.runtime.spawn(async move {
                    if !shared.cancels.cancel(key).await {
                        let before = shared.predecessors.clone();
                        let asked = tokio::task::spawn_blocking(move || before.cancel(key));
                        // Whoever asks is never told how it went.
                        let _ = asked.await;
                    }
                });
            }
        }
        send(stream, &switch.left())?;
    }
    // Nobody tells any more what is in force: what waits for a last request is not to get one.
    control.switch().abandon();
    Ok(())
}

fn expect(stream: &UnixStream, word: &str) -> io::Result<()> {
    let said: String = receive(stream)?;
    if said == word { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
