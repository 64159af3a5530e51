//! Blobs that go.

use std::path::Path;

use ureq::Body;
use ureq::http::Response;

use super::download::signed;
use super::request::{Call, Payload, Scope, header, unexpected};
use super::retry::Trouble;
use super::{Registry, RegistryError};
use crate::oci::reference::Reference;
use crate::store::Descriptor;

/// Blobs up to this length, in bytes, go in one piece.
const WHOLE_BYTES: u64 = 4 << 20;
/// The length of a piece in bytes: some registries want 5 MiB at least.
const PIECE_BYTES: u64 = 16 << 20;

/// An upload under way.
struct Session<'a> {
    scope: Scope<'a>,
    blob: &'a Descriptor,
    path: &'a Path,
    /// Where the next piece goes.
    location: String,
    /// How many bytes the registry has.
    sent: u64,
}

impl Registry {
    /// Brings a blob, whose bytes are the file at `path`, into the repository of a reference, unless
    /// it is there. A registry that has it in the repository `from` takes it from there. `moved` is
    /// told of each piece's length in bytes; a negative one takes back what has to go again.
    pub fn upload(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        path: &Path,
        from: Option<&str>,
        moved: &dyn Fn(i64),
    ) -> Result<(), RegistryError> {
        if self.has_blob(reference, blob)? {
            moved(signed(blob.size));
            return Ok(());
        }
        let url = format!("{}/v2/{}/blobs/uploads/", reference.root(), reference.repository);
        let mut tries = self.tries(&url);
        let mut from = from;
        // A session that the registry has lost is begun anew, as often as patience has it.
        loop {
            let began = self.begin(reference, &url, blob, path, from);
            let trouble = match began {
                Ok(None) => {
                    moved(signed(blob.size));
                    return Ok(());
                }
                Ok(Some(mut session)) => match self.bring(&mut session, moved) {
                    Ok(()) => return Ok(()),
                    Err(trouble) => {
                        moved(-signed(session.sent));
                        trouble
                    }
                },
                // Who may not read the other repository sends the blob itself.
                Err(Trouble::Failed(
                    RegistryError::Denied { .. } | RegistryError::Unauthorized { .. },
                )) if from.is_some() => {
                    from = None;
                    continue;
                }
                Err(trouble) => trouble,
            };
            tries.pause(trouble)?;
        }
    }

    /// Whether the repository has a blob.
    fn has_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<bool, RegistryError> {
        let url = format!("{}/v2/{}/blobs/{}", reference.root(), reference.repository, blob.digest);
        let scope = Scope::push(reference);
        self.retry(&url, || {
            let response = self.send(&Call::new("HEAD", &url, &scope))?;
            Ok(response.status().as_u16() == 200)
        })
    }

