//! `kiln image key …`: the keys that sign what is admitted.

use std::path::{Path, PathBuf};

use kiln_image::sign::{Ring, SignError, Signing, What};
use kiln_model::trust::PublicKey;

use super::revoke::{Revoking, revoke};
use crate::context::Context;
use crate::document::trust::{ExportedKeyDocument, KeyDocument, KeysDocument};
use crate::error::{CommandError, Exit};
use crate::render::table::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the keys of the root
    List,
    /// Make a new key that signs from now on; what the others signed stays valid
    New,
    /// Take in an Ed25519 key (PKCS#8 PEM) that signs from now on
    Import {
        /// The file with the secret key
        file: PathBuf,
    },
    /// Print the public half of a key as PEM; with --secret, save the secret half
    Export {
        /// The key; the one that signs where not given
        key: Option<PublicKey>,
        /// The public half only, as it is anyway
        #[arg(long, conflicts_with = "secret")]
        public: bool,
        /// Write the secret half to this new file
        #[arg(long, value_name = "FILE")]
        secret: Option<PathBuf>,
    },
    /// Let nothing count any more that a key has signed, or will
    Revoke {
        /// The key: the root's own or another's
        key: PublicKey,
        /// Why, for those who are refused
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let signing = Signing::of_root(context.root.path());
    match &args.verb {
        Verb::List => list(context, &signing),
        Verb::New => {
            context.root.prepare()?;
            made(context, &signing, signing.rotate())
        }
        Verb::Import { file } => {
            context.root.prepare()?;
            made(context, &signing, signing.import(file))
        }
        Verb::Export { key, secret, .. } => export(context, &signing, *key, secret.as_deref()),
        Verb::Revoke { key, reason, yes } => {
            let question = format!("Revoke {key}? Nothing that it signed will start any more.");
            let (what, reason) = (What::Key(*key), reason.clone());
            revoke(context, Revoking { what, reason, yes: *yes, question })
        }
    }
}

/// The keys of a ring.
fn keys(ring: &Ring) -> Vec<KeyDocument> {
    let others = ring.revoked.iter().filter_map(|revocation| match revocation.what {
        What::Key(key) if !ring.own.contains(&key) => Some(key),
        _ => None,
    });
    let document = |key: PublicKey| {
        let revocation = ring.revocation(What::Key(key));
        KeyDocument {
            key: key.to_string(),
            own: ring.own.contains(&key),
            current: key == ring.current,
            revoked_at: revocation.map(|revocation| revocation.at.to_string()),
            reason: revocation.and_then(|revocation| revocation.reason.clone()),
        }
    };
    ring.own.iter().copied().chain(others).map(document).collect()
}

fn list(context: &Context, signing: &Signing) -> Result<Exit, CommandError> {
    let ring = signing.ring().map_err(|e| CommandError::of(&e))?;
    let document = KeysDocument { keys: ring.as_ref().map(keys).unwrap_or_default() };
    context.print(&document, || table(&document))?;
    Ok(Exit::Done)
}

fn table(document: &KeysDocument) -> String {
    if document.keys.is_empty() {
        return "There is no key yet; the first image that is admitted makes one.".to_owned();
    }
    let mut table = Table::default();
    for key in &document.keys {
        let state = match &key.revoked_at {
            Some(at) => {
                let reason = key.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
                format!("revoked {at}{reason}")
            }
            None if key.current => "signs".to_owned(),
            None => "counts".to_owned(),
        };
        table.row([&key.key, if key.own { "own" } else { "other" }, &state]);
    }
    table.render(0)
}

/// Shows a key that signs from now on.
fn made(
    context: &Context,
    signing: &Signing,
    made: Result<PublicKey, SignError>,
) -> Result<Exit, CommandError> {
    let key = made.map_err(|e| CommandError::of(&e))?.to_string();
    let ring = signing.ring().map_err(|e| CommandError::of(&e))?;
    let all = ring.as_ref().map(keys).unwrap_or_default();
    let document = all.into_iter().find(|document| document.key == key);
    context.print(&document, || format!("{key} signs from now on."))?;
    Ok(Exit::Done)
}

fn export(
    context: &Context,
    signing: &Signing,
    key: Option<PublicKey>,
    secret: Option<&Path>,
) -> Result<Exit, CommandError> {
    let ring = signing.ring().map_err(|e| CommandError::of(&e))?;
    let current = ring.map(|ring| ring.current);
    let key = key.or(current).ok_or_else(|| {
        CommandError::failed("this root has no key yet")
            .with_help("`kiln image key new` makes one, and so does the first `kiln image build`")
    })?;
    let pem = signing.public_pem(Some(key)).map_err(|e| CommandError::of(&e))?;
    if let Some(file) = secret {
        signing.export(Some(key), file).map_err(|e| CommandError::of(&e))?;
        let file = file.display();
        context
            .say(&format!("wrote the secret half to {file}; whoever has it can sign as this root"));
    }
    let file = secret.map(|file| file.display().to_string());
    let document = ExportedKeyDocument { key: key.to_string(), pem, file };
    context.print(&document, || document.pem.clone())?;
    Ok(Exit::Done)
}
