//! One client that writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::{PATIENCE, Shared, connect};

/// After so many rows a client reads how far it has come.
const READS: i64 = 16;
/// The pause after an error.
const AGAIN: Duration = Duration::from_millis(50);

const WRITE: &str = "INSERT INTO ledger (client, n, sum, ballast) VALUES ($1, $2, $3, $4) \
                     RETURNING taken_by";
const READ: &str = "SELECT coalesce(max(n), 0) FROM ledger WHERE client = $1";

/// What one client noted.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) client: i32,
    pub(super) entries: Vec<Entry>,
    /// Those that took the writes, as [`Entry::by`] names them.
    pub(super) takers: Vec<String>,
    /// What it found to be against what it was told.
    pub(super) complaints: Vec<String>,
    pub(super) begun: Instant,
}

/// A row that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) n: i64,
    /// When it was sent.
    pub(super) asked: Instant,
    /// When it was acknowledged.
    pub(super) answered: Instant,
    /// By whom: an index.
    pub(super) by: usize,
}

/// What must stand in a row.
pub(super) fn sum(n: i64) -> String {
    format!("{:x}", n.wrapping_mul(0x9E37_79B9))
}

/// A session with what is asked in it.
struct Session {
    client: Client,
    write: Statement,
    read: Statement,
}

impl Session {
    async fn open(parameters: &str) -> Result<Self, tokio_postgres::Error> {
        let client = connect(parameters).await?;
        let write = client.prepare(WRITE).await?;
        let read = client.prepare(READ).await?;
        Ok(Self { client, write, read })
    }
}

/// Writes until it is told to stop.
pub(super) async fn write(client: i32, shared: Arc<Shared>) -> Book {
    let begun = Instant::now();
    let (entries, takers, complaints) = Default::default();
    let mut writer = Writer {
        shared,
        session: None,
        next: 0,
        book: Book { client, entries, takers, complaints, begun },
    };
    while !writer.shared.is_stopped() {
        match tokio::time::timeout(PATIENCE, writer.step()).await {
            Ok(Ok(())) => tokio::time::sleep(writer.shared.plan.pause).await,
            Ok(Err(error)) => {
                let last = writer.next;
                writer.shared.told().push(format!("client {client}, {last}: {}", chain(&error)));
                writer.session = None;
                tokio::time::sleep(AGAIN).await;
            }
            Err(_) => {
                let complaint = format!("client {client} is told nothing for {PATIENCE:?}");
                writer.book.complaints.push(complaint);
                break;
            }
        }
    }
    writer.book
}

struct Writer {
    shared: Arc<Shared>,
    session: Option<Session>,
    /// The last row that was asked for.
    next: i64,
    book: Book,
}

impl Writer {
    async fn step(&mut self) -> Result<(), tokio_postgres::Error> {
        let Some(session) = &self.session else {
            self.session = Some(Session::open(&self.shared.plan.parameters).await?);
            return Ok(());
        };
        let client = self.book.client;
        if self.next % READS == READS - 1 {
            let found: i64 = session.client.query_one(&session.read, &[&client]).await?.get(0);
            let least = self.book.entries.last().map_or(0, |entry| entry.n);
            if found < least {
                let complaint = format!("client {client} reads {found} after {least}");
                self.book.complaints.push(complaint);
            }
        }
        self.next += 1;
        let n = self.next;
        let ballast = "b".repeat(self.shared.plan.ballast);
        let asked = Instant::now();
        let sum = sum(n);
        let values: [&(dyn ToSql + Sync); 4] = [&client, &n, &sum, &ballast];
        let taker: String = session.client.query_one(&session.write, &values).await?.get(0);
        let answered = Instant::now();
        let by = self.taker(taker);
        self.book.entries.push(Entry { n, asked, answered, by });
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The index of one that takes writes; most often it is the last one.
    fn taker(&mut self, name: String) -> usize {
        let takers = &mut self.book.takers;
        takers.iter().rposition(|known| *known == name).unwrap_or_else(|| {
            takers.push(name);
            takers.len() - 1
        })
    }
}

/// An error with what caused it.
pub(super) fn chain(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} {}", said.code().code(), said.message()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}
