//! Names inside a network, answered per client (RFC 1035, over UDP and TCP).

mod answer;
mod forward;
mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kiln_model::name::InstanceId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::connection::Shared;
use crate::listener::{Phase, closing};
use crate::table::Network;
use answer::{Answer, answer};

/// The longest datagram that is read. Queries are short; EDNS allows up to 4,096 in practice.
const DATAGRAM: usize = 4096;

/// Questions that may be waiting for the host's resolvers, per network.
const FORWARDS: usize = 256;

/// A pause after the socket has reported an error.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// How long a TCP connection may be silent.
const TCP_IDLE: Duration = Duration::from_secs(5);

/// Answers datagrams until it is closed or dropped.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: Arc<std::net::UdpSocket>,
    task: AbortHandle,
    left: watch::Sender<bool>,
}

impl Datagrams {
    pub(crate) fn start(
        socket: std::net::UdpSocket,
        shared: &Arc<Shared>,
        network: &InstanceId,
    ) -> io::Result<Self> {
        let left = watch::Sender::new(false);
        let copy = socket.try_clone()?;
        let task = serve_datagrams(copy, Arc::clone(shared), network.clone(), left.subscribe());
        let task = shared.workers.first().spawn(async move {
            if let Err(error) = task.await {
                eprintln!("kiln gateway: names are not answered any more: {error}");
            }
        });
        Ok(Self { socket: Arc::new(socket), task: task.abort_handle(), left })
    }

    pub(crate) fn socket(&self) -> &std::net::UdpSocket {
        &self.socket
    }

    pub(crate) fn close(self) {
        self.task.abort();
    }

    /// Leaves the socket to others; what was asked already is answered.
    pub(crate) fn leave(self) {
        self.left.send_replace(true);
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // One that was left ends by itself.
        if !*self.left.borrow() {
            self.task.abort();
        }
    }
}

async fn serve_datagrams(
    socket: std::net::UdpSocket,
    shared: Arc<Shared>,
    id: InstanceId,
    mut left: watch::Receiver<bool>,
) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::from_std(socket)?);
    let forwards = Arc::new(Semaphore::new(FORWARDS));
    let mut buffer = vec![0; DATAGRAM];
    // Ends with the task: an answer that is still out is not waited for.
    let mut waiting = tokio::task::JoinSet::new();
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            _left = left.wait_for(|left| *left) => break,
        };
        let Ok((length, client)) = received else {
            // An earlier answer did not arrive, or memory is short; the socket stays good.
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        while waiting.try_join_next().is_some() {}
        let answer = match shared.current.load().network(&id) {
            Some(network) => reply(network, client, &buffer[..length]),
            None => continue,
        };
        match answer {
            Answer::Reply(reply) => drop(socket.try_send_to(&reply, client)),
            Answer::Nothing => {}
            Answer::Forward { query, failed } => {
                let Ok(permit) = Arc::clone(&forwards).try_acquire_owned() else {
                    drop(socket.try_send_to(&failed, client));
                    continue;
                };
                let socket = Arc::clone(&socket);
                waiting.spawn(async move {
                    let reply = forward::over_udp(&query).await.unwrap_or(failed);
                    drop(socket.send_to(&reply, client).await);
                    drop(permit);
                });
            }
        }
    }
    while waiting.join_next().await.is_some() {}
    Ok(())
}

/// Answers the questions of one TCP connection.
pub(crate) fn accept(
    shared: &Arc<Shared>,
    network: &InstanceId,
    stream: std::net::TcpStream,
    remote: SocketAddr,
    mut phase: watch::Receiver<Phase>,
) {
    let (shared_, id) = (Arc::clone(shared), network.clone());
    shared.workers.first().spawn(async move {
        tokio::select! {
            // A client that goes away or errs has nobody left to tell.
            _ended = serve_stream(&shared_, &id, stream, remote) => {}
            _deadline = closing(&mut phase) => {}
        }
    });
}

async fn serve_stream(
    shared: &Shared,
    id: &InstanceId,
    stream: std::net::TcpStream,
    remote: SocketAddr,
) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream)?;
    loop {
        let length = timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
        // The network is not held while an answer from elsewhere is waited for.
        let answer = match shared.current.load().network(id) {
            Some(network) => reply(network, remote, &query),
            None => return Ok(()),
        };
        let reply = match answer {
            Answer::Reply(reply) => reply,
            Answer::Nothing => return Ok(()),
            Answer::Forward { query, failed } => forward::over_tcp(&query).await.unwrap_or(failed),
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

fn reply(network: &Network, client: SocketAddr, query: &[u8]) -> Answer {
    let client = match client.ip() {
        IpAddr::V4(client) => client,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    answer(network.clients.get(&client), network.forward_names, query)
}
