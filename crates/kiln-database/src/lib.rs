//! What each database engine needs to be created, replicated, switched over and looked at, behind
//! one seam: [`DatabaseEngine`] says which programs are run and with which files, and a [`Session`]
//! asks one running instance.
//!
//! Nothing here starts a program or makes a directory; that is the target's part. Programs run in
//! instances of the database's image, never beside one that runs already. An instance is reached
//! over its unix socket alone.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod file;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod log;
pub mod postgres;
mod upgrade;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;

use kiln_model::data::Role;
use kiln_model::name::InstanceId;
use kiln_model::spec::database::{DatabaseIdentity, Engine};

pub use error::EngineError;
pub use log::Log;
pub use postgres::Postgres;
pub use upgrade::{LastValues, Offer, Source, Taker};

/// What comes of a question to an engine.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// What a kind of database needs.
pub trait DatabaseEngine: fmt::Debug + Send + Sync {
    /// Where things are in its image.
    fn layout(&self) -> Layout;

    /// The program that fills an empty data directory.
    fn create(&self, instance: &Instance<'_>) -> Program;

    /// The program that fills an empty data directory with a copy of what a running instance has,
    /// such that [`serve`](Self::serve) then follows it.
    fn replicate(&self, instance: &Instance<'_>, of: &InstanceId) -> Program;

    /// The program that writes a copy of what a running instance has into an empty data directory, as
    /// files that can be kept: what these are stands in [`postgres::copy`].
    fn copy(&self, instance: &Instance<'_>, of: &InstanceId) -> Program;

    /// The program that brings the data directory, in which a copy was laid out with the log after it,
    /// to a moment, and then serves it. Nobody may be let in: it is for looking at it alone.
    fn recover(&self, instance: &Instance<'_>, until: Until) -> Program;

    /// Whether a program that [`recover`](Self::recover) gave has ended since the log ends before the
    /// moment; by the lines that it wrote.
    fn ended_early(&self, lines: &[String]) -> bool;

    /// Programs that check a copy as it was laid out, before it is brought to a moment.
    fn checks_of_copy(&self, instance: &Instance<'_>) -> Vec<Check>;

    /// Programs that read all data of the instance of that name, which serves.
    fn checks_of_rows(&self, instance: &Instance<'_>) -> Vec<Check>;

    /// Programs that check a data directory that nobody holds.
    fn checks_of_pages(&self, instance: &Instance<'_>) -> Vec<Check>;

    /// The program that fills an empty data directory with the definitions that `offer` is for, as a
    /// newer major version has them, such that [`serve`](Self::serve) then receives its rows.
    fn upgrade(&self, instance: &Instance<'_>, offer: &Offer) -> Program;

    /// The program that serves the data directory, and its files of configuration.
    fn serve(&self, instance: &Instance<'_>) -> Program;

    /// Makes a data directory that nobody holds, and that is seen from outside, ready to be served:
    /// takes out what a crash or somebody's hand has left.
    fn ready(&self, data: &Path, as_: Role) -> io::Result<()>;

    /// What a data directory that nobody holds would be served as.
    fn role(&self, data: &Path) -> io::Result<Role>;

    /// Makes a data directory in which a copy was laid out ready to be brought to a moment.
    fn ready_to_recover(&self, data: &Path) -> io::Result<()>;

    /// The identifier of the cluster in a data directory.
    fn system(&self, data: &Path) -> io::Result<u64>;

    /// The log of a data directory, to be archived.
    fn log(&self, data: &Path) -> io::Result<Log>;

    /// In what a data directory has settings of its own, which none has by Kiln.
    fn strange_settings(&self, data: &Path) -> Option<String>;

    /// Asks a running instance, whose socket is in the directory `sockets` of the host.
    fn connect<'a>(&'a self, sockets: &'a Path) -> Answer<'a, Box<dyn Session>>;

    /// Asks a running instance for its data, of which the one of a newer major version takes over
    /// what is in `database`.
    fn source<'a>(&'a self, sockets: &'a Path, database: &'a str) -> Answer<'a, Box<dyn Source>>;

    /// Asks a running instance that takes over what is in `database`.
    fn taker<'a>(&'a self, sockets: &'a Path, database: &'a str) -> Answer<'a, Box<dyn Taker>>;
}

/// A connection to one running instance, as its superuser.
pub trait Session: Send {
    /// What it does, and how far its data goes. Cheap: it is asked many times a second.
    fn state(&mut self) -> Answer<'_, State>;

    /// Makes it have the user, the database and the extensions that are declared, and no superuser
    /// but Kiln's. What is there already is left. It must take writes.
    fn declare<'a>(&'a mut self, identity: &'a DatabaseIdentity) -> Answer<'a, ()>;

    /// What is declared and could not be made in it, as its image lacks what that needs. It need not
    /// take writes.
    fn lacks<'a>(&'a mut self, identity: &'a DatabaseIdentity) -> Answer<'a, Vec<String>>;

    /// Users with all rights whom Kiln did not make.
    fn strange_superusers(&mut self) -> Answer<'_, Vec<String>>;

    /// Bounds that whoever follows it must have at least as large.
    fn bounds(&mut self) -> Answer<'_, BTreeMap<String, u64>>;

    /// Ends all sessions but Kiln's own, and says how far its data goes after that. It sends to
    /// nobody but `next` any more, so that no other gets further than what it says: such a one could
    /// not follow `next`.
    fn fence<'a>(&'a mut self, next: &'a InstanceId) -> Answer<'a, u64>;

    /// Ends the piece of the log that it writes to, so that it is archived; the timeline that it is on,
    /// and how far the data goes.
    fn switch_log(&mut self) -> Answer<'_, (u32, u64)>;

    /// Has it take writes from now on.
    fn promote(&mut self) -> Answer<'_, ()>;
}

/// An instance that is to be.
#[derive(Debug, Clone)]
pub struct Instance<'a> {
    /// Its name.
    pub id: &'a InstanceId,
    /// What it is.
    pub identity: &'a DatabaseIdentity,
    /// Bounds of the one that it follows, which its own must not fall below.
    pub at_least: BTreeMap<String, u64>,
    /// The line that its data is of, where its log is archived.
    pub line: Option<String>,
    /// The one that it follows, where that does not take writes yet.
    pub beside: Option<&'a InstanceId>,
}

/// Up to where data is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// As far as the log goes.
    End,
    /// To all that was acknowledged up to an instant.
    At(kiln_model::quantity::Timestamp),
    /// As far as the copy needs to be whole.
    Whole,
}

/// A program that checks something, and what it checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is proved when it succeeds, in words.
    pub what: &'static str,
    /// The program. One that the image lacks is passed over.
    pub program: Program,
}

/// Where things are in an engine's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The user as whom its programs run.
    pub user: &'static str,
    /// The data directory.
    pub data: &'static str,
    /// The directory with a directory for the socket of each instance.
    pub sockets: &'static str,
}

/// A program of an engine, and what it is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Read-only directories with small files: path, and content by name.
    pub directories: BTreeMap<String, BTreeMap<String, String>>,
    /// Writable space in memory: path and bytes.
    pub writable: BTreeMap<String, u64>,
}

/// What an instance says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What it does with writes.
    pub role: Role,
    /// How far its data goes, in bytes of the engine's log: what a primary has made durable, what
    /// a standby has received.
    pub position: u64,
    /// Whether it receives from a primary at present.
    pub receives: bool,
    /// Whether what it receives are rows, from an instance of an older major version. Then its
    /// position says nothing: how far it has come is known to that one.
    pub takes_over: bool,
    /// Who receives from it at present.
    pub followers: Vec<Follower>,
}

/// Who receives from an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// The instance's name, as it calls itself.
    pub name: String,
    /// Whether it has caught up so far that it gets each write as it is made.
    pub streams: bool,
    /// Whether a write can count by being there.
    pub synchronous: bool,
    /// Whether it receives rows and not bytes of the log.
    pub takes_rows: bool,
    /// Up to where it has confirmed to have all durably, in bytes of the log.
    pub position: Option<u64>,
}

/// The engine of a kind of database.
pub fn engine(engine: Engine) -> &'static dyn DatabaseEngine {
    match engine {
        Engine::Postgres => &Postgres,
    }
}
