//! `database` blocks.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::canonical::BuiltFrom;
use kiln_model::name::{ComponentId, Kind};
use kiln_model::quantity::{Bytes, Millis};
use kiln_model::spec::database::{
    Database, DatabaseIdentity, DatabasePolicy, Engine, check_setting, recipe,
};
use kiln_model::spec::image::{Image, ImageIdentity, ImagePolicy, Inputs, Surface};
use kiln_model::spec::{Body, Rollout, Spec};
use kiln_model::text::{Part, Text};

use super::Reader;
use super::backup;
use super::rollout;
use super::server::LONGEST;
use crate::diagnostic::{Diagnostic, nearest};
use crate::stack::decode::Field;

const DEFAULT_MEMORY: Bytes = Bytes::mib(256);
const MIN_MEMORY: Bytes = Bytes::mib(96);
const MAX_MEMORY: Bytes = Bytes(1 << 50);
const DEFAULT_PIDS: u32 = 512;
const DEFAULT_SIZE: Bytes = Bytes::mib(1024);
const MIN_SIZE: Bytes = Bytes::mib(128);
const MAX_SIZE: Bytes = Bytes(1 << 50);
/// One standby more than this helps nobody.
const MAX_REPLICAS: u32 = 8;
/// How long clients are held at most where nothing is said.
const HOLD: Millis = Millis::seconds(5);
/// How long a change may take where nothing is said: its data is copied.
const DEADLINE: Millis = Millis::seconds(600);
/// The versions that there are programs for without an image of one's own.
const PACKAGED: &str = "13, 15 and 17 come from Debian; for another one name an `image` that \
                        holds it";

/// A database, and the image that is made for it where it names none.
pub(super) fn database(reader: &Reader<'_>) -> Option<(Database, Option<Spec>)> {
    let engine = reader.required("engine", engine);
    let version = reader.required("version", version);
    let own = reader.read_or("image", None, |f| f.built_from(Kind::Image, "image.pg").map(Some));
    let network =
        reader.required("network", |field| field.built_from(Kind::Network, "network.back"));
    let memory = reader.read_or("memory", DEFAULT_MEMORY, |f| f.bytes(MIN_MEMORY..=MAX_MEMORY));
    let cpu = reader.read_or("cpu", None, |field| field.cpu().map(Some));
    let pids = reader.read_or("pids", DEFAULT_PIDS, |field| field.integer(32..=1 << 22));
    let size = reader.read_or("size", DEFAULT_SIZE, |f| f.bytes(MIN_SIZE..=MAX_SIZE));
    let settings = reader.read_or("settings", BTreeMap::new(), settings);
    let name = identifier(reader.id());
    let database = reader.read_or("database", name.clone(), plain_name);
    let user = reader.read_or("user", name, plain_name);
    let extensions = reader.read_or("extensions", BTreeSet::new(), extensions);
    let policy = policy(reader);
    let (engine, version) = (engine?, version?);
    let (image, implied) = image(reader, engine, version, own?)?;
    let policy = policy?;
    let synchronous = policy.replicas > 0;
    let synchronous = reader.read_or("synchronous", synchronous, |field| field.boolean())?;
    if synchronous && policy.replicas == 0 {
        let diagnostic = Diagnostic::error(reader.header, "`synchronous` needs a standby")
            .with_label("no write would ever count")
            .with_help("set `replicas = 1`, or leave `synchronous` out");
        reader.world.report(diagnostic);
        return None;
    }
    let archived = policy.backup.is_some();
    let identity = DatabaseIdentity {
        engine,
        version,
        image,
        network: network?,
        memory: memory?,
        cpu: cpu?,
        pids: pids?,
        size: size?,
        settings: settings?,
        database: database?,
        user: user?,
        extensions: extensions?,
        synchronous,
        archived,
    };
    Some((Database { identity, policy }, implied))
}

fn policy(reader: &Reader<'_>) -> Option<DatabasePolicy> {
    let address = reader.own_address();
    let password = reader.required("password", password);
    let replicas = reader.read_or("replicas", 0, |field| field.integer(0..=MAX_REPLICAS));
    let hold = reader.read_or("hold", HOLD, |f| f.millis(Millis(100)..=Millis::seconds(600)));
    let rollout = reader.read_or("rollout", Rollout::rolling(DEADLINE), |field| {
        let settings = field.settings(&["deadline"])?;
        let deadline =
            settings.read_or("deadline", DEADLINE, |f| f.millis(Millis::seconds(1)..=LONGEST));
        Some(Rollout { deadline: deadline?, ..rollout::default() })
    });
    let backup = reader.read_or("backup", None, |field| backup::backup(field).map(Some));
    Some(DatabasePolicy {
        address: address?,
        password: password?,
        replicas: replicas?,
        hold: hold?,
        rollout: rollout?,
        backup: backup?,
    })
}

