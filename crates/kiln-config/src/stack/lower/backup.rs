//! `backup` of a database: how often, how long, and where to.

use std::ops::RangeInclusive;

use kiln_model::name::ComponentId;
use kiln_model::quantity::Millis;
use kiln_model::spec::backup::{Backup, Bucket, Destination, EVERY, KEEP};

use super::database::secret;
use crate::diagnostic::Diagnostic;
use crate::stack::decode::{Field, Settings};

const KNOWN: [&str; 8] =
    ["every", "keep", "to", "encrypt", "endpoint", "region", "access_key", "secret_key"];
/// What only a bucket has.
const OF_BUCKETS: [&str; 4] = ["endpoint", "region", "access_key", "secret_key"];
const SCHEME: &str = "s3://";
/// The region where nothing is said: the one that services without regions know.
const REGION: &str = "us-east-1";
/// A copy reads all data.
const EVERY_BOUNDS: RangeInclusive<Millis> = Millis::seconds(1)..=Millis::seconds(90 * 24 * 3600);
const KEEP_BOUNDS: RangeInclusive<Millis> =
    Millis::seconds(1)..=Millis::seconds(10 * 366 * 24 * 3600);

/// How a database is backed up.
pub(super) fn backup(field: &Field<'_>) -> Option<Backup> {
    let settings = field.settings(&KNOWN)?;
    let every = settings.read_or("every", EVERY, |f| f.millis(EVERY_BOUNDS));
    let keep = settings.read_or("keep", KEEP, |f| f.millis(KEEP_BOUNDS));
    let encrypt = settings.read_or("encrypt", None, |f| identity(f).map(Some));
    let to = destination(field, &settings);
    let backup = Backup { every: every?, keep: keep?, to: to?, encrypt: encrypt? };
    if backup.keep < backup.every {
        let (keep, every) = (backup.keep, backup.every);
        let summary = format!("`keep` is {keep}, and a copy is made every {every} only");
        let help = "no moment could be restored for some of the time: keep at least that long";
        field.report(Diagnostic::error(field.span(), summary).with_help(help));
        return None;
    }
    Some(backup)
}

fn identity(field: &Field<'_>) -> Option<ComponentId> {
    let declare =
        "secret \"backups\" { file = \"/etc/kiln/backups.key\" }, as `age-keygen` writes it";
    secret(field, "a secret that is an age identity, such as secret.backups", declare)
}

fn destination(field: &Field<'_>, settings: &Settings<'_>) -> Option<Destination> {
    let to = settings.read_or("to", None, |field| field.string().map(Some))?;
    let at = settings.get("to").map_or(field.span(), Field::span);
    if let Some(place) = to.as_deref().and_then(|to| to.strip_prefix(SCHEME)) {
        return bucket(field, settings, place).map(Destination::S3);
    }
    if let Some(stray) = settings.set_of(&OF_BUCKETS).first() {
        let summary = format!("`{}` is only for a bucket", stray.path());
        let help = "name one: to = \"s3://bucket/prefix\"";
        field.report(Diagnostic::error(stray.span(), summary).with_help(help));
        return None;
    }
    match to {
        None => Some(Destination::Root),
        Some(path) if is_directory(&path) => Some(Destination::Directory(path)),
        Some(path) => {
            let summary = format!("backups cannot go to {path:?}");
            let help = "write the absolute path of a directory, or \"s3://bucket/prefix\"";
            field.report(Diagnostic::error(at, summary).with_help(help));
            None
        }
    }
}

/// An absolute path that stays where it says.
fn is_directory(path: &str) -> bool {
    let mut parts = path.strip_prefix('/').into_iter().flat_map(|rest| rest.split('/'));
    path.len() > 1
        && path.starts_with('/')
        && parts.all(|part| part != ".." && !part.chars().any(char::is_control))
}

fn bucket(field: &Field<'_>, settings: &Settings<'_>, place: &str) -> Option<Bucket> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_matches('/');
    let named = is_bucket(bucket) && is_prefix(prefix);
    if !named {
        let at = settings.get("to").map_or(field.span(), Field::span);
        let summary = format!("backups cannot go to \"{SCHEME}{place}\"");
        let help = "write \"s3://bucket/prefix\": lower-case letters, digits, `.`, `-`; in the prefix \
                    also capitals, `_` and `/`";
        field.report(Diagnostic::error(at, summary).with_help(help));
    }
    let region = settings.read_or("region", REGION.to_owned(), region);
    let own = format!("https://s3.{}.amazonaws.com", region.as_deref().unwrap_or(REGION));
    let endpoint = settings.read_or("endpoint", own, endpoint);
    let access_key = key(field, settings, "access_key");
    let secret_key = key(field, settings, "secret_key");
    named.then_some(())?;
    Some(Bucket {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: endpoint?,
        region: region?,
        access_key: access_key?,
        secret_key: secret_key?,
    })
}

fn is_bucket(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    (3..=63).contains(&name.len()) && name.bytes().all(fits) && !name.contains("..")
}

fn is_prefix(prefix: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    prefix.is_empty()
        || prefix
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits))
}

fn region(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !text.is_empty() && text.bytes().all(fits) {
        return Some(text);
    }
    field.refuse("the name of a region, such as \"eu-central-1\"")
}

fn endpoint(field: &Field<'_>) -> Option<String> {
    let text = field.string()?;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    match host.map(|host| host.trim_end_matches('/')) {
        Some(host) if !host.is_empty() && host.bytes().all(fits) => {
            Some(text.trim_end_matches('/').to_owned())
        }
        _ => field.refuse("a URL of a host, such as \"https://s3.example.com\""),
    }
}

fn key(field: &Field<'_>, settings: &Settings<'_>, name: &'static str) -> Option<ComponentId> {
    let Some(own) = settings.get(name) else {
        let summary = format!("`{}.{name}` is missing", field.path());
        let help = format!("a bucket needs it: {name} = secret.{name}");
        field.report(Diagnostic::error(field.span(), summary).with_help(help));
        return None;
    };
    let declare = format!("secret \"{name}\" {{ env = \"{}\" }}", name.to_uppercase());
    secret(own, &format!("a secret, such as secret.{name}"), &declare)
}
