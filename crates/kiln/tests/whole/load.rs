//! Constant load: clients that ask again and again, with keep-alive and without.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients at work; [`Load::stop`] ends them.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients, half of them with keep-alive, each with a request every few
    /// milliseconds.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        Self::with(address, clients, None)
    }

    /// So many clients that together have so many requests a second, as long as answers come in
    /// time.
    pub fn paced(address: SocketAddr, clients: usize, rate: u32) -> Self {
        let every = Duration::from_secs(1) * u32::try_from(clients).unwrap() / rate;
        Self::with(address, clients, Some(every))
    }

    fn with(address: SocketAddr, clients: usize, every: Option<Duration>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let clients = (0..clients)
            .map(|index| {
                let (stop, answered, failures) = (stop.clone(), answered.clone(), failures.clone());
                std::thread::spawn(move || {
                    let mut client = Client { address, keep_alive: index % 2 == 0, open: None };
                    let mut next = Instant::now();
                    while !stop.load(Ordering::Relaxed) {
                        match client.ask() {
                            Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => failures.lock().unwrap().push(error.to_string()),
                        }
                        let pause = every.map(|every| {
                            next += every;
                            next.saturating_duration_since(Instant::now())
                        });
                        std::thread::sleep(pause.unwrap_or(Duration::from_millis(5)));
                    }
                })
            })
            .collect();
        Self { stop, answered, failures, clients }
    }

    /// Ends the clients: how many requests were answered well, and what became of the others.
    pub fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        let failures = std::mem::take(&mut *self.failures.lock().unwrap());
        (self.answered.load(Ordering::Relaxed), failures)
    }

    /// Ends the clients; there must have been answers, and not one failure.
    pub fn stop(self) {
        let (answered, failures) = self.end();
        // A machine that is busy answers fewer; that there was load is what matters.
        assert!(answered > 20, "only {answered} requests were answered");
        let shown: Vec<&String> = failures.iter().take(5).collect();
        assert!(failures.is_empty(), "{} of {answered} failed: {shown:?}", failures.len());
        println!("{answered} requests answered, 0 failed");
    }
}

struct Client {
    address: SocketAddr,
    keep_alive: bool,
    open: Option<BufReader<TcpStream>>,
}

impl Client {
    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn ask(&mut self) -> io::Result<()> {
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => BufReader::new(self.connect()?),
        };
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let request = format!("GET / HTTP/1.1\r\nHost: shop\r\nConnection: {connection}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes())?;
        let (mut length, mut closes, mut line) = (0, false, String::new());
        stream.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(format!("answered {line:?}")));
        }
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            match header.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("connection", "close")) => closes = true,
                _ if header.is_empty() => break,
                _ => {}
            }
        }
        io::copy(&mut stream.by_ref().take(length), &mut io::sink())?;
        if self.keep_alive && !closes {
            self.open = Some(stream);
        }
        Ok(())
    }
}
