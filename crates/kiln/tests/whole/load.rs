//! Constant load on a site's endpoint, of which not one request may fail.

use std::net::SocketAddr;
use std::time::Duration;

use kiln_load::{Aim, Group, Kind, Pace, Tally};

/// Clients at work; [`Load::stop`] ends them.
pub struct Load(kiln_load::Load);

impl Load {
    /// So many clients, half of them with keep-alive, each with a request every few
    /// milliseconds.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        Self::with(address, clients, Pace::Pause(Duration::from_millis(5)))
    }

    /// So many clients that together have so many requests a second.
    pub fn paced(address: SocketAddr, clients: usize, rate: u32) -> Self {
        let every = Duration::from_secs(1) * u32::try_from(clients).unwrap() / rate;
        Self::with(address, clients, Pace::Every(every))
    }

    fn with(address: SocketAddr, clients: usize, pace: Pace) -> Self {
        let group = |kind, clients| Group { kind, clients, pace, posts: false };
        let groups =
            [group(Kind::Http1Kept, clients.div_ceil(2)), group(Kind::Http1Fresh, clients / 2)];
        Self(kiln_load::Load::start(Aim { http: address, tcp: None }, &groups))
    }

    /// Ends the clients: how many requests were answered well, and what became of the others.
    pub fn end(self) -> (u64, Vec<String>) {
        let tally = self.0.end();
        (tally.answered(), tally.failures)
    }

    /// Ends the clients; there must have been answers, and not one failure.
    pub fn stop(self) {
        none_failed(&self.0.end());
    }
}

/// There must have been answers, and not one failure.
pub fn none_failed(tally: &Tally) {
    let (answered, failures) = (tally.answered(), &tally.failures);
    // A machine that is busy answers fewer; that there was load is what matters.
    assert!(answered > 20, "only {answered} requests were answered");
    let shown: Vec<&String> = failures.iter().take(5).collect();
    assert!(failures.is_empty(), "{} of {answered} failed: {shown:?}", failures.len());
    println!("{answered} requests answered, 0 failed");
}
