//! From documents and changes to what a person reads.

pub(crate) mod changes;
pub(crate) mod order;
pub(crate) mod plan;
pub(crate) mod spec;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod value;
