//! What goes over from an instance to one of a newer major version beside its rows: which of it
//! cannot, and what is told only once nothing is written any more.

use std::collections::BTreeMap;

use kiln_model::name::InstanceId;

use crate::Answer;

/// What an instance offers to one of a newer major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The instance.
    pub of: InstanceId,
    /// The database in it.
    pub database: String,
}

/// What is no row of a table, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastValues {
    /// Of each sequence, by its name as it is written in a statement: the value, and whether that
    /// was given out already.
    pub sequences: BTreeMap<String, (i64, bool)>,
    /// Of each materialized view, by its name as it is written in a statement, something that
    /// differs when it has been refreshed.
    pub views: BTreeMap<String, String>,
}

/// A connection to the one whose data is taken over, as its superuser.
pub trait Source: Send {
    /// What is in it that cannot go over, with the way out of each.
    fn obstacles(&mut self) -> Answer<'_, Vec<String>>;

    /// Has its rows be received by whoever asks; what [`definitions`](Self::definitions) said
    /// before. Clients' statements must go on: a lock is waited for shortly, and asked for again.
    fn offer(&mut self) -> Answer<'_, String>;

    /// Takes all back that [`offer`](Self::offer) did and that those left who received it, unless
    /// `wanted` says meanwhile that there is somebody again. Does nothing where there is nothing.
    fn withdraw<'a>(&'a mut self, wanted: &'a (dyn Fn() -> bool + Send + Sync)) -> Answer<'a, ()>;

    /// Something that differs when definitions have changed: tables, functions, users, rights.
    fn definitions(&mut self) -> Answer<'_, String>;

    /// How far this one has confirmed to have all durably, in bytes of the log of the one asked.
    fn confirmed<'a>(&'a mut self, by: &'a InstanceId) -> Answer<'a, Option<u64>>;

    /// What is no row of a table.
    fn last_values(&mut self) -> Answer<'_, LastValues>;
}

/// A connection to the one that takes over, as its superuser.
pub trait Taker: Send {
    /// Of how many tables it has not all rows yet that were there when it began.
    fn missing_tables(&mut self) -> Answer<'_, u64>;

    /// Makes the first queries as fast as they were: fills these materialized views, and gathers
    /// statistics. Takes as long as there is data.
    fn settle<'a>(&'a mut self, views: &'a [String]) -> Answer<'a, ()>;

    /// Has it take writes from now on: sets what is no row, fills those views again, and ends its
    /// receiving. When this returns, all that it has is where a write counts.
    fn take<'a>(&'a mut self, last: &'a LastValues, views: &'a [String]) -> Answer<'a, ()>;
}
