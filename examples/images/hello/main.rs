//! A web server of few lines, from the standard library alone.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> Result<()> {
    let listener = TcpListener::bind("0.0.0.0:8000")?;
    for stream in listener.incoming() {
        // A client that goes away is no reason to end.
        if let Ok(stream) = stream {
            std::thread::spawn(move || answer(stream));
        }
    }
    Ok(())
}

/// Reads one request, whatever it is, and greets.
fn answer(stream: TcpStream) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    while matches!(lines.next().transpose()?, Some(line) if !line.is_empty()) {}
    let body = "hello\n";
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
