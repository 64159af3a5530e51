//! Stacks: from the files of a directory to specs.

pub mod files;
