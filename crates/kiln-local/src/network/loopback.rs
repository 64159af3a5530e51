//! A network that leads nowhere.

use kiln_netns::Namespace;

use super::error::{About, Error};
use super::netlink::{Batch, Protocol, Socket};
use super::rtnl::link;

/// Sets the loopback interface of a namespace up; `subject` is for the message.
pub fn set_loopback_up(namespace: &Namespace, subject: &str) -> Result<(), Error> {
    let mut socket = Socket::open_in(namespace, Protocol::Route).about(subject)?;
    let mut batch = Batch::default();
    link::set_up(&mut batch, link::LOOPBACK);
    socket.execute(&batch).about(subject)
}
