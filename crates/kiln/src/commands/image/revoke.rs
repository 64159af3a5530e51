//! `kiln image revoke`: an image that must not be started any more.

use std::time::{SystemTime, UNIX_EPOCH};

use kiln_image::sign::{Signing, What};
use kiln_model::digest::Digest;
use kiln_model::quantity::Timestamp;

use super::record;
use crate::context::Context;
use crate::document::trust::RevocationDocument;
use crate::error::{CommandError, Exit};

/// The longest reason, in bytes: it is read before each start.
const MAX_REASON: usize = 1000;

/// What is to be revoked.
pub(super) struct Revoking {
    pub(super) what: What,
    pub(super) reason: Option<String>,
    pub(super) yes: bool,
    /// What the person is asked.
    pub(super) question: String,
}

pub(super) fn run(
    context: &Context,
    name: &str,
    reason: Option<&str>,
    yes: bool,
) -> Result<Exit, CommandError> {
    // An image may be revoked before it is here.
    let digest = match name.parse::<Digest>() {
        Ok(digest) => known(context, digest),
        Err(_) => record(context, name)?.1.digest,
    };
    let question = format!("Revoke image {name} ({digest})? It will not start any more.");
    let (what, reason) = (What::Image(digest), reason.map(str::to_owned));
    revoke(context, Revoking { what, reason, yes, question })
}

/// The content of what may be a component's digest.
fn known(context: &Context, digest: Digest) -> Digest {
    record(context, &digest.to_string()).map_or(digest, |(_, record)| record.digest)
}

pub(super) fn revoke(context: &Context, revoking: Revoking) -> Result<Exit, CommandError> {
    let Revoking { what, reason, yes, question } = revoking;
    let too_long = |reason: &String| reason.len() > MAX_REASON;
    if reason.as_ref().is_some_and(|reason| too_long(reason) || reason.contains('\n')) {
        let text = format!("a reason is one line of at most {MAX_REASON} bytes");
        return Err(CommandError::usage(text));
    }
    context.root.prepare()?;
    if !yes && !context.confirm(&question)? {
        return Err(CommandError::failed("nothing was revoked"));
    }
    let signing = Signing::of_root(context.root.path());
    let current = |signing: &Signing| {
        let ring = signing.ring().map_err(|e| CommandError::of(&e))?;
        Ok::<_, CommandError>(ring.map(|ring| ring.current))
    };
    let before = current(&signing)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let new = signing.revoke(what, reason.clone(), now).map_err(|e| CommandError::of(&e))?;
    let after = current(&signing)?;
    let successor = after.filter(|_| before.is_some() && before != after);
    let document = RevocationDocument {
        revoked: what.to_string(),
        reason,
        new,
        successor: successor.map(|key| key.to_string()),
    };
    context.print(&document, || {
        let what = &document.revoked;
        if !new {
            return format!("{what} was revoked before.");
        }
        match &document.successor {
            None => format!("Revoked {what}."),
            Some(key) => format!("Revoked {what}. {key} signs from now on."),
        }
    })?;
    Ok(Exit::Done)
}
