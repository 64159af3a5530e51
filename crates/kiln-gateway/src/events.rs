//! What happens in the gateway and concerns the daemon at once.

use std::net::SocketAddrV4;

use kiln_model::name::{ComponentId, InstanceId, StackName};
use tokio::sync::broadcast;

use crate::control::Event;

/// How many events a slow subscriber may fall behind before it is told that it missed some.
const BACKLOG: usize = 1024;

/// Where events are sent; cheap to clone, and sending never waits.
#[derive(Debug, Clone)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }

    pub(crate) fn drained(&self, instance: &InstanceId) {
        self.send(Event::Drained { instance: instance.clone() });
    }

    pub(crate) fn connect_failed(
        &self,
        instance: &InstanceId,
        address: SocketAddrV4,
        error: &std::io::Error,
    ) {
        let error = error.to_string();
        self.send(Event::ConnectFailed { instance: instance.clone(), address, error });
    }

    pub(crate) fn faulty(&self, instance: &InstanceId, address: SocketAddrV4, pause_ms: u64) {
        self.send(Event::Faulty { instance: instance.clone(), address, pause_ms });
    }

    pub(crate) fn routed(&self, stack: &StackName, epoch: u64) {
        self.send(Event::Routed { stack: stack.clone(), epoch });
    }

    pub(crate) fn settled(&self, stack: &StackName, component: &ComponentId) {
        self.send(Event::Settled { stack: stack.clone(), component: component.clone() });
    }

    pub(crate) fn lost(&self, stack: &StackName, component: &ComponentId, instance: &InstanceId) {
        let (stack, component) = (stack.clone(), component.clone());
        self.send(Event::Lost { stack, component, instance: instance.clone() });
    }

    pub(crate) fn released(
        &self,
        stack: &StackName,
        component: &ComponentId,
        instance: &InstanceId,
    ) {
        let (stack, component) = (stack.clone(), component.clone());
        self.send(Event::Released { stack, component, instance: instance.clone() });
    }

    pub(crate) fn asked(&self, stack: &StackName, component: &ComponentId) {
        self.send(Event::Asked { stack: stack.clone(), component: component.clone() });
    }

    fn send(&self, event: Event) {
        // Nobody listening is fine: a new subscriber reads the status first.
        let _ = self.0.send(event);
    }
}
