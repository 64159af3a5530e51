//! `kiln image …`: images, without a daemon.

mod build;
mod list;
mod lock;
mod verify;

use kiln_image::store::{ImageStore, Record};
use kiln_model::name::{ComponentId, Kind};

use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::{ImageDocument, ImagesDocument};
use crate::error::{CommandError, Exit};
use crate::progress::image::size;
use crate::render::table::Table;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Lock and build the images of the stack
    Build {
        /// Only this one
        name: Option<String>,
        #[command(flatten)]
        variables: Variables,
    },
    /// Choose the packages of the stack's images and write them into kiln.lock
    Lock {
        /// Choose anew what was locked before; of the image NAME alone where one is named
        #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
        upgrade: Option<String>,
        #[command(flatten)]
        variables: Variables,
    },
    /// List the images of the root
    List,
    /// Show one image
    Show {
        /// Its name, or its digest
        name: String,
    },
    /// Read every byte of the image store and compare it with its digest
    Verify {
        /// Only this one
        name: Option<String>,
    },
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    match &args.verb {
        Verb::Build { name, variables } => build::run(context, name.as_deref(), variables),
        Verb::Lock { upgrade, variables } => lock::run(context, upgrade.as_deref(), variables),
        Verb::List => list::list(context),
        Verb::Show { name } => list::show(context, name),
        Verb::Verify { name } => verify::run(context, name.as_deref()),
    }
}

/// The image store; none where the root has none yet.
fn store(context: &Context) -> Result<Option<ImageStore>, CommandError> {
    let path = context.root.path().join("images");
    match path.try_exists() {
        Ok(false) => Ok(None),
        Ok(true) => {
            ImageStore::open(context.root.path()).map(Some).map_err(|e| CommandError::of(&e))
        }
        Err(error) => Err(CommandError::failed(format!("{} cannot be read", path.display()))
            .caused_by(&error)
            .with_help("run the command as root, or name another root with --root DIR")),
    }
}

/// The image of a digest, or of a name: of several the one that the stack declares.
fn record(context: &Context, name: &str) -> Result<(ImageStore, Record), CommandError> {
    let name = name.strip_prefix("image.").unwrap_or(name);
    let (store, mut records) = records(context, name)?;
    if let [only] = records.as_slice() {
        return Ok((store, only.clone()));
    }
    let draft = context.draft(&Variables::default(), None).ok();
    let declared = draft.and_then(|draft| {
        let sealed = draft.seal().ok()?.get(&ComponentId::new(Kind::Image, name))?.digest.clone();
        sealed.ok()
    });
    if let Some(index) = records.iter().position(|record| Some(record.recipe) == declared) {
        return Ok((store, records.swap_remove(index)));
    }
    let digests: Vec<String> = records.iter().map(|r| r.digest.to_string()).collect();
    Err(CommandError::usage(format!("there are several images {name}"))
        .with_help(format!("name one by its digest: {}", digests.join(", "))))
}

/// The images of a name or a digest, at least one.
fn records(context: &Context, name: &str) -> Result<(ImageStore, Vec<Record>), CommandError> {
    let name = name.strip_prefix("image.").unwrap_or(name);
    let absent = || {
        CommandError::failed(format!("there is no image {name} in this root"))
            .with_help("`kiln image list` lists them, `kiln image build` builds the stack's")
    };
    let store = store(context)?.ok_or_else(absent)?;
    let records = store.list().map_err(|e| CommandError::of(&e))?;
    let fits = |record: &&Record| {
        record.name == name
            || record.digest.to_string() == name
            || record.recipe.to_string() == name
    };
    let mut found: Vec<Record> = records.iter().filter(fits).cloned().collect();
    found.dedup_by_key(|record| record.digest);
    if found.is_empty() { Err(absent()) } else { Ok((store, found)) }
}

fn document(record: &Record) -> ImageDocument {
    ImageDocument {
        name: record.name.clone(),
        recipe: record.recipe.to_string(),
        digest: record.digest.to_string(),
        size: record.size,
        // What this root has built itself may be started by it.
        admitted: true,
        signed_by: None,
    }
}

fn table(document: &ImagesDocument) -> String {
    let mut table = Table::default();
    for image in &document.images {
        table.row([&image.name, &image.digest[..image.digest.len().min(19)], &size(image.size)]);
    }
    table.render(0)
}
