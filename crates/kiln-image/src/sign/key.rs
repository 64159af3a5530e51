//! One secret key, and its file.
//!
//! The file is PKCS#8 in PEM, as `openssl pkey` reads and writes it: version 1, without the public
//! half, which older readers do not expect.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ed25519_dalek::pkcs8::spki::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use kiln_model::trust::PublicKey;

use super::{SignError, at};

/// The longest file that is read as a key, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 10;

/// A secret key. It is never shown, and wiped from memory when it is dropped.
pub struct SecretKey(SigningKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}, secret not shown)", self.public())
    }
}

impl SecretKey {
    /// A new one.
    pub fn generate() -> Result<Self, SignError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(SignError::Random)?;
        let key = Self::from_bytes(&bytes);
        bytes.fill(0);
        Ok(key)
    }

    /// The key of a known seed.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The signature over a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// A key that somebody else wrote.
    pub fn import(path: &Path) -> Result<Self, SignError> {
        let foreign = || SignError::Foreign { path: path.to_owned() };
        let text = read(path).map_err(at(path))?.ok_or_else(foreign)?;
        SigningKey::from_pkcs8_pem(&text).map(Self).map_err(|_| foreign())
    }

    /// The key in the file that is named after it. Another key, another form, or anything else
    /// is refused: each byte of the file counts.
    pub(super) fn load(path: &Path, named: PublicKey) -> Result<Self, SignError> {
        let wrong = || SignError::Key { path: path.to_owned(), key: named };
        let text = match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(wrong()),
            text => text.map_err(at(path))?.ok_or_else(wrong)?,
        };
        let key = SigningKey::from_pkcs8_pem(&text).map(Self).map_err(|_| wrong())?;
        let same = key.public() == named && key.with_pem(|own| own == text);
        if same { Ok(key) } else { Err(wrong()) }
    }

    /// Writes the key to a new file that only its owner can read.
    pub fn save_new(&self, path: &Path) -> Result<(), SignError> {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
        let written = self.with_pem(|text| file.write_all(text.as_bytes()));
        written.and_then(|()| file.sync_all()).map_err(|error| {
            // Half a key is of no use to anybody.
            let _ = fs::remove_file(path);
            at(path)(error)
        })
    }

    /// Shows the file's text to `look`; it is wiped afterwards.
    fn with_pem<R>(&self, look: impl FnOnce(&str) -> R) -> R {
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let text = pair.to_pkcs8_pem(LineEnding::LF).expect("32 bytes have an encoding");
        look(&text)
    }
}

/// The text of a file, unless it is too long or no text.
fn read(path: &Path) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let fits = bytes.len() as u64 <= MAX_FILE_BYTES;
    Ok(String::from_utf8(bytes).ok().filter(|_| fits))
}

/// A public key as PEM, for `openssl`, `cosign` and others; nothing if it is no point of the curve.
pub(super) fn public_pem(key: PublicKey) -> Option<String> {
    let key = VerifyingKey::from_bytes(&key.0).ok()?;
    key.to_public_key_pem(LineEnding::LF).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_goes_through_its_file_and_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let key = SecretKey::from_bytes(&[3; 32]);
        key.save_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(key.save_new(&path).is_err(), "no file is written over");
        let again = SecretKey::load(&path, key.public()).unwrap();
        assert_eq!(again.public(), key.public());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"), "PKCS#8");
        assert!(!format!("{key:?}").contains("03, 03") && !format!("{key:?}").contains("0303"));
    }

    #[test]
    fn each_byte_of_a_key_file_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let key = SecretKey::from_bytes(&[5; 32]);
        key.save_new(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, flipped).unwrap();
            let error = SecretKey::load(&path, key.public()).unwrap_err();
            assert!(matches!(error, SignError::Key { .. }), "byte {at}: {error}");
        }
    }

    #[test]
    fn openssl_reads_what_is_written_and_the_other_way_round() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let key = SecretKey::from_bytes(&[9; 32]);
        key.save_new(&path).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = std::process::Command::new("openssl");
            command.args(arguments).current_dir(directory.path()).output()
        };
        let output = match run(&["pkey", "-in", "key.pem", "-pubout"]) {
            Ok(output) => output,
            Err(error) => {
                println!("skipped: openssl_reads_what_is_written: openssl: {error}");
                return;
            }
        };
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, public_pem(key.public()).unwrap().into_bytes());
        let made = run(&["genpkey", "-algorithm", "ed25519", "-out", "other.pem"]).unwrap();
        assert!(made.status.success(), "{made:?}");
        let other = SecretKey::import(&directory.path().join("other.pem")).unwrap();
        let shown = run(&["pkey", "-in", "other.pem", "-pubout"]).unwrap();
        assert_eq!(shown.stdout, public_pem(other.public()).unwrap().into_bytes());
        fs::write(directory.path().join("no.pem"), "no key").unwrap();
        let error = SecretKey::import(&directory.path().join("no.pem")).unwrap_err();
        assert!(matches!(error, SignError::Foreign { .. }));
    }
}
