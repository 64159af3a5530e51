//! What HTTP/2 clients may send and may not: the cases of RFC 9113 and RFC 7541 that a server has
//! to accept or refuse, in the order of the sections, each sent byte by byte. Floods are at the
//! end.

mod accepted;
mod floods;
mod refused;
mod wire;

use std::net::SocketAddr;

use kiln_model::route::Protocol;

use crate::backend::Backend;
use crate::client::get;
use crate::world::{Network, World, endpoint, table};

/// Error codes (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

fn served(name: &str) -> Option<(World, Network, Backend, SocketAddr)> {
    let world = World::start(name)?;
    let network = world.network("front-1");
    let backend = Backend::http(&network, "web-1");
    let route = endpoint("web", 0, Protocol::Http, vec![backend.route.clone()]);
    let applied = world.gateway.set_table(table(vec![route], vec![])).unwrap();
    let address = applied.bound[0].address;
    assert_eq!(get(address, "/").unwrap().status, 200);
    Some((world, network, backend, address))
}

/// The preface, settings, and what follows.
fn begun(frames: &[&[u8]]) -> Vec<u8> {
    let settings = wire::frame(wire::SETTINGS, 0, 0, &[]);
    [&[wire::PREFACE, &settings][..], frames].concat().concat()
}