    /// Asks for an upload; none is needed where the registry has the blob elsewhere.
    fn begin<'a>(
        &self,
        reference: &'a Reference,
        url: &str,
        blob: &'a Descriptor,
        path: &'a Path,
        from: Option<&'a str>,
    ) -> Result<Option<Session<'a>>, Trouble> {
        let scope = Scope { from, ..Scope::push(reference) };
        let mount = from.map(|from| format!("{url}?mount={}&from={from}", blob.digest));
        let asked = mount.as_deref().unwrap_or(url);
        let response = self.send(&Call::new("POST", asked, &scope).with(Payload::Bytes(b"")))?;
        match response.status().as_u16() {
            201 => Ok(None),
            202 => {
                let location = location(&reference.root(), asked, &response)?;
                let scope = Scope::push(reference);
                Ok(Some(Session { scope, blob, path, location, sent: 0 }))
            }
            404 => {
                let what = format!("{}/{}", reference.host, reference.repository);
                Err(RegistryError::Absent { what }.into())
            }
            _ => Err(unexpected(asked, response).into()),
        }
    }

    /// Sends all pieces and ends the upload.
    fn bring(&self, session: &mut Session<'_>, moved: &dyn Fn(i64)) -> Result<(), Trouble> {
        let size = session.blob.size;
        let address = session.location.clone();
        let mut tries = self.tries(&address);
        while size > WHOLE_BYTES && session.sent < size {
            let before = session.sent;
            if let Err(trouble) = self.piece(session) {
                if matches!(trouble, Trouble::Failed(_)) {
                    return Err(trouble);
                }
                tries.pause(trouble)?;
                match self.ask_how_far(session) {
                    // A piece at the wrong place is refused, and asks again.
                    Ok(()) | Err(Trouble::Again(_) | Trouble::Busy { status: 429 | 500.., .. }) => {
                    }
                    Err(lost) => return Err(lost),
                }
            }
            if session.sent > before {
                tries.progressed();
            }
            moved(signed(session.sent) - signed(before));
        }
        let (offset, length) = (session.sent, size - session.sent);
        let payload = match length {
            0 => Payload::Bytes(b""),
            _ => Payload::Part { path: session.path, offset, length },
        };
        let join = if session.location.contains('?') { '&' } else { '?' };
        let url = format!("{}{join}digest={}", session.location, session.blob.digest);
        let call = Call::new("PUT", &url, &session.scope)
            .header("Content-Type", "application/octet-stream")
            .with(payload);
        let response = self.send(&call)?;
        match response.status().as_u16() {
            200..300 => {
                session.sent = size;
                moved(signed(length));
                Ok(())
            }
            // The registry has forgotten the upload.
            404 => Err(Trouble::Busy { status: 404, after: None }),
            _ => Err(unexpected(&url, response).into()),
        }
    }

    /// Sends the next piece.
    fn piece(&self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let offset = session.sent;
        let length = PIECE_BYTES.min(session.blob.size - offset);
        let root = session.location.clone();
        let call = Call::new("PATCH", &root, &session.scope)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Range", format!("{offset}-{}", offset + length - 1))
            .with(Payload::Part { path: session.path, offset, length });
        let response = self.send(&call)?;
        match response.status().as_u16() {
            200..300 => {
                session.location = location(&root, &root, &response)?;
                session.sent = received(&response).unwrap_or(offset + length);
                Ok(())
            }
            // The registry has another count, or has forgotten the upload.
            status @ (404 | 416) => Err(Trouble::Busy { status, after: None }),
            _ => Err(unexpected(&root, response).into()),
        }
    }

    /// After a break: how much of it the registry has.
    fn ask_how_far(&self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let url = session.location.clone();
        let response = self.send(&Call::new("GET", &url, &session.scope))?;
        match response.status().as_u16() {
            200..300 => {
                // Where it can't be said, the upload is begun anew.
                let forgotten = Trouble::Busy { status: 204, after: None };
                session.sent = received(&response).ok_or(forgotten)?.min(session.blob.size);
                if header(&response, "location").is_some() {
                    session.location = location(&url, &url, &response)?;
                }
                Ok(())
            }
            status => Err(Trouble::Busy { status, after: None }),
        }
    }
}

/// How many bytes `Range: 0-N` speaks of. None and one byte are both `0-0`; as a blob that goes in
/// pieces is longer than a byte, that is taken for none.
fn received(response: &Response<Body>) -> Option<u64> {
    let range = header(response, "range")?;
    let end: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    Some(if end == 0 { 0 } else { end + 1 })
}

/// The address that an answer names, which may be without a host. It must be that of the registry,
/// or encrypted.
fn location(base: &str, url: &str, response: &Response<Body>) -> Result<String, Trouble> {
    let answer = |what| Trouble::Failed(RegistryError::Answer { url: url.to_owned(), what });
    let named = header(response, "location").ok_or_else(|| answer("an address for the upload"))?;
    let behind_scheme = base.find("://").map_or(0, |at| at + 3);
    let root_ends = base[behind_scheme..].find('/').map_or(base.len(), |at| behind_scheme + at);
    let root = &base[..root_ends];
    if named.starts_with('/') {
        return Ok(format!("{root}{named}"));
    }
    if named.starts_with("https://") || named.starts_with(&format!("{root}/")) {
        return Ok(named.to_owned());
    }
    Err(answer("an address for the upload that can be trusted"))
}
