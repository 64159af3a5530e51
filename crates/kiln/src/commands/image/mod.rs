//! `kiln image …`: images, without a daemon.

mod build;
mod export;
mod gc;
mod import;
mod key;
mod list;
mod lock;
mod profile;
mod pull;
mod push;
mod rebuild;
mod revoke;
mod sbom;
mod standing;
mod test;
mod verify;

use std::path::PathBuf;

use kiln_daemon::prepare::ImageProgress;
use kiln_image::admission::vouch;
use kiln_image::oci::reference::Reference;
use kiln_image::progress::{Event, Progress};
use kiln_image::sign::Signing;
use kiln_image::store::{ImageStore, Record};
use kiln_model::name::{ComponentId, Kind};

use self::standing::Judge;
use crate::cli::Variables;
use crate::context::Context;
use crate::document::exchange::PullDocument;
use crate::document::image::{ImageDocument, ImagesDocument};
use crate::error::{CommandError, Exit};
use crate::progress::Board;
use crate::progress::image::{ImageBoard, size};
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
    /// Learn from the tests of an image which system calls it makes, and write them beside the stack
    Profile {
        /// The image
        name: String,
        /// Where to write it; NAME.seccomp in the stack's directory where not given
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
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
    /// Bring an image, with its signatures and what else is said of it, to a registry
    Push {
        /// Its name, or its digest
        name: String,
        /// Where it goes, such as registry.example/app:1.2
        reference: String,
    },
    /// Fetch an image, with its signatures and what else is said of it, from a registry
    Pull {
        /// Where it is, such as registry.example/app:1.2
        reference: String,
        /// What it is called here; the last part of the reference where not given
        #[arg(long)]
        name: Option<String>,
    },
    /// Write an image as an OCI layout: a directory, or an archive that ends with .tar
    Export {
        /// Its name, or its digest
        name: String,
        /// The directory or archive
        path: PathBuf,
    },
    /// Take in an image of an OCI layout: a directory or an archive, perhaps with :TAG
    Import {
        /// The directory or archive
        path: String,
        /// What it is called here; the tag, or the file's name, where not given
        #[arg(long)]
        name: Option<String>,
    },
    /// Print the bill of materials of an image
    Sbom {
        /// Its name, or its digest
        name: String,
        /// In which form
        #[arg(long, value_enum, default_value_t)]
        format: sbom::Format,
    },
    /// Build the images of the stack and run their tests
    Test {
        /// Only this one
        name: Option<String>,
        #[command(flatten)]
        variables: Variables,
    },
    /// Read every byte of the image store, and check signatures and keys
    Verify {
        /// Only this one
        name: Option<String>,
        /// Build anew from the lock too, and compare
        #[arg(long)]
        rebuild: bool,
        #[command(flatten)]
        variables: Variables,
    },
    /// Let an image never be started again
    Revoke {
        /// Its name, or its digest
        name: String,
        /// Why, for those who are refused
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// The keys that sign what is admitted
    Key(key::Args),
    /// Remove images that no generation, instance or lock needs
    Gc(gc::Args),
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    match &args.verb {
        Verb::Build { name, variables } => build::run(context, name.as_deref(), variables),
        Verb::Lock { upgrade, variables } => lock::run(context, upgrade.as_deref(), variables),
        Verb::Profile { name, output, variables } => {
            profile::run(context, name, output.as_deref(), variables)
        }
        Verb::List => list::list(context),
        Verb::Show { name } => list::show(context, name),
        Verb::Push { name, reference } => push::run(context, name, reference),
        Verb::Pull { reference, name } => pull::run(context, reference, name.as_deref()),
        Verb::Export { name, path } => export::run(context, name, path),
        Verb::Import { path, name } => import::run(context, path, name.as_deref()),
        Verb::Sbom { name, format } => sbom::run(context, name, *format),
        Verb::Verify { name, rebuild: true, variables } => {
            rebuild::run(context, name.as_deref(), variables)
        }
        Verb::Verify { name, .. } => verify::run(context, name.as_deref()),
        Verb::Revoke { name, reason, yes } => revoke::run(context, name, reason.as_deref(), *yes),
        Verb::Key(args) => key::run(context, args),
        Verb::Gc(args) => gc::run(context, args),
        Verb::Test { name, variables } => test::run(context, name.as_deref(), variables),
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

/// Shows the progress of one thing that is not about an image of the stack.
struct Shown<'a> {
    board: ImageBoard<'a>,
    id: ComponentId,
}

impl<'a> Shown<'a> {
    fn new(board: &'a Board, name: &str) -> Self {
        Self { board: ImageBoard::new(board), id: ComponentId::new(Kind::Image, name) }
    }
}

impl Progress for Shown<'_> {
    fn event(&self, event: Event<'_>) {
        ImageProgress::event(&self.board, Some(&self.id), event);
    }
}

/// A name for an image that comes from elsewhere: one that a component could have, as far as the
/// letters allow.
fn name_for(given: Option<&str>, origin: &str) -> Result<String, CommandError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if let Some(name) = given {
        if name.is_empty() || !name.chars().all(fits) || name.starts_with('.') {
            return Err(CommandError::usage(format!("{name:?} can't be the name of an image"))
                .with_help("letters, digits, `-`, `_` and `.` are allowed"));
        }
        return Ok(name.to_owned());
    }
    let name: String = origin.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    Ok(if name.is_empty() { "image".to_owned() } else { name })
}

/// Tells of an image that has come from elsewhere, with so many artifacts about it. Its filesystem
/// was made here, which this root vouches for; who admits the image is another question.
fn arrived(
    context: &Context,
    store: &ImageStore,
    record: &Record,
    referrers: usize,
    reference: Option<&Reference>,
) -> Result<Exit, CommandError> {
    let files = store.get(&record.digest).map_err(|e| CommandError::of(&e))?;
    vouch(&Signing::of_root(context.root.path()), &files).map_err(|e| CommandError::of(&e))?;
    let document = PullDocument {
        image: document(&Judge::new(context, store), record),
        reference: reference.map(ToString::to_string),
        referrers,
    };
    context.print(&document, || {
        let ImageDocument { name, digest, because, .. } = &document.image;
        let text = format!("{name} is in the store with the digest {digest}.");
        match because {
            Some(because) => format!("{text}\nNo server is started from it as it is: {because}"),
            None => text,
        }
    })?;
    Ok(Exit::Done)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn document(judge: &Judge, record: &Record) -> ImageDocument {
    let standing = judge.of(&record.digest);
    ImageDocument {
        name: record.name.clone(),
        recipe: record.recipe.to_string(),
        digest: record.digest.to_string(),
        size: record.size,
        admitted: standing.admitted,
        signed_by: standing.signed_by.map(|key| key.to_string()),
        because: standing.because,
    }
}

fn table(document: &ImagesDocument) -> String {
    let mut table = Table::default();
    for image in &document.images {
        let digest = &image.digest[..image.digest.len().min(19)];
        let standing = if image.admitted { "admitted" } else { "not admitted" };
        table.row([&image.name, digest, &size(image.size), standing]);
    }
    table.render(0)
}
