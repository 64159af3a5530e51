//! `kiln image …`: images, without a daemon.

use kiln_daemon::prepare::Draft;
use kiln_image::store::{ImageStore, Record};
use kiln_model::name::{ComponentId, Kind};

use crate::cli::Variables;
use crate::context::Context;
use crate::document::image::{
    ImageDetailDocument, ImageDocument, ImagesDocument, LockDocument, VerificationDocument,
};
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
        /// Choose anew what was locked before
        #[arg(long)]
        upgrade: bool,
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
        Verb::Build { name, variables } => build(context, name.as_deref(), variables),
        Verb::Lock { upgrade, variables } => lock(context, *upgrade, variables),
        Verb::List => list(context),
        Verb::Show { name } => show(context, name),
        Verb::Verify { name } => verify(context, name.as_deref()),
    }
}

fn build(
    context: &Context,
    name: Option<&str>,
    variables: &Variables,
) -> Result<Exit, CommandError> {
    let mut draft = context.draft(variables, None)?;
    let only = name.map(|name| declared(&draft, name)).transpose()?;
    context.root.prepare()?;
    let board = Board::new(context.err);
    draft.lock(context.root.path(), false, &ImageBoard::new(&board))?;
    let built = draft.build(context.root.path(), only.as_ref(), &ImageBoard::new(&board))?;
    board.finish();
    draft.save_lock()?;
    let document = ImagesDocument { images: built.values().map(document).collect() };
    context.print(&document, || table(&document))?;
    Ok(Exit::Done)
}

/// The image of the stack with this name.
fn declared(draft: &Draft, name: &str) -> Result<ComponentId, CommandError> {
    let name = name.strip_prefix("image.").unwrap_or(name);
    let id = ComponentId::new(Kind::Image, name);
    let sealed = draft.seal()?;
    if sealed.contains_key(&id) {
        return Ok(id);
    }
    let images = sealed.keys().filter(|id| id.kind == Kind::Image);
    let known: Vec<&str> = images.map(|id| id.name.as_str()).collect();
    let help = kiln_config::diagnostic::nearest(name, known.iter().copied()).map_or_else(
        || {
            format!(
                "it declares {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )
        },
        |near| format!("did you mean {near}?"),
    );
    let stack = &draft.stack;
    Err(CommandError::usage(format!("stack {stack} declares no image {name}")).with_help(help))
}

fn lock(context: &Context, upgrade: bool, variables: &Variables) -> Result<Exit, CommandError> {
    let mut draft = context.draft(variables, None)?;
    context.root.prepare()?;
    let board = Board::new(context.err);
    draft.lock(context.root.path(), upgrade, &ImageBoard::new(&board))?;
    board.finish();
    let changed = draft.save_lock()?;
    let file = draft.directory.join(kiln_image::lock::FILE_NAME).display().to_string();
    let document = LockDocument { stack: draft.stack.to_string(), file, changed };
    context.print(&document, || {
        let file = &document.file;
        if changed { format!("Wrote {file}.") } else { format!("{file} is as it was.") }
    })?;
    Ok(Exit::Done)
}

fn list(context: &Context) -> Result<Exit, CommandError> {
    let records = store(context)?.map(|store| store.list()).transpose();
    let records = records.map_err(|e| CommandError::of(&e))?.unwrap_or_default();
    let document = ImagesDocument { images: records.iter().map(document).collect() };
    context.print(&document, || table(&document))?;
    Ok(Exit::Done)
}

fn show(context: &Context, name: &str) -> Result<Exit, CommandError> {
    let (store, record) = record(context, name)?;
    let files = store.get(&record.digest).map_err(|e| CommandError::of(&e))?;
    let detail = ImageDetailDocument {
        image: document(&record),
        file: files.erofs.display().to_string(),
        file_digest: files.erofs_digest.to_string(),
        user: files.config.user,
        env: files.config.env,
        entrypoint: files.config.entrypoint,
        working_dir: files.config.working_dir,
    };
    context.print(&detail, || {
        let mut table = Table::default();
        table.row(["name", &detail.image.name]);
        table.row(["digest", &detail.image.digest]);
        table.row(["recipe", &detail.image.recipe]);
        table.row(["size", &size(detail.image.size)]);
        table.row(["file", &detail.file]);
        table.row(["entrypoint", &detail.entrypoint.join(" ")]);
        table.row(["user", &detail.user]);
        table.render(0)
    })?;
    Ok(Exit::Done)
}

fn verify(context: &Context, name: Option<&str>) -> Result<Exit, CommandError> {
    let problems: Vec<String> = if let Some(name) = name {
        let (store, records) = records(context, name)?;
        let wrong = |record: &Record| {
            let error = store.verify_image(&record.digest).err()?;
            Some(format!("image {name} ({}): {error}", record.digest))
        };
        records.iter().filter_map(wrong).collect()
    } else {
        let problems = store(context)?.map(|store| store.verify()).transpose();
        let problems = problems.map_err(|e| CommandError::of(&e))?.unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    };
    let document = VerificationDocument { intact: problems.is_empty(), problems };
    context.print(&document, || {
        if document.intact {
            "Everything in the image store is what its digest says.".to_owned()
        } else {
            document.problems.join("\n")
        }
    })?;
    Ok(if document.intact { Exit::Done } else { Exit::Failed })
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
