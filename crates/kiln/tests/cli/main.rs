//! The command line as a program, in a clean environment: everything that needs no kernel.

mod environment;
mod failures;
mod first;
mod formatting;
mod planning;
