//! The server: one thread a connection, and a stop that leaves nobody without an answer.
//!
//! On SIGTERM the listener closes, requests under way are answered with `Connection: close`, and
//! idle connections have [`GRACE`] for one that is already coming.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::arguments::Serve;
use crate::attempts::host_name;
use crate::connections::Connections;
use crate::http::{Answer, Request};
use crate::{health, routes, signal, streams};

/// How long an idle connection stays open after the stop.
const GRACE: Duration = Duration::from_millis(250);
/// How long requests under way may take after the stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until it is told to stop.
pub(crate) fn run(options: Serve) -> ExitCode {
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kiln-probe: cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Serve) -> io::Result<()> {
    let connections = Arc::new(Connections::default());
    let waiting = Arc::clone(&connections);
    // Made before anything else, so that a signal during the delayed start counts too.
    let (stop, stopped) = std::sync::mpsc::channel();
    signal::on_stop(move || {
        waiting.stop();
        // The receiver is gone only when the process ends anyway.
        let _ = stop.send(());
    })?;
    if stopped.recv_timeout(options.delay_start).is_ok() {
        return Ok(());
    }
    health::begin(&options)?;
    let listener = TcpListener::bind(("0.0.0.0", options.port))?;
    let port = listener.local_addr()?.port();
    let options = Arc::new(options);
    log(&format!("started on port {port} as {}", host_name()));
    let socket = listener.as_raw_fd();
    let accepting = Arc::clone(&connections);
    let acceptor = thread::Builder::new().spawn(move || accept(&listener, &accepting, &options))?;
    // Ends with the signal; the sender lives as long as its thread waits for one.
    let _ = stopped.recv();
    // SAFETY: the acceptor, which has not been joined, still holds the descriptor. A listener
    // that is shut down refuses connections and wakes who waits for one.
    unsafe { libc::shutdown(socket, libc::SHUT_RD) };
    // A panic of the acceptor has been printed.
    let _ = acceptor.join();
    thread::sleep(GRACE);
    connections.shut();
    let left = connections.wait(DRAIN);
    log(&format!("stopped with {left} connections open"));
    Ok(())
}

/// Says something on stdout; that nobody may be there to read it is no reason to end.
pub(crate) fn log(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn accept(listener: &TcpListener, connections: &Arc<Connections>, options: &Arc<Serve>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => start(stream, connections, options),
            Err(_) if connections.is_stopping() => return,
            // Out of descriptors or memory for the moment.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Starts the thread of a connection; without one, the connection is closed.
fn start(stream: TcpStream, connections: &Arc<Connections>, options: &Arc<Serve>) {
    let Ok(second) = stream.try_clone() else { return };
    let number = connections.add(second);
    let (all, options) = (Arc::clone(connections), Arc::clone(options));
    let talk = move || {
        // A client that goes away in the middle is its own affair.
        let _ = converse(&stream, &all, &options);
        let _ = stream.shutdown(Shutdown::Both);
        all.remove(number);
    };
    let started = thread::Builder::new().stack_size(256 * 1024).spawn(talk);
    if started.is_err() {
        connections.remove(number);
    }
}

fn converse(stream: &TcpStream, connections: &Connections, options: &Serve) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let request = match Request::read(&mut reader) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let refusal = Answer::failed(400, error.to_string());
                return refusal.send(&Request::get("/"), false, &mut writer);
            }
            Err(error) => return Err(error),
        };
        thread::sleep(options.slow);
        if let Some(served) = streams::serve(&request, &mut reader, &mut writer) {
            return served;
        }
        let answer = routes::answer(&request, options);
        let keep_alive = request.keep_alive && !connections.is_stopping();
        answer.send(&request, keep_alive, &mut writer)?;
        if !keep_alive {
            return Ok(());
        }
    }
}
