//! Manifests and lists of them.

use std::io::Read;

use kiln_model::digest::Digest;

use super::request::{Call, Payload, Scope, header, unexpected};
use super::retry::Trouble;
use super::{MAX_MANIFEST_BYTES, Registry, RegistryError};
use crate::oci::reference::Reference;
use crate::oci::{
    Document, READABLE_MANIFESTS, architectures, for_architecture, go_architecture, parse_document,
};
use crate::store::Manifest;

/// A manifest as the registry has it.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its checksum.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub manifest: Manifest,
}

impl Registry {
    /// The manifest that a reference stands for on this architecture, as Debian calls it. A list of
    /// manifests is followed to the one that fits.
    pub fn resolve(
        &self,
        reference: &Reference,
        architecture: &str,
    ) -> Result<Fetched, RegistryError> {
        let absent = || RegistryError::Absent { what: reference.to_string() };
        let bytes = self.manifest_bytes(reference, &reference.version())?.ok_or_else(absent)?;
        let index = match self.document(reference, &bytes)? {
            Document::Manifest(manifest) => {
                return Ok(Fetched { digest: Digest::of(&bytes), bytes, manifest: *manifest });
            }
            Document::Index(index) => index,
        };
        let platform = || RegistryError::Platform {
            what: reference.to_string(),
            architecture: go_architecture(architecture).to_owned(),
            there: architectures(&index),
        };
        let found = for_architecture(&index, architecture).ok_or_else(platform)?;
        self.manifest(reference, &found.digest)
    }

    /// The manifest with this digest in the repository of a reference.
    pub fn manifest(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Fetched, RegistryError> {
        let absent = || RegistryError::Absent { what: reference.at(*digest).to_string() };
        let bytes = self.manifest_bytes(reference, &digest.to_string())?.ok_or_else(absent)?;
        match self.document(reference, &bytes)? {
            Document::Manifest(manifest) => {
                Ok(Fetched { digest: *digest, bytes, manifest: *manifest })
            }
            // A list in a list: nobody does so.
            Document::Index(_) => Err(absent()),
        }
    }

    fn document(&self, reference: &Reference, bytes: &[u8]) -> Result<Document, RegistryError> {
        let url = self.manifest_url(reference, &reference.version());
        let what = "manifest of version 2";
        parse_document(bytes).map_err(|source| RegistryError::Document { url, what, source })
    }

    #[expect(clippy::unused_self, reason = "addresses are this client's affair")]
    fn manifest_url(&self, reference: &Reference, version: &str) -> String {
        format!("{}/v2/{}/manifests/{version}", reference.root(), reference.repository)
    }

    /// The bytes of a manifest by tag or digest; none if there is none.
    pub(super) fn manifest_bytes(
        &self,
        reference: &Reference,
        version: &str,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = self.manifest_url(reference, version);
        let scope = Scope::pull(reference);
        let call = Call::new("GET", &url, &scope).header("Accept", READABLE_MANIFESTS);
        let bytes = self.retry(&url, || self.read(&call, MAX_MANIFEST_BYTES))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let found = Digest::of(&bytes);
        match version.parse::<Digest>() {
            Ok(expected) if expected != found => {
                Err(RegistryError::Checksum { url, expected, found })
            }
            _ => Ok(Some(bytes)),
        }
    }

    /// What a short answer holds; none if there is no such thing.
    pub(super) fn read(
        &self,
        call: &Call<'_>,
        limit_bytes: u64,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let response = self.send(call)?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            _ => return Err(unexpected(call.url, response).into()),
        }
        let mut bytes = Vec::new();
        let mut reader = response.into_body().into_reader().take(limit_bytes + 1);
        reader.read_to_end(&mut bytes).map_err(|error| Trouble::Again(error.into()))?;
        if bytes.len() as u64 > limit_bytes {
            return Err(RegistryError::TooLong { url: call.url.to_owned(), limit_bytes }.into());
        }
        Ok(Some(bytes))
    }

    /// Stores a manifest under a tag or its digest. Whether the registry has noted by itself what the
    /// manifest is about.
    pub fn put_manifest(
        &self,
        reference: &Reference,
        version: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<bool, RegistryError> {
        let url = self.manifest_url(reference, version);
        let scope = Scope::push(reference);
        let call = Call::new("PUT", &url, &scope)
            .header("Content-Type", media_type)
            .with(Payload::Bytes(bytes));
        self.retry(&url, || {
            let response = self.send(&call)?;
            match response.status().as_u16() {
                200..300 => Ok(header(&response, "oci-subject").is_some()),
                404 => {
                    let what = format!("{}/{}", reference.host, reference.repository);
                    Err(RegistryError::Absent { what }.into())
                }
                _ => Err(unexpected(&url, response).into()),
            }
        })
    }
}
