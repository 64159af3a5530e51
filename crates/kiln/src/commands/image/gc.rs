//! `kiln image gc`: remove images that nothing needs.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_daemon::ledger::{Chapter, Fate, Ledger};
use kiln_daemon::prepare::Home;
use kiln_image::gc::{Collected, Options, collect, digests_in};
use kiln_image::lock::FILE_NAME;
use kiln_image::sign::Signing;
use kiln_local::instance::record;
use kiln_model::digest::Digest;
use kiln_model::quantity::Millis;

use super::store;
use crate::context::Context;
use crate::document::trust::{CollectionDocument, RemovedDocument};
use crate::error::{CommandError, Exit};
use crate::progress::image::size;
use crate::render::table::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keep what the newest N generations of each stack need that served, not what all do
    #[arg(long, value_name = "N", conflicts_with = "older_than")]
    keep: Option<usize>,
    /// Keep what generations need that are younger than this, not what all do
    #[arg(long, value_name = "TIME")]
    older_than: Option<Millis>,
    /// How long what was built, pulled or used stays in any case
    #[arg(long, value_name = "TIME", default_value = "1d")]
    grace: Millis,
    /// Take packages from the cache too that no known kiln.lock names
    #[arg(long)]
    cache: bool,
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    if !args.dry_run && !args.yes {
        let question = "Remove the images that nothing needs?";
        if !context.confirm(question)? {
            return Err(CommandError::failed("nothing was removed"));
        }
    }
    let collected = match store(context)? {
        None => Collected::default(),
        Some(store) => {
            let needed = needed(context, args)?;
            let root = context.root.path();
            let options = Options {
                grace: Duration::from_millis(args.grace.0),
                now: SystemTime::now(),
                dry_run: args.dry_run,
                cache: args.cache.then(|| root.join("cache")),
            };
            let signing = Signing::of_root(root);
            let collected = collect(&store, &signing, &needed, &options);
            collected.map_err(|e| CommandError::of(&e))?
        }
    };
    let document = document(&collected, args.dry_run);
    context.print(&document, || text(&document))?;
    Ok(Exit::Done)
}

/// What must stay: what generations within retention, instances and locks name.
fn needed(context: &Context, args: &Args) -> Result<BTreeSet<Digest>, CommandError> {
    let mut needed = BTreeSet::new();
    let mut directories = BTreeSet::from([context.directory.clone()]);
    if let Some(ledger) = Ledger::open(&context.root)? {
        for stack in ledger.stacks()? {
            let chapters = ledger.chapters(&stack)?;
            for chapter in within(&chapters, args) {
                needed.extend(chapter.generation.content.images.values());
            }
            let home = Home::known(&context.root, &stack)?;
            let serves = chapters.iter().any(|c| c.fate == Fate::Active && !is_empty(c));
            match home {
                Some(home) if home.directory.join(FILE_NAME).exists() => {
                    directories.insert(home.directory);
                }
                _ if serves && args.cache => {
                    return Err(CommandError::failed(format!(
                        "the {FILE_NAME} of stack {stack} is not where it was applied from"
                    ))
                    .with_help("put it back, or collect without --cache: its packages would go"));
                }
                _ => {}
            }
        }
    }
    for directory in directories {
        match fs::read(directory.join(FILE_NAME)) {
            Ok(text) => needed.extend(digests_in(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = directory.join(FILE_NAME);
                let text = format!("{} cannot be read", path.display());
                return Err(CommandError::failed(text).caused_by(&error));
            }
        }
    }
    needed.extend(running(context)?);
    Ok(needed)
}

fn is_empty(chapter: &Chapter) -> bool {
    chapter.generation.content.components.is_empty()
}

/// The generations whose images stay. One that serves or is being rolled out is always among
/// them, whatever the retention.
fn within<'a>(chapters: &'a [Chapter], args: &'a Args) -> impl Iterator<Item = &'a Chapter> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let served: Vec<u64> = chapters
        .iter()
        .rev()
        .filter(|chapter| matches!(chapter.fate, Fate::Active | Fate::Retired))
        .map(|chapter| chapter.generation.number)
        .collect();
    chapters.iter().filter(move |chapter| {
        let number = chapter.generation.number;
        let kept = match (args.keep, args.older_than) {
            (Some(keep), _) => served.iter().take(keep).any(|kept| *kept == number),
            (None, Some(age)) => now.saturating_sub(chapter.generation.created_at.0) < age.0,
            (None, None) => true,
        };
        kept || matches!(chapter.fate, Fate::Active | Fate::RollingOut)
    })
}

/// The filesystems of instances.
fn running(context: &Context) -> Result<BTreeSet<Digest>, CommandError> {
    let root = context.root.path();
    let failed = |e: std::io::Error| {
        CommandError::failed("the records of instances cannot be read").caused_by(&e)
    };
    let mut found = BTreeSet::new();
    for instance in record::list(root).map_err(failed)? {
        let record = record::read(root, &instance).map_err(failed)?;
        let image = record.map(|record| record.image).unwrap_or_default();
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.extend(format!("sha256:{name}").parse::<Digest>());
    }
    Ok(found)
}

fn document(collected: &Collected, dry_run: bool) -> CollectionDocument {
    let removed = collected.removed.iter().map(|removed| RemovedDocument {
        kind: removed.kind.as_str().to_owned(),
        name: removed.name.clone(),
        digest: removed.digest.to_string(),
        bytes: removed.bytes,
    });
    CollectionDocument {
        dry_run,
        removed: removed.collect(),
        bytes: collected.bytes(),
        kept: collected.kept,
        kept_bytes: collected.kept_bytes,
    }
}

fn text(document: &CollectionDocument) -> String {
    let mut table = Table::default();
    for removed in &document.removed {
        let name = removed.name.as_deref().unwrap_or_default();
        let bytes = if removed.bytes == 0 { String::new() } else { size(removed.bytes) };
        let digest = &removed.digest[..removed.digest.len().min(19)];
        table.row([&removed.kind, digest, &bytes, name]);
    }
    let verb = if document.dry_run { "would go" } else { "went" };
    let (count, bytes) = (document.removed.len(), size(document.bytes));
    format!("{}{count} {verb}, {bytes}; {} stay.", table.render(0), size(document.kept_bytes))
}
