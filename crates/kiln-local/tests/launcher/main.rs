//! Instances on the real kernel: what they are, what they may do, how they end, and that nothing
//! is left of them. Run as root.

mod confinement;
mod ends;
mod lifecycle;
mod support;
