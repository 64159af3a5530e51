//! What the probe says of its health, and what befalls it by itself.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crate::arguments::Serve;
use crate::server::log;
use crate::{grpc, streams};

/// Whether it can serve.
pub(crate) static READY: AtomicBool = AtomicBool::new(true);
/// Whether it lives.
pub(crate) static LIVE: AtomicBool = AtomicBool::new(true);

/// Begins what was asked for beside serving HTTP.
pub(crate) fn begin(options: &Serve) -> io::Result<()> {
    if let Some(port) = options.grpc {
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        thread::spawn(move || grpc::serve(&listener));
    }
    if let Some(port) = options.echo {
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        thread::spawn(move || streams::echo(&listener));
    }
    if let Some(text) = options.say.clone() {
        later(options.say_after, move || log(&text));
    }
    if let Some(after) = options.die_after {
        later(after, || {
            log("cannot go on");
            std::process::exit(3)
        });
    }
    Ok(())
}

fn later(after: Duration, then: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        thread::sleep(after);
        then();
    });
}
