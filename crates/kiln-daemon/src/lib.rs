//! The daemon: one per root, owns the store, runs the engine, serves the API.
