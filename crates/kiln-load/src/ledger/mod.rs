//! Clients of a database who write numbered rows and note what was acknowledged, when, and by whom.
//!
//! Each client has one connection and one question at a time. It writes its rows in order, never one
//! twice, and now and then reads how far it has come. What is told of an error is noted and left:
//! whether it was written is not known then. When all is over the table is held against the notes:
//! see [`Report`].
//!
//! All clients share one thread, so that the load itself takes no more than one processor.

mod audit;
mod report;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls};

pub use report::{Report, spectrum};

use writer::write;

/// How long a client may be without an answer before it says so and ends, and how long the audit may
/// take. Longer than the gate lets a client wait for another instance.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Who writes where, and how much.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Parameters of a connection, as libpq reads them.
    pub parameters: String,
    /// How many clients write at a time.
    pub clients: i32,
    /// Bytes of ballast in each row, which the database does not compress.
    pub ballast: usize,
    /// The pause of a client between an answer and the next question.
    pub pause: Duration,
}

impl Plan {
    /// Four clients that write small rows without a pause.
    pub fn at(parameters: impl Into<String>) -> Self {
        Self { parameters: parameters.into(), clients: 4, ballast: 0, pause: Duration::ZERO }
    }
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    told: Mutex<Vec<String>>,
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Vec<String>> {
        // A list of texts is whole at any time.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Clients that write until they are told to stop, or this is dropped.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    books: Option<oneshot::Receiver<Result<Report, String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ledger {
    /// Makes the table, where there is none, and has all clients begin.
    ///
    /// # Errors
    ///
    /// Where the table cannot be made, in words.
    ///
    /// # Panics
    ///
    /// Where the system gives no thread.
    pub fn open(plan: Plan) -> Result<Self, String> {
        let shared = Shared {
            plan,
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            told: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
        let (done, books) = oneshot::channel();
        let work = {
            let shared = shared.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("the system gives a thread its own poll");
                runtime.block_on(async {
                    let made = audit::make_table(&shared.plan).await;
                    let is_made = made.is_ok();
                    if begun.send(made).is_ok() && is_made {
                        // Nobody listens where the ledger was dropped.
                        let _ = done.send(keep(&shared).await);
                    }
                });
            }
        };
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(work);
        let thread = Some(thread.expect("the system gives a thread"));
        has_begun.recv().map_err(|_| "the ledger's thread has ended".to_owned())??;
        Ok(Self { shared, books: Some(books), thread })
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// What clients were told of errors so far.
    pub fn told(&self) -> Vec<String> {
        self.shared.told().clone()
    }

    /// Stops all clients and holds what is in the table against what they noted.
    ///
    /// # Errors
    ///
    /// Where the table cannot be read, in words.
    pub fn close(mut self) -> Result<Report, String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let books = self.books.take().expect("it is taken here alone");
        books.blocking_recv().map_err(|_| "the ledger's thread has ended".to_owned())?
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Has all clients write, and looks into their books.
async fn keep(shared: &Arc<Shared>) -> Result<Report, String> {
    let clients = 0..shared.plan.clients;
    let clients: Vec<_> =
        clients.map(|number| tokio::spawn(write(number, shared.clone()))).collect();
    let mut books = Vec::new();
    for client in clients {
        books.push(client.await.map_err(|error| format!("a client has ended: {error}"))?);
    }
    let told = shared.told().clone();
    let rows = audit::read(&shared.plan).await?;
    Ok(Report::of(books, told, &rows))
}

/// Opens a session.
async fn connect(parameters: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(parameters, NoTls).await?;
    // It ends with the client, which hears of it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}
