//! The target that is this machine: instances, networks and their measurement.
