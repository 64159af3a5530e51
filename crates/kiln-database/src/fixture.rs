//! A small database, for tests of this crate and of those above it.

use kiln_model::canonical::BuiltFrom;
use kiln_model::name::ComponentId;
use kiln_model::quantity::Bytes;
use kiln_model::spec::database::{DatabaseIdentity, Engine};

/// A small database.
pub fn identity() -> DatabaseIdentity {
    let built_from =
        |text: &str| BuiltFrom::from(text.parse::<ComponentId>().expect("a literal that parses"));
    DatabaseIdentity {
        engine: Engine::Postgres,
        version: 15,
        image: built_from("image.db"),
        network: built_from("network.back"),
        memory: Bytes::mib(256),
        cpu: None,
        pids: 256,
        size: Bytes::mib(1024),
        settings: [("work_mem".to_owned(), "5MB".to_owned())].into(),
        database: "orders".to_owned(),
        user: "clerk".to_owned(),
        extensions: std::collections::BTreeSet::new(),
        synchronous: false,
        archived: false,
    }
}
