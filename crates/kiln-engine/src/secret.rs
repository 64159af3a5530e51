//! Secrets: values kept encrypted, known by the id of their version.
//!
//! A given value's version is the first 16 bytes of an HMAC-SHA-256 (RFC 2104) under the
//! root's key, so that equal values have one version and the id gives nothing away; a
//! generated one's is random. Values are sealed with XChaCha20-Poly1305, the stack, the name
//! and the version being authenticated with them.

use std::fmt::Write as _;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, StackName};
use rusqlite::{OptionalExtension as _, params};

use crate::key::RootKey;
use crate::store::StoreError;
use crate::store::sqlite::{SqliteStore, database};

/// The secrets of a root.
pub struct Secrets<'a> {
    store: &'a SqliteStore,
    cipher: XChaCha20Poly1305,
    versions: [u8; 32],
}

impl<'a> Secrets<'a> {
    /// The secrets that `store` keeps under `key`.
    pub fn new(store: &'a SqliteStore, key: &RootKey) -> Self {
        let cipher = XChaCha20Poly1305::new(&key.derive("sealing secrets").into());
        Self { store, cipher, versions: key.derive("versions of secrets") }
    }

    /// The version of a given value.
    pub fn version_of(key: &RootKey, value: &[u8]) -> String {
        version(&key.derive("versions of secrets"), value)
    }

    /// Keeps a given value; its version.
    pub fn keep(
        &self,
        stack: &StackName,
        component: &ComponentId,
        value: &[u8],
    ) -> Result<String, StoreError> {
        let version = version(&self.versions, value);
        self.insert(stack, component, &version, value)?;
        Ok(version)
    }

    /// Makes and keeps a value of `bytes` random bytes, written as hexadecimal digits.
    pub fn generate(
        &self,
        stack: &StackName,
        component: &ComponentId,
        bytes: u32,
    ) -> Result<String, StoreError> {
        let mut value = vec![0; bytes as usize];
        let mut id = [0; 32];
        random(&mut value)?;
        random(&mut id)?;
        let mut digits = String::with_capacity(value.len() * 2);
        for byte in &value {
            // Writing to a string cannot fail.
            let _ = write!(digits, "{byte:02x}");
        }
        let version = Digest::from_bytes(id).short(32);
        self.insert(stack, component, &version, digits.as_bytes())?;
        Ok(version)
    }

    /// A version's value.
    pub fn reveal(
        &self,
        stack: &StackName,
        component: &ComponentId,
        version: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "select nonce, sealed from secret
                   where stack = ?1 and component = ?2 and version = ?3";
        let row: Option<(Vec<u8>, Vec<u8>)> = self
            .store
            .lock()
            .query_row(sql, params![stack.as_str(), component.to_string(), version], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(database("read a secret"))?;
        let Some((nonce, sealed)) = row else { return Ok(None) };
        let damaged = |problem: &str| StoreError::Altered {
            what: format!("version {version} of {component}"),
            problem: problem.to_owned(),
        };
        if nonce.len() != 24 {
            return Err(damaged("its nonce is not 24 bytes long"));
        }
        let aad = context(stack, component, version);
        let payload = Payload { msg: &sealed, aad: aad.as_bytes() };
        let value = self.cipher.decrypt(XNonce::from_slice(&nonce), payload);
        value.map(Some).map_err(|_| damaged("it does not open with this root's key"))
    }

    fn insert(
        &self,
        stack: &StackName,
        component: &ComponentId,
        version: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let mut nonce = [0; 24];
        random(&mut nonce)?;
        let aad = context(stack, component, version);
        let payload = Payload { msg: value, aad: aad.as_bytes() };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| {
            StoreError::Altered {
                what: component.to_string(),
                problem: "its value is too long to be sealed".to_owned(),
            }
        })?;
        self.store
            .lock()
            .execute(
                "insert or ignore into secret values (?1, ?2, ?3, ?4, ?5)",
                params![stack.as_str(), component.to_string(), version, nonce, sealed],
            )
            .map_err(database("keep a secret"))?;
        Ok(())
    }
}

fn context(stack: &StackName, component: &ComponentId, version: &str) -> String {
    format!("{stack}\n{component}\n{version}")
}

fn random(bytes: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(bytes).map_err(|e| StoreError::File {
        path: "/dev/urandom".into(),
        source: std::io::Error::other(e),
    })
}

/// HMAC-SHA-256 with a 32-byte key, cut to 16 bytes, in hexadecimal digits.
fn version(key: &[u8; 32], value: &[u8]) -> String {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Digest::of(&[&pad(0x36)[..], value].concat());
    Digest::of(&[&pad(0x5c)[..], inner.as_bytes()].concat()).short(32)
}