fn engine(field: &Field<'_>) -> Option<Engine> {
    match field.string()?.as_str() {
        "postgres" => Some(Engine::Postgres),
        "postgresql" => {
            field.report(field.refusal("\"postgres\"").with_help("write \"postgres\""));
            None
        }
        _ => field.refuse("\"postgres\", the one engine that this version of kiln has"),
    }
}

/// A major version; minor ones come with the image's lock.
fn version(field: &Field<'_>) -> Option<u32> {
    const EXPECTED: &str = "a major version from \"13\" to \"17\"";
    let text = field.string()?;
    match text.parse::<u32>() {
        Ok(version) if (13..=17).contains(&version) => Some(version),
        Err(_) if text.contains('.') => {
            let help = "kiln.lock holds which minor version it is: `kiln image lock --upgrade`";
            field.report(field.refusal(EXPECTED).with_help(help));
            None
        }
        _ => field.refuse(EXPECTED),
    }
}

/// The image that holds the engine's programs: the one that is named, else one that is made.
fn image(
    reader: &Reader<'_>,
    engine: Engine,
    version: u32,
    own: Option<BuiltFrom>,
) -> Option<(BuiltFrom, Option<Spec>)> {
    if let Some(own) = own {
        return Some((own, None));
    }
    let Some(recipe) = recipe(engine, version) else {
        let summary = format!("there are no packages for {} {version}", engine.as_str());
        reader.world.report(Diagnostic::error(reader.header, summary).with_help(PACKAGED));
        return None;
    };
    let id = ComponentId::new(Kind::Image, format!("{}-{version}", engine.as_str()));
    let locked = reader.world.outside.surroundings.locked_inputs(&id, &recipe);
    let inputs = locked.map_or(Inputs::Unlocked, Inputs::Locked);
    // Its packages hold programs that an instance never runs; nobody can choose others.
    let policy = ImagePolicy { tests: Vec::new(), surface: Surface::Allow };
    let image = Image { identity: ImageIdentity { recipe, inputs }, policy };
    let body = Body::Image(Box::new(image));
    let spec = Spec { id: id.clone(), body, sensitive: BTreeSet::new() };
    Some((id.into(), Some(spec)))
}

/// The secret that is the password, and nothing around it.
pub(in crate::stack) fn password(field: &Field<'_>) -> Option<ComponentId> {
    secret(field, "a secret, such as secret.orders", "secret \"orders\" { generate = 32 }")
}

/// A secret, and nothing around it; how one is declared.
pub(super) fn secret(field: &Field<'_>, expected: &str, declare: &str) -> Option<ComponentId> {
    match field.text()? {
        Text::Template(parts) => match &parts[..] {
            [Part::Secret(secret)] => Some(secret.id.clone()),
            _ => field.refuse(expected),
        },
        Text::Plain(_) => {
            let refusal = field.refusal(expected);
            field.report(refusal.with_help(format!("declare it: {declare}")));
            None
        }
    }
}

fn settings(field: &Field<'_>) -> Option<BTreeMap<String, String>> {
    let settings = field.string_map()?;
    for (name, value) in &settings {
        if let Err(why) = check_setting(name, value) {
            let summary = format!("the setting `{name}` cannot be used: {why}");
            field.report(Diagnostic::error(field.span(), summary));
            return None;
        }
    }
    Some(settings)
}

fn extensions(field: &Field<'_>) -> Option<BTreeSet<String>> {
    let read: Vec<Option<String>> = field.elements()?.iter().map(extension).collect();
    read.into_iter().collect()
}

fn extension(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if !text.is_empty() && text.len() <= 63 && text.bytes().all(fits) {
        return Some(text);
    }
    field.refuse("the name of an extension, such as \"pg_trgm\"")
}

/// A name of a user or database that needs no quotes.
pub(in crate::stack) fn plain_name(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    if !first || text.len() > 63 || !text.bytes().all(fits) {
        return field.refuse("lower-case letters, digits and `_`, at most 63, the first no digit");
    }
    if text.starts_with("pg_") || RESERVED.contains(&text.as_str()) {
        let near = nearest(&text, ["app"]).unwrap_or("app");
        let help = format!("choose another one, such as {near:?}");
        let summary = format!("{text:?} belongs to the engine itself");
        field.report(Diagnostic::error(field.span(), summary).with_help(help));
        return None;
    }
    Some(text)
}

/// Names that an engine or Kiln has taken.
const RESERVED: [&str; 5] = ["kiln", "postgres", "template0", "template1", "public"];

/// What the user and the database of a component are called where nothing is said.
pub(in crate::stack) fn identifier(id: &ComponentId) -> String {
    let name = id.host_name().replace('-', "_");
    let taken = RESERVED.contains(&name.as_str()) || name.starts_with("pg_");
    if taken { format!("{name}_db") } else { name }
}
