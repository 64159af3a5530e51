//! The switch while it hands over, and afterwards.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use kiln_model::route::RouteTable;
use tokio::time::Instant;

use super::{Purpose, Switch, databases, is_newer, retire};
use crate::handover::{self, Estate, HeldCertificate, Left, SocketName};
use crate::listener::Phase;
use crate::process::Lock;
use crate::table::compile;
use crate::tls::Texts;

impl Switch {
    /// All that there is to hand over, with copies of the sockets.
    pub(crate) fn estate(
        &self,
        lock: &Lock,
        control: &UnixListener,
    ) -> io::Result<(Estate, Vec<OwnedFd>)> {
        let mut sockets = vec![
            (SocketName::Lock, lock.as_fd().try_clone_to_owned()?),
            (SocketName::Control, control.as_fd().try_clone_to_owned()?),
        ];
        for (key, listener) in &self.listeners {
            let copy = listener.socket().as_fd().try_clone_to_owned()?;
            sockets.push((SocketName::Endpoint(key.clone()), copy));
        }
        for (key, datagrams) in &self.datagrams {
            let copy = datagrams.socket().as_fd().try_clone_to_owned()?;
            sockets.push((SocketName::Endpoint(key.clone()), copy));
        }
        for (id, inside) in &self.inside {
            sockets.extend(inside.sockets(id)?);
        }
        let snapshot = self.snapshot();
        let endpoints = snapshot.stacks().flat_map(|view| &view.endpoints);
        let kept = endpoints.flat_map(|endpoint| &endpoint.certificates);
        let certificates = kept.filter_map(|kept| {
            let Texts { certificate, key } = kept.texts()?;
            Some(HeldCertificate { source: kept.source().clone(), certificate, key })
        });
        let estate = Estate {
            tables: snapshot.stacks().map(|view| view.table.clone()).collect(),
            sockets: sockets.iter().map(|(name, _)| name.clone()).collect(),
            certificates: certificates.collect(),
            proofs: self.proofs.clone(),
            gates: self.held_gates(),
            tells_gates: true,
        };
        Ok((estate, sockets.into_iter().map(|(_, socket)| socket).collect()))
    }

    /// Another process accepts now; connections that are open have the bound of the hand-over.
    pub(crate) fn hand_over(&mut self) {
        let bound = handover::BOUND;
        let listeners = self.listeners.drain().map(|(_, listener)| listener.leave(bound));
        self.left.extend(listeners);
        let datagrams = self.datagrams.drain().map(|(_, datagrams)| datagrams.leave(bound));
        self.left.extend(datagrams);
        self.left.extend(self.inside.drain().flat_map(|(_, inside)| inside.leave(bound)));
        self.purpose.send_replace(Purpose::HandedOver);
    }

    /// What is in flight, by instance, processes before this one included.
    pub(crate) fn left(&self) -> Left {
        let loads = self.registry.loads().into_iter();
        let busy = loads.filter(|load| load.total() > 0);
        busy.map(|load| (load.instance().clone(), load.total())).collect()
    }

    /// Takes up a table that is in force in the process that has taken over, for requests that
    /// still come over kept connections. One that is not understood ends those.
    pub(crate) fn follow(&mut self, table: RouteTable) {
        let before = self.snapshot();
        let present = before.stack(&table.stack).map(|view| &view.table);
        if !is_newer(present, &table).unwrap_or(false) {
            return;
        }
        self.registry.tidy();
        let told = table.clone();
        let view = match compile(table, &mut self.registry, None) {
            Ok(view) => Arc::new(view),
            Err(error) => {
                eprintln!("kiln gateway: cannot follow the table of the next process: {error}");
                return self.abandon();
            }
        };
        let after = Arc::new(before.with(view));
        after.loads().for_each(|load| load.restore());
        after.peers().for_each(|peer| peer.pool().reopen());
        self.shared.current.store(Arc::clone(&after));
        after.set_gates(false);
        databases::aim(&before, &after);
        self.predecessors.follow(&told, &mut self.registry);
        self.gather_gates();
        databases::clear(&before, &after);
        retire(&before, &after);
    }

    /// Ends connections that wait for a last request; what is in flight goes on.
    pub(crate) fn abandon(&mut self) {
        for phase in &self.left {
            phase.send_replace(Phase::Closing(Instant::now() + handover::BOUND));
        }
    }

    /// Whether processes before this one have something left.
    pub(crate) fn has_predecessors(&self) -> bool {
        !self.predecessors.is_empty()
    }

    /// Looks what processes before this one have left; returns whether there are any.
    pub(crate) fn look_back(&mut self) -> bool {
        self.predecessors.look(&mut self.registry);
        self.gather_gates();
        !self.predecessors.is_empty()
    }
}
