//! What an instance really is, read from the kernel and compared with what it was made as.
//!
//! Nothing here decides or acts: a [`Subject`] knows what is to be, from the instance's record and
//! the [baseline](crate::instance::baseline) that was taken when it had started, and says in what it
//! differs. When it is looked at, and what tells that it should be, is [`crate::local`]'s part.
//!
//! A false alarm replaces an instance that is sound. So whatever a program without privileges can do
//! to itself is no difference (its arguments and environment, which programs overwrite to show a
//! title, its limits, anonymous memory that is written and executed), a process that is about to end
//! is left alone, and what can't be read is not judged.

mod limits;
mod membership;
mod mounts;
mod process;
mod subject;

pub(crate) use membership::Membership;
pub(crate) use process::name_of;
pub(crate) use subject::{Subject, Whole};
